"""Floating-point numbers as Go writes them (strconv.FormatFloat)."""

from __future__ import annotations

import math


def format_float(value: float, verb: str, precision: int = -1) -> str:
    """`value` by one of the verbs e E f g G x X b; precision -1 is as many digits as tell it from its neighbours."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if verb == "b":
        return _binary(value)
    if verb in "xX":
        text = _hexadecimal(value, precision)
    elif verb in "gG":
        text = _general(value, precision)
    elif verb in "eE":
        text = _scientific(value, precision)
    else:
        text = f"{value:.{precision}f}" if precision >= 0 else _shortest_plain(value)
    return text.upper() if verb.isupper() else text


def format_json(value: float) -> str:
    """As encoding/json writes it; the value is finite."""
    size = abs(value)
    if size and (size < 1e-6 or size >= 1e21):
        text = _scientific(value, -1)
        return text.replace("e-0", "e-") if "e-0" in text else text
    return _shortest_plain(value)


def _digits(value: float) -> tuple[str, str, int]:
    """Sign, the shortest digits without zeros at either end, and the place of the decimal point: 0.digits * 10**place."""
    mantissa, exponent = f"{value!r}e0".split("e")[:2]
    sign = "-" if mantissa.startswith("-") else ""
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    digits = (whole + fraction).lstrip("0")
    place = len(whole) + int(exponent) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    return sign, digits or "0", place if digits else 1


def _shortest_plain(value: float) -> str:
    sign, digits, place = _digits(value)
    if place <= 0:
        return f"{sign}0.{'0' * -place}{digits}" if digits != "0" else f"{sign}0"
    if len(digits) <= place:
        return sign + digits + "0" * (place - len(digits))
    return f"{sign}{digits[:place]}.{digits[place:]}"


def _scientific(value: float, precision: int) -> str:
    if precision >= 0:
        return f"{value:.{precision}e}"
    sign, digits, place = _digits(value)
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    exponent = place - 1
    return f"{sign}{digits[0]}{fraction}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"


def _general(value: float, precision: int) -> str:
    if precision >= 0:
        return f"{value:.{precision}g}"
    place = _digits(value)[2]
    if not -4 <= place - 1 < 6:
        return _scientific(value, -1)
    return _shortest_plain(value)


def _binary(value: float) -> str:
    """mantissa p exponent, both decimal."""
    mantissa, exponent = math.frexp(abs(value))
    sign = "-" if math.copysign(1, value) < 0 else ""
    if not mantissa:
        return f"{sign}0p-1074"
    shift = min(53, exponent + 1074)  # the smallest exponent there is
    return f"{sign}{int(mantissa * (1 << shift))}p{exponent - shift:+d}"


def _hexadecimal(value: float, precision: int) -> str:
    """0x1.8p+01"""
    mantissa, exponent = math.frexp(abs(value))
    sign = "-" if math.copysign(1, value) < 0 else ""
    if not mantissa:
        return f"{sign}0x0{'.' + '0' * precision if precision > 0 else ''}p+00"
    bits = int(mantissa * (1 << 53))  # 1.52 binary digits
    exponent -= 1
    if 0 <= precision < 13:
        cut = 4 * (13 - precision)
        half, rest = 1 << (cut - 1), bits & ((1 << cut) - 1)
        bits >>= cut
        bits += rest > half or (rest == half and bits & 1)
        bits <<= cut
        if bits >> 53:
            bits >>= 1
            exponent += 1
    fraction = f"{bits & ((1 << 52) - 1):013x}"
    fraction = fraction.rstrip("0") if precision < 0 else fraction[:precision].ljust(precision, "0")
    return f"{sign}0x1{'.' + fraction if fraction else ''}p{'-' if exponent < 0 else '+'}{abs(exponent):02d}"
