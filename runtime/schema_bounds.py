"""Bounds of numbers in JSON schemas, said so that a grammar holds an answer to them."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

from runtime.schema_values import fail

MAX_INTEGER = (1 << 53) - 1  # beyond it readers of JSON lose digits, and a weak model never stops writing them

_LONG = 1 << 63  # what the grammar library counts with
_ENDLESS = 1e300  # stands for no bound where floats end
_LARGEST_STEP = 5_000  # a grammar has a state for each remainder: with bounds, 10,000 are too many for it, a million take 30 s
_STEP, _TINY = 1e-12, 1e-20  # as near as numbers come to a bound that they may not have, and to 0; the library reads 15 digits
_BELOW = ("minimum", "exclusiveMinimum")
_ABOVE = ("maximum", "exclusiveMaximum")


def settle(fields: dict[str, Any], path: list[str], integer: bool) -> None:
    """Completes and corrects the bounds of one schema, whose values have been checked. Raises SchemaError."""
    for exclusive, inclusive in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(fields.get(exclusive), bool) and fields.pop(exclusive) and inclusive in fields:  # as in draft 4
            fields[exclusive] = fields.pop(inclusive)
    _drop_endless(fields, _LONG - 1 if integer else _ENDLESS)
    if _digits(fields.get("multipleOf", 1)) > _LARGEST_STEP:
        fail(path, f"multipleOf is not supported with digits beyond {_LARGEST_STEP}")
    if integer:
        _settle_integer(fields, path)
    else:
        _tighten(fields, "exclusiveMinimum", "minimum", 1.0, _least(fields, _ABOVE, min))
        _tighten(fields, "exclusiveMaximum", "maximum", -1.0, _least(fields, _BELOW, max))


def _drop_endless(fields: dict[str, Any], most: float) -> None:
    """The ends of 64 bits or of floats, which languages with types write, say nothing."""
    for key in _BELOW:
        if fields.get(key, 0) <= -most:
            del fields[key]
    for key in _ABOVE:
        if fields.get(key, 0) >= most:
            del fields[key]


def _digits(step: float) -> int:
    """The digits of a number, with the zeros of a whole one."""
    return int(step) if step == int(step) else int("".join(map(str, Decimal(str(step)).as_tuple().digits)))


def _settle_integer(fields: dict[str, Any], path: list[str]) -> None:
    for key in (*_BELOW, *_ABOVE):
        if abs(fields.get(key, 0)) >= _LONG:
            fail(path, f"{key} is beyond 64 bits")
    low = fields.get("minimum", fields.get("exclusiveMinimum"))
    high = fields.get("maximum", fields.get("exclusiveMaximum"))
    if low is None and (high is None or high > -MAX_INTEGER):
        fields["minimum"] = -MAX_INTEGER
    if high is None and (low is None or low < MAX_INTEGER):
        fields["maximum"] = MAX_INTEGER


def _least(fields: dict[str, Any], keys: tuple[str, str], choose: Any) -> float | None:
    found = [fields[key] for key in keys if key in fields]
    return float(choose(found)) if found else None


def _tighten(fields: dict[str, Any], exclusive: str, inclusive: str, sign: float, other: float | None) -> None:
    """An excluded whole number becomes an included one a little further in, unless the other side of 0 is meant.

    llguidance lets the whole number pass where the other bound has the same whole part: 0 where numbers are to be above 0 and
    at most 0.5. That bound may stand in another schema that has to hold too.
    """
    bound = float(fields.get(exclusive, math.nan))
    width = math.inf if other is None else (other - bound) * sign
    if not bound.is_integer() or bound * sign < 0 or width <= 0:
        return
    step = abs(bound) * _STEP or _TINY
    inside = bound + sign * min(step, width / 1024)
    del fields[exclusive]
    fields[inclusive] = max(fields.get(inclusive, inside), inside) if sign > 0 else min(fields.get(inclusive, inside), inside)
