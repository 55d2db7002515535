"""Values of requests that have a decoder of their own: how long to keep a model, whether and how hard to think."""

from __future__ import annotations

import math
from typing import Any

from ollama_compat import duration
from ollama_compat.errors import BadRequest
from ollama_compat.gojson import Number
from ollama_compat.gotypes import Place, Stopped, accepts


@accepts(type=["string", "number"], description="seconds, or a duration such as 5m; negative: for ever")
def keep_alive(value: Any, at: Place) -> float | None:
    """Seconds from a number or a duration; negative is for ever (`math.inf`).

    Ollama refuses the bare text `"-1"`, which many clients send; here it is for ever as well.
    """
    if isinstance(value, Number):
        if not value.is_float:
            at.refuse(value, "float64", quote_number=True)
            raise Stopped(at.faults[-1])
        return _endless(float(value))
    if isinstance(value, str):
        if value.startswith("-") and value[1:].isdecimal() and value.isascii():
            return math.inf
        try:
            return _endless(duration.parse(value) / duration.SECOND)
        except duration.DurationError as error:
            raise BadRequest(str(error)) from error
    names = {bool: "bool", dict: "map[string]interface {}", list: "[]interface {}"}
    raise BadRequest(f"Unsupported type: '{names[type(value)]}'")


def _endless(seconds: float) -> float:
    return math.inf if seconds < 0 or seconds > duration.FOREVER / duration.SECOND else seconds


@accepts(type=["boolean", "string"], description="true, false, high, medium, low or max")
def think(value: Any, at: Place) -> bool | str:
    """True, false, or a level."""
    levels = '"high", "medium", "low", "max", true, or false'
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or isinstance(value, Number):
        raise BadRequest(f"think must be a boolean or string ({levels})")
    if value not in ("high", "medium", "low", "max"):
        raise BadRequest(f"invalid think value: {duration.quote(value)} (must be {levels})")
    return value
