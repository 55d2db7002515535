"""Sizes, counts and times as Ollama words them for people, and numbers as Go prints them."""

from __future__ import annotations

import datetime
import math
import struct
from collections.abc import Sequence
from typing import Any

_DECIMAL = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "KB"))
_SECONDS_PER_YEAR = 365 * 24 * 3600


def size(count: int) -> str:
    """Bytes in decimal units: `999 B`, `1.5 KB`, `12 MB`."""
    for unit, name in _DECIMAL:
        if count >= unit:
            value = count / unit
            return f"{int(value)} {name}" if value >= 10 or value == int(value) else f"{value:.1f} {name}"
    return f"{count} B"


def number(count: int) -> str:
    """A count of parameters: `21.13M`, `7B`, `512`."""
    for unit, letter, digits in ((10**9, "B", 1), (10**6, "M", 2)):
        if count >= unit:
            value = count / unit
            return f"{value:.0f}{letter}" if value == math.floor(value) else f"{value:.{digits}f}{letter}"
    return f"{count / 1000:.0f}K" if count >= 1000 else str(count)


def moment(text: str, now: datetime.datetime | None = None, *, zero: str = "Never") -> str:
    """How long ago, or from now, an RFC 3339 time is; `zero` for Go's zero time."""
    when = parse_time(text)
    if when is None:
        return zero
    seconds = ((now or datetime.datetime.now(datetime.UTC)) - when).total_seconds()
    if -seconds // _SECONDS_PER_YEAR > 20:
        return "Forever"
    return f"{_span(-seconds)} from now" if seconds < 0 else f"{_span(seconds)} ago"


def parse_time(text: str) -> datetime.datetime | None:
    """An RFC 3339 time; None for Go's zero time, for nothing, and for what is no time."""
    try:
        when = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    when = when if when.tzinfo else when.replace(tzinfo=datetime.UTC)
    return None if when.year == 1 else when


def _span(seconds: float) -> str:
    minutes, hours = int(seconds / 60), math.floor(seconds / 3600 + 0.5)
    if seconds < 60:
        whole = int(seconds)
        return "Less than a second" if whole < 1 else "1 second" if whole == 1 else f"{whole} seconds"
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    if hours == 1:
        return "About an hour"
    for limit, unit, name in ((48, 1, "hours"), (336, 24, "days"), (1440, 168, "weeks"), (17520, 720, "months")):
        if hours < limit:
            return f"{hours // unit} {name}"
    return f"{int(seconds // 3600) // 24 // 365} years"


def general(value: float, exponent: int = 6) -> str:
    """Go's shortest %g: in exponent form below 1e-4 and from 10**exponent on (its %v takes 21)."""
    return _general(repr(float(value)), -4, exponent)


def float32(value: float) -> str:
    """A float32 as Go's %v prints it: the fewest digits that read back as the same float32."""
    return _general(_shortest32(value), -4, 21)


def json_float32(value: float) -> str:
    """A float32 as Go writes it in JSON."""
    return _general(_shortest32(value), -6, 21).replace("e-0", "e-")


def _shortest32(value: float) -> str:
    nearest = single(value)
    if not math.isfinite(nearest):
        return repr(nearest)
    candidates = (float(f"{nearest:.{digits}e}") for digits in range(9))
    return repr(next(candidate for candidate in candidates if single(candidate) == nearest))


def single(value: float) -> float:
    """The nearest float32; infinite beyond its range."""
    try:
        return float(struct.unpack("f", struct.pack("f", value))[0])
    except OverflowError:
        return math.copysign(math.inf, value)


def _general(text: str, low: int, high: int) -> str:
    """A Python float literal in Go's %g form; outside of 10**low to 10**high with an exponent."""
    if text.lstrip("-") in ("inf", "nan"):
        return {"inf": "+Inf", "-inf": "-Inf"}.get(text, "NaN")
    sign, digits, point = _parts(text)
    if not digits:
        return f"{sign}0"
    power = point - 1
    if power < low or power >= high:
        tail = f".{digits[1:]}" if len(digits) > 1 else ""
        return f"{sign}{digits[0]}{tail}e{'-' if power < 0 else '+'}{abs(power):02d}"
    if point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    return sign + (digits.ljust(point, "0") if len(digits) <= point else f"{digits[:point]}.{digits[point:]}")


def _parts(text: str) -> tuple[str, str, int]:
    """Sign, significant digits and the place of the point before or after them: 0.05 is ("", "5", -1)."""
    sign = "-" if text.startswith("-") else ""
    mantissa, _, power = text.lstrip("-").partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = whole + fraction
    point = len(whole) + int(power or "0") - (len(digits) - len(digits.lstrip("0")))
    return sign, digits.lstrip("0").rstrip("0"), point


def value(item: Any) -> str:
    """Go's %v of a decoded JSON value (numbers are float64 there)."""
    if item is None:
        return "<nil>"
    if isinstance(item, bool):
        return "true" if item else "false"
    if isinstance(item, (int, float)):
        return general(item, 21)
    if isinstance(item, dict):
        return "map[" + " ".join(f"{key}:{value(item[key])}" for key in sorted(item)) + "]"
    return values(item) if isinstance(item, list) else str(item)


def values(items: Sequence[Any]) -> str:
    """Go's %v of a slice."""
    return "[" + " ".join(value(item) for item in items) + "]"
