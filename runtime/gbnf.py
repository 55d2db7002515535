"""GBNF, llama.cpp's form of grammars, in Lark as llguidance reads it."""

from __future__ import annotations

import re

from llguidance.gbnf_to_lark import any_to_lark, is_lark_syntax

_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|.)", re.DOTALL)


def in_lark(text: str) -> list[str]:
    """Ways to write a grammar, the best first, of which those before the last may not compile. Lark stays as it is. Raises
    Exception, as the converter does, where the text is neither.

    A grammar that is regular can be one expression: that is followed in a third of the time, and to the letter, while rules one
    by one take as much text as they can, be it that of the next rule.
    """
    if is_lark_syntax(text):
        return [text]
    lark = any_to_lark(_ESCAPE.sub(_character, text))
    return [re.sub(r"(?m)^start:", "WHOLE_TEXT:", lark, count=1) + "\nstart: WHOLE_TEXT\n", lark]


def _character(escape: re.Match[str]) -> str:
    """A character for its number: the converter drops zeros that Lark needs."""
    digits = escape[1] or escape[2]
    if digits is None:
        return escape[0]
    return f"\\x{digits[-2:]}" if int(digits, 16) < 0x80 else chr(int(digits, 16))
