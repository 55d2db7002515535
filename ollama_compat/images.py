"""Pictures in requests: base64, checked as Go's decoder does."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from ollama_compat import gotypes
from ollama_compat.gojson import Number


@gotypes.accepts(type="string", contentEncoding="base64")
def image(value: Any, at: gotypes.Place) -> str | None:
    """Base64 text of an image, checked; the text itself travels on. The bytes as a list of numbers will do as well."""
    if isinstance(value, list):
        return base64.b64encode(bytes(_byte(item, at) for item in value)).decode()
    if not isinstance(value, str) or isinstance(value, Number):
        at.refuse(value, "api.ImageData")
        return None
    fault = base64_fault(value)
    if fault is not None:
        at.faults.append(gotypes.OtherFault(f"illegal base64 data at input byte {fault}"))
    return value


def _byte(value: Any, at: gotypes.Place) -> int:
    if value is None:
        return 0
    if isinstance(value, Number) and value.is_int and 0 <= int(value) < 256:
        return int(value)
    at.refuse(value, "uint8", quote_number=True)
    return 0


_ALPHABET = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")


def base64_fault(text: str) -> int | None:
    """Place of the first byte where Go's standard base64 decoder stops, or None."""
    try:
        binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError):
        return _base64_stop(text)
    return None


def _base64_stop(text: str) -> int | None:
    in_quantum = 0  # characters of the group of four that begins at `start`
    start = 0
    for at, char in enumerate(text):
        if char in "\r\n":
            continue
        if char == "=":
            return _padding_stop(text, at, in_quantum)
        if char not in _ALPHABET:
            return at
        start = at if in_quantum == 0 else start
        in_quantum = (in_quantum + 1) % 4
    return start if in_quantum else None


def _padding_stop(text: str, at: int, in_quantum: int) -> int | None:
    """As `_base64_stop`, from the first `=` on."""
    if in_quantum < 2:
        return at
    rest = [(place, char) for place, char in enumerate(text[at + 1 :], at + 1) if char not in "\r\n"]
    if in_quantum == 2:
        if not rest:
            return len(text)
        if rest[0][1] != "=":
            return rest[0][0] - 1
        rest = rest[1:]
    return rest[0][0] if rest else None
