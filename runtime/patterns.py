"""Patterns of JSON schemas, which are ECMAScript's regular expressions, in the syntax of Rust's `regex`, which llguidance reads.

Rust's classes can be nested, cut and subtracted; ECMAScript's brackets, `&&`, `--` and `~~` in a class are characters.
"""

from __future__ import annotations

import re
from typing import Any

_ESCAPE = re.compile(r"\\(?:c([A-Za-z])|(0)(?![0-9])|.)", re.DOTALL)
_BRACES = re.compile(r"\{[^{}]*\}")
_QUANTIFIER = re.compile(r"\{[0-9]+(?:,[0-9]*)?\}")
_NO_LINE_END = r"[^\n\r\x{2028}\x{2029}]"
_SPECIAL = {"[": r"\[", "&": r"\&", "~": r"\~"}  # in a class


_UNREADABLE = re.compile(
    r"(?P<around>\(\?<?[=!])|(?P<back>\\[1-9]|\\k<)|(?P<word>\\[bB])|\\.|\[(?:\\.|[^\]\\])*\]", re.DOTALL
)


def unreadable(pattern: Any) -> str:
    """What of a pattern no grammar can hold an answer to, in words; empty where there is nothing such."""
    words = {"around": "looking around", "back": "a reference to a group", "word": "a word boundary"}
    found = (match.lastgroup for match in _UNREADABLE.finditer(pattern)) if isinstance(pattern, str) else ()
    return next((words[kind] for kind in found if kind), "")


def in_rust(pattern: str) -> str:
    """The same pattern; what ECMAScript does not know either is left to be refused."""
    parts: list[str] = []
    at = 0
    while at < len(pattern):
        if pattern[at] == "[":
            part, at = _class(pattern, at + 1)
        elif pattern[at] == "\\":
            part, at = _escape(pattern, at)
        elif pattern[at] == "{" and not _QUANTIFIER.match(pattern, at):
            part, at = r"\{", at + 1
        else:
            part, at = _NO_LINE_END if pattern[at] == "." else pattern[at], at + 1
        parts.append(part)
    return "".join(parts)


def _escape(pattern: str, at: int) -> tuple[str, int]:
    """An escape, and where it ends."""
    found = _ESCAPE.match(pattern, at)
    if found is None:  # a backslash at the end
        return pattern[at], at + 1
    if found[1]:
        return f"\\x{ord(found[1]) % 32:02x}", found.end()
    braces = _BRACES.match(pattern, found.end()) if found[0] in (r"\u", r"\p", r"\P") else None
    part = r"\x00" if found[2] else found[0]
    return (part + braces[0], braces.end()) if braces else (part, found.end())


def _class(pattern: str, at: int) -> tuple[str, int]:
    """The class whose bracket was before `at`, and where it ends."""
    negated = pattern.startswith("^", at)
    at += negated
    if pattern.startswith("]", at):
        return r"[\s\S]" if negated else r"[^\s\S]", at + 1
    parts = ["[^" if negated else "["]
    while at < len(pattern) and pattern[at] != "]":
        if pattern[at] == "\\":
            part, at = (r"\x08", at + 2) if pattern.startswith(r"\b", at) else _escape(pattern, at)
        else:
            first = len(parts) == 1 or parts[-1] == "-"  # a hyphen is one at the beginning and where a range ends
            part, at = r"\-" if pattern[at] == "-" and first else _SPECIAL.get(pattern[at], pattern[at]), at + 1
        parts.append(part)
    return "".join(parts) + pattern[at : at + 1], at + 1
