"""Durations and times as Go writes them: `1h30m` to nanoseconds and back, RFC 3339 with nanoseconds."""

from __future__ import annotations

import re
import time

SECOND = 1_000_000_000  # nanoseconds
FOREVER = (1 << 63) - 1  # nanoseconds; Go's largest duration, which Ollama uses for "never"

_UNITS = {"ns": 1, "us": 1_000, "µs": 1_000, "μs": 1_000, "ms": 1_000_000, "s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND}
_NUMBER = re.compile(r"([0-9]*)(?:\.([0-9]*))?")
_UNIT = re.compile(r"[^0-9.]*")


class DurationError(ValueError):
    """The text is no duration; the message is Go's."""


def parse(text: str) -> int:
    """Nanoseconds of a duration such as `-1.5h` or `2m30s`; DurationError with Go's words otherwise."""
    rest = text[1:] if text[:1] in ("-", "+") else text
    if rest == "0":
        return 0
    if not rest:
        raise DurationError(f"time: invalid duration {_shown(text)}")
    total = 0
    while rest:
        value, rest = _term(rest, text)
        total += value
        if total > FOREVER:
            raise DurationError(f"time: invalid duration {_shown(text)}")
    return -total if text[0] == "-" else total


def _term(rest: str, text: str) -> tuple[int, str]:
    """Nanoseconds of the first number and unit of `rest`, and what follows them."""
    number = _NUMBER.match(rest)
    assert number is not None
    whole, fraction = number.group(1), number.group(2) or ""
    if not whole and not fraction:
        raise DurationError(f"time: invalid duration {_shown(text)}")
    rest = rest[number.end() :]
    unit_match = _UNIT.match(rest)
    unit = unit_match.group() if unit_match else ""
    if not unit:
        raise DurationError(f"time: missing unit in duration {_shown(text)}")
    if unit not in _UNITS:
        raise DurationError(f"time: unknown unit {_shown(unit)} in duration {_shown(text)}")
    if len(whole) > 20 or len(fraction) > 40:
        raise DurationError(f"time: invalid duration {_shown(text)}")
    scale = _UNITS[unit]
    value = int(whole or "0") * scale + (int(fraction) * scale // 10 ** len(fraction) if fraction else 0)
    return value, rest[len(unit) :]


def _shown(text: str) -> str:
    """As package time quotes what it refuses: every byte beyond printable ASCII as a number."""
    bare = (c if " " <= c < "\x80" else "".join(f"\\x{byte:02x}" for byte in c.encode()) for c in text)
    return '"' + "".join("\\" + c if c in '"\\' else c for c in bare) + '"'


def text(ns: int) -> str:
    """Nanoseconds as Go prints a duration: `1h0m5s`, `1.5s`, `54.978139ms`, `698µs`, `0s`."""
    if ns == 0:
        return "0s"
    sign, ns = ("-", -ns) if ns < 0 else ("", ns)
    if ns < SECOND:
        unit, name = (1, "ns") if ns < 1000 else (1000, "µs") if ns < 10**6 else (10**6, "ms")
        return f"{sign}{_decimal(ns, unit)}{name}"
    seconds, minutes, hours = ns % (60 * SECOND), ns // (60 * SECOND) % 60, ns // (3600 * SECOND)
    words = f"{_decimal(seconds, SECOND)}s"
    if ns >= 60 * SECOND:
        words = f"{minutes}m{words}"
    return f"{sign}{hours}h{words}" if hours else sign + words


def _decimal(value: int, unit: int) -> str:
    """value / unit with all its digits and no trailing zero."""
    whole, rest = divmod(value, unit)
    digits = str(rest).zfill(len(str(unit)) - 1).rstrip("0") if rest else ""
    return f"{whole}.{digits}" if digits else str(whole)


def quote(text: str) -> str:
    """A string in double quotes, escaped as Go's %q does."""
    return '"' + "".join(_escape(c) for c in text) + '"'


_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\a": "\\a", "\b": "\\b", "\f": "\\f", "\v": "\\v"}


def _escape(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    code = ord(char)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def utc_now() -> str:
    """The present time as Ollama writes `created_at`: RFC 3339, nanoseconds without trailing zeros, `Z`."""
    return utc(time.time_ns())


def utc(ns: int) -> str:
    """Nanoseconds since the epoch as RFC 3339 in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ns // SECOND)) + _fraction(ns) + "Z"


def local(ns: int) -> str:
    """Nanoseconds since the epoch as RFC 3339 with the offset of the local zone, as `modified_at` and `expires_at` are."""
    moment = time.localtime(ns // SECOND)
    minutes = (moment.tm_gmtoff or 0) // 60
    zone = f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}" if minutes else "Z"
    return time.strftime("%Y-%m-%dT%H:%M:%S", moment) + _fraction(ns) + zone


def _fraction(ns: int) -> str:
    digits = f"{ns % SECOND:09d}".rstrip("0")
    return f".{digits}" if digits else ""
