"""Escaping for HTML, JavaScript and URL queries, as Go's templates do it."""

from __future__ import annotations

import re
import urllib.parse

from ollama_compat.template.gotemplate.literals import is_byte, to_bytes

_HTML = str.maketrans({"\0": "\ufffd", '"': "&#34;", "'": "&#39;", "&": "&amp;", "<": "&lt;", ">": "&gt;"})
_JS_SPECIAL = re.compile(r"""[\\'"<>&=\x00-\x1f]|[^\x00-\x7f]""")
_JS_BACKSLASHED = frozenset("\\'\"")


def html(text: str) -> str:
    return text.translate(_HTML)


def js(text: str) -> str:
    """For the inside of a JavaScript string."""
    return _JS_SPECIAL.sub(_js, text)


def _js(match: re.Match[str]) -> str:
    char = match[0]
    if char in _JS_BACKSLASHED:
        return "\\" + char
    return char if is_byte(char) or (char > "\x7f" and char.isprintable()) else f"\\u{ord(char):04X}"


def url_query(text: str) -> str:
    """For a value in a URL's query; a space is `+`."""
    return urllib.parse.quote_plus(to_bytes(text), safe="")
