"""How many terminal cells a text takes."""

from __future__ import annotations

import unicodedata

_ZERO = ((0x00, 0x1F), (0x7F, 0x9F), (0xAD, 0xAD), (0x1160, 0x11FF), (0x200B, 0x200F), (0x2028, 0x202E), (0xFE00, 0xFE0F))
_JOINER = "\u200d"


def char_width(char: str) -> int:
    """Cells of one character: 0 for control and combining ones, 2 for wide ones."""
    code = ord(char)
    if 0x20 <= code < 0x7F:
        return 1
    if any(low <= code <= high for low, high in _ZERO) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def text_width(text: str) -> int:
    """Cells of a text in which joined emoji, skin tones and flags count once."""
    if text.isascii():
        return sum(" " <= char <= "~" for char in text)
    total, previous, flags = 0, "", 0
    for char in text:
        flags = flags + 1 if "\U0001f1e6" <= char <= "\U0001f1ff" else 0
        joined = previous == _JOINER or "\U0001f3fb" <= char <= "\U0001f3ff" or (flags and flags % 2 == 0)
        total += 0 if joined else char_width(char)
        previous = char
    return total
