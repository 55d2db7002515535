"""What the endpoints of OpenAI's dialect have in common."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ollama_compat import duration, gojson, turns
from ollama_compat.errors import ApiError, Refused

_EFFORTS: Mapping[str, bool | str | None] = {
    **{"": None, "none": False, "minimal": "low", "xhigh": "max", "ultra": "max"},
    **{level: level for level in ("low", "medium", "high", "max")},
}
_KINDS = {400: "invalid_request_error", 404: "not_found_error"}


def envelope(status: int, message: str) -> dict[str, Any]:
    """An error."""
    kind = _KINDS.get(status, "api_error")
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


def failed(error: ApiError) -> dict[str, Any]:
    """The event that ends a stream with an error; the client libraries raise what it says."""
    return envelope(error.status, error.message)


def identity(prefix: str, below: int = 999) -> str:
    """A name for an answer. Nothing is kept under it, so it need not be unique."""
    return f"{prefix}{random.randrange(below)}"


def now() -> int:
    """Seconds since 1970."""
    return int(time.time())


def think(effort: str) -> bool | str | None:
    """The native `think` of a reasoning effort; None leaves it to the model."""
    if effort not in _EFFORTS:
        levels = '"minimal", "low", "medium", "high", "xhigh", "ultra", "max", or "none"'
        raise Refused(f"invalid reasoning value: {duration.quote(effort)} (must be {levels})")
    return _EFFORTS[effort]


def usage(replies: Sequence[Mapping[str, Any]], cached: int) -> dict[str, Any]:
    """Token counts of the answers to one prompt.

    Ollama does not tell what came from the cache; here it is told where it is much.
    """
    prompt, completion = replies[0].get("prompt_eval_count", 0), sum(reply.get("eval_count", 0) for reply in replies)
    counts: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return counts | ({"prompt_tokens_details": {"cached_tokens": cached}} if cached >= turns.WORTH_TELLING else {})


def call_id(native: str) -> str:
    """The id of a tool call in the form that clients of this dialect know."""
    return native if native.startswith("call_") else f"call_{native}"


def arguments_text(call: Mapping[str, Any]) -> str:
    """Arguments of a native tool call as the text that this dialect has for them."""
    return gojson.dumps(call["function"]["arguments"]).decode()


def sampling(values: Mapping[str, Any]) -> dict[str, Any]:
    """Native options: what was given of `values`."""
    return {name: value for name, value in values.items() if value is not None}
