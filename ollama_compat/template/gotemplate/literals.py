"""Go's literals: quoting and unquoting of strings, and numeric constants. Facts: the Go specification, package strconv.

A Go string is bytes, a Python string is characters. Bytes that are no UTF-8 (from `"\\xff"` or from cutting a character)
are carried as the lone surrogates of the error handler `surrogateescape`.
"""

from __future__ import annotations

import dataclasses
import re


class LiteralError(ValueError):
    """The text is no literal; the message is Go's."""


def to_bytes(text: str) -> bytes:
    """The UTF-8 bytes that the Go string has. Other lone surrogates become U+FFFD."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode("utf-8")


def from_bytes(data: bytes) -> str:
    """The inverse of `to_bytes`."""
    return data.decode("utf-8", "surrogateescape")


def is_byte(char: str) -> bool:
    """Whether the character stands for a byte that is no UTF-8."""
    return "\udc80" <= char <= "\udcff"


_NAMED = {"\a": "a", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t", "\v": "v", "\\": "\\"}
_PLAIN = re.compile(r"[ !#-\[\]-~]*")


def quote(text: str, mark: str = '"', *, ascii_only: bool = False) -> str:
    """The text as a Go literal between two `mark`s."""
    if mark == '"' and _PLAIN.fullmatch(text):
        return f'"{text}"'
    return mark + "".join(_escaped(char, mark, ascii_only) for char in text) + mark


def _escaped(char: str, mark: str, ascii_only: bool) -> str:
    if char == mark:
        return "\\" + char
    if char in _NAMED:
        return "\\" + _NAMED[char]
    code = ord(char)
    if is_byte(char):
        return f"\\x{code - 0xDC00:02x}"
    if char.isprintable() and (code < 0x80 or not ascii_only):
        return char
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def can_backquote(text: str) -> bool:
    """Whether the text can stand between back quotes unchanged."""
    return not any(char in "`\x7f\ufeff" or (char < " " and char != "\t") or is_byte(char) for char in text)


_ESCAPE = re.compile(r"\\(?:([abfnrtv\\'\"])|([0-7]{3})|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))")
_NAMES = {name: char for char, name in _NAMED.items()} | {"'": "'", '"': '"'}


def unquote(literal: str) -> str:
    """The string that an interpreted ("...") or raw (`...`) literal means. Raises LiteralError."""
    body = literal[1:-1]
    if literal[0] == "`":
        return body.replace("\r", "")
    if "\\" not in body:
        return body
    parts: list[bytes] = []
    at = 0
    while at < len(body):
        char, at = _unquote_char(body, at, '"')
        parts.append(bytes([char]) if isinstance(char, int) else to_bytes(char))
    return from_bytes(b"".join(parts))


def _unquote_char(body: str, at: int, mark: str) -> tuple[str | int, int]:
    """The character, or the byte of an octal or hexadecimal escape, at `at`; and where the next one begins."""
    if body[at] != "\\":
        end = body.find("\\", at)
        end = len(body) if end < 0 or mark == "'" else end
        return body[at:end], end
    match = _ESCAPE.match(body, at)
    if match is None or (match[1] in ("'", '"') and match[1] != mark):
        raise LiteralError("invalid syntax")
    if match[1]:
        return _NAMES[match[1]], match.end()
    code = int(match[2], 8) if match[2] else int(match[3] or match[4] or match[5], 16)
    if match[2] or match[3]:
        if code > 255:
            raise LiteralError("invalid syntax")
        return code, match.end()
    if code > 0x10FFFF or 0xD800 <= code < 0xE000:
        raise LiteralError("invalid syntax")
    return chr(code), match.end()


def _rune(literal: str) -> int:
    """The code of a character constant such as 'a' or '\\n'."""
    body = literal[1:-1]
    if not body or body[0] == "'":
        raise LiteralError("invalid syntax")
    if body[0] == "\\":
        char, end = _unquote_char(body, 0, "'")
    else:
        char, end = body[0], 1
    if end != len(body):
        raise LiteralError(f"malformed character constant: {literal}")
    return char if isinstance(char, int) else ord(char)


@dataclasses.dataclass(frozen=True, slots=True)
class Constant:
    """A numeric constant in each of the forms that it has; which one is used depends on where it stands."""

    text: str
    integer: int | None = None  # fits 64 bits, signed or unsigned
    real: float | None = None
    complex: complex | None = None

    @property
    def looks_real(self) -> bool:
        """Whether it is written as a floating-point number."""
        if self.text[0] == "'" or (self.text[:2].lower() == "0x" and len(self.text) > 2 and not set("pP") & set(self.text)):
            return False
        return bool(set(".eEpP") & set(self.text))


def number(text: str, *, is_complex: bool = False) -> Constant:
    """The constant that a number or character token means. Raises LiteralError with Go's text."""
    if text[0] == "'":
        code = _rune(text)
        return Constant(text, code, float(code))
    if is_complex:
        return _complex(text)
    if text[-1] == "i" and (imaginary := _real(text[:-1])) is not None:
        return _simple_complex(text, complex(0, imaginary))
    integer = _integer(text)
    if integer is not None:
        return Constant(text, integer, float(integer))
    real = _real(text)
    if real is None:
        raise LiteralError(f"illegal number syntax: {quote(text)}")
    if not set(".eEpP") & set(text):
        raise LiteralError(f"integer overflow: {quote(text)}")
    return Constant(text, _whole(real), real)


def _complex(text: str) -> Constant:
    cut = max(text.rfind("+"), text.rfind("-"))
    if text[cut - 1] in "eEpP":
        cut = max(text.rfind("+", 0, cut), text.rfind("-", 0, cut))
    return _simple_complex(text, complex(_part(text[:cut]), _part(text[cut:-1])))


def _part(text: str) -> float:
    value = _real(text)
    if value is None:
        raise LiteralError(f"strconv.ParseFloat: parsing {quote(text)}: invalid syntax")
    return value


def _simple_complex(text: str, value: complex) -> Constant:
    if value.imag:
        return Constant(text, complex=value)
    return Constant(text, _whole(value.real), value.real, value)


def _whole(real: float) -> int | None:
    return int(real) if real.is_integer() and -(1 << 63) <= real < 1 << 64 else None


_INTEGER = re.compile(r"([-+]?)(?:0[xX](_?[0-9a-fA-F]+(?:_[0-9a-fA-F]+)*)|0[bB](_?[01]+(?:_[01]+)*)"
                      r"|0[oO]?(_?[0-7]+(?:_[0-7]+)*)|([1-9][0-9]*(?:_[0-9]+)*|0))")  # fmt: skip
_REAL = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_HEX_REAL = re.compile(r"[-+]?0[xX]_?(?:[0-9a-fA-F_]+\.?[0-9a-fA-F_]*|\.[0-9a-fA-F_]+)[pP][-+]?[0-9]+")


def _integer(text: str) -> int | None:
    match = _INTEGER.fullmatch(text)
    if match is None:
        return None
    digits = ((match[2], 16), (match[3], 2), (match[4], 8), (match[5], 10))
    value = next(int(part.replace("_", ""), base) for part, base in digits if part is not None)
    value = -value if match[1] == "-" else value
    limit = 1 << (63 if match[1] else 64)  # only an unsigned number may use the 64th bit
    return value if -(1 << 63) <= value < limit else None


def _real(text: str) -> float | None:
    if _HEX_REAL.fullmatch(text):
        try:
            return float.fromhex(text.replace("_", ""))
        except OverflowError:
            return None
    if not _REAL.fullmatch(text):
        return None
    value = float(text)
    return None if abs(value) == float("inf") else value
