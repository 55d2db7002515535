"""Fields of requests that Ollama does not look at: the rest of OpenAI's, and llama-server's samplers."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, TypeVar

from ollama_compat import gojson, gotypes, options
from ollama_compat.errors import ApiError, Refused
from ollama_compat.gotypes import Place
from ollama_compat.schema import ChatRequest, GenerateRequest

_MOST = 128  # answers to one request, as at OpenAI

_Native = TypeVar("_Native", ChatRequest, GenerateRequest)


@gotypes.accepts(type="number")
def _number(value: Any, at: Place) -> int | float | None:
    plain = gojson.plain(value)
    return None if isinstance(plain, bool) or not isinstance(plain, (int, float)) else plain


@gotypes.accepts(type="integer")
def _whole(value: Any, at: Place) -> int | None:
    return int(value) if isinstance(value, gojson.Number) and value.is_int else None


@gotypes.accepts(type="object")
def _mapping(value: Any, at: Place) -> dict[str, Any] | None:
    return gojson.plain(value) if isinstance(value, dict) else None


@gotypes.accepts(type="string")
def _text(value: Any, at: Place) -> str | None:
    return value if isinstance(value, str) and not isinstance(value, gojson.Number) else None


@gotypes.accepts(type="array")
def _texts(value: Any, at: Place) -> list[str] | None:
    return gojson.plain(value) if isinstance(value, list) and all(_text(item, at) is not None for item in value) else None


Number = Annotated[int | float | None, _number]


@dataclasses.dataclass(frozen=True, slots=True)
class Beyond:
    """The fields. Because Ollama refuses none of them, one of a wrong type counts as absent."""

    n: Annotated[int | None, _whole] = None
    max_completion_tokens: Annotated[int | None, _whole] = None
    logit_bias: Annotated[dict[str, Any] | None, _mapping] = None
    options: Annotated[dict[str, Any] | None, _mapping] = None
    grammar: Annotated[str | None, _text] = None
    top_k: Number = None
    min_p: Number = None
    typical_p: Number = None
    repeat_penalty: Number = None
    repeat_last_n: Number = None
    dry_multiplier: Number = None
    dry_base: Number = None
    dry_allowed_length: Number = None
    dry_penalty_last_n: Number = None
    dry_sequence_breakers: Annotated[list[str] | None, _texts] = None
    top_n_sigma: Number = None
    xtc_probability: Number = None
    xtc_threshold: Number = None
    dynatemp_range: Number = None
    dynatemp_exponent: Number = None
    mirostat: Number = None
    mirostat_tau: Number = None
    mirostat_eta: Number = None


_OPTIONS = tuple(field.name for field in dataclasses.fields(Beyond)[4:])


def native_options(request: Beyond) -> dict[str, Any]:
    """The native options that the fields stand for. Raises Refused for biases that are none."""
    given = {name: value for name in _OPTIONS if (value := getattr(request, name)) is not None}
    if request.logit_bias:
        try:
            given["logit_bias"] = options.biases("logit_bias", request.logit_bias)
        except ApiError as error:
            raise Refused(f"invalid logit_bias: {error.message}") from None
    return (request.options or {}) | given


def answers(request: Beyond, native: _Native) -> list[_Native]:
    """The native requests for `n` answers; one that is seeded has a seed for each. Raises Refused."""
    count = 1 if request.n is None else request.n
    if not 1 <= count <= _MOST:
        raise Refused(f"n must be between 1 and {_MOST}")
    seed = (native.options or {}).get("seed")
    if count == 1 or not isinstance(seed, int):
        return [native] * count
    return [dataclasses.replace(native, options=(native.options or {}) | {"seed": seed + at}) for at in range(count)]
