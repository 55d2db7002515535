"""Ollama's `options`: names, types and defaults; what belongs to a load and what to a request."""

from __future__ import annotations

import dataclasses
import logging
import struct
from collections.abc import Mapping
from typing import Any

from ollama_compat.errors import InternalError
from ollama_compat.gojson import Number
from runtime.frames import SEQUENCE_BREAKERS, Sampling

Biases = tuple[tuple[int, float], ...]
"""Tokens, and what is added to the logit of each."""

_LOG = logging.getLogger(__name__)

_INT, _FLOAT, _BOOL, _STRINGS, _BIASES, _TEXT = "integer", "float32", "boolean", "array", "map", "string"
_NEVER = -1e30  # the bias of a token that must not come
_INT64 = (1 << 63) - 1
_INT32 = (1 << 31) - 1


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """Every option, with its default: Ollama's, then samplers that only llama-server has, under its names.

    Values are what the client said; `sampling` bounds them.
    """

    num_keep: int = 4
    seed: int = -1
    num_predict: int = -1
    top_k: int = 40
    top_p: float = 0.9
    min_p: float = 0.0
    typical_p: float = 1.0
    repeat_last_n: int = 64
    temperature: float = 0.8
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    stop: tuple[str, ...] = ()
    num_ctx: int = 0  # 0: nobody said
    num_batch: int = 0  # 0: nobody said
    num_gpu: int = -1
    main_gpu: int | None = None
    use_mmap: bool | None = None
    num_thread: int = 0
    num_cpu_moe: int = 0  # 0: nobody said
    draft_num_predict: int = 0
    logit_bias: Biases = ()
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = 64
    dry_sequence_breakers: tuple[str, ...] = SEQUENCE_BREAKERS
    top_n_sigma: float = -1.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    dynatemp_range: float = 0.0
    dynatemp_exponent: float = 1.0
    mirostat: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    grammar: str = ""  # GBNF or Lark, for answers without a format

    def sampling(self) -> Sampling:
        """How the runner shall choose tokens, within the bounds of its integers."""
        return Sampling(
            temperature=max(self.temperature, 0.0),
            top_k=_clamp(self.top_k, -1, _INT32),
            top_p=self.top_p,
            min_p=self.min_p,
            typical_p=self.typical_p or 1.0,  # Ollama leaves a 0 out
            repeat_last_n=_clamp(self.repeat_last_n, -1, _INT32),
            repeat_penalty=self.repeat_penalty,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            seed=self.seed if self.seed == -1 else self.seed & 0xFFFFFFFF,
            logit_bias=list(self.logit_bias),
            dry_allowed_length=_clamp(self.dry_allowed_length, 0, _INT32),
            dry_penalty_last_n=_clamp(self.dry_penalty_last_n, 0, _INT32),
            dry_sequence_breakers=list(self.dry_sequence_breakers),
            mirostat=_clamp(self.mirostat, -1, _INT32),
            **{name: getattr(self, name) for name in _BEYOND},
        )

    def predict_limit(self, num_ctx: int, *, chats: bool) -> int:
        """Tokens to generate at most. Ollama lets an open-ended request run for ten contexts.

        0 is open-ended too, but where Ollama hands the conversation to its engine (`chats`) it is one token.
        """
        limit = 10 * num_ctx
        least = 1 if chats and self.num_predict == 0 else limit
        return least if self.num_predict <= 0 else min(self.num_predict, limit)


_BEYOND = (
    *("dry_multiplier", "dry_base", "top_n_sigma", "xtc_probability", "xtc_threshold"),
    *("dynatemp_range", "dynatemp_exponent", "mirostat_tau", "mirostat_eta"),
)
_TYPES: Mapping[str, str] = {
    **dict.fromkeys(("num_keep", "seed", "num_predict", "top_k", "repeat_last_n"), _INT),
    **dict.fromkeys(("num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "num_cpu_moe", "draft_num_predict"), _INT),
    **dict.fromkeys(("top_p", "min_p", "typical_p", "temperature"), _FLOAT),
    **dict.fromkeys(("repeat_penalty", "presence_penalty", "frequency_penalty"), _FLOAT),
    "use_mmap": _BOOL,
    "stop": _STRINGS,
    **dict.fromkeys(("dry_allowed_length", "dry_penalty_last_n", "mirostat"), _INT),
    **dict.fromkeys(_BEYOND, _FLOAT),
    "dry_sequence_breakers": _STRINGS,
    "logit_bias": _BIASES,
    "grammar": _TEXT,
}


def merge(*layers: Mapping[str, Any] | None) -> Options:
    """The options of a request: defaults, overlaid by each layer (the model's parameters, then the request's).

    Unknown names are logged and ignored, null means absent; a wrong type is an InternalError, because Ollama answers 500.
    """
    values: dict[str, Any] = {}
    for layer in layers:
        for name, value in (layer or {}).items():
            if name not in _TYPES:
                _LOG.warning("invalid option provided: %s", name)
            elif value is not None:
                values[name] = _READERS[_TYPES[name]](name, value)
    return Options(**values)


def _integer(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float, Number)):
        raise InternalError(f'option "{name}" must be of type integer')
    if isinstance(value, Number):
        value = int(value) if value.is_int else float(value)
    if isinstance(value, float) and (value != value or abs(value) >= 2.0**63):
        return -_INT64 - 1  # what a 64-bit conversion of a float out of range gives, in Go as in C
    return int(value)


def _float(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, Number)):
        raise InternalError(f'option "{name}" must be of type float32')
    return _as_float32(float(value))


def _as_float32(value: float) -> float:
    """The nearest float32, so that 0.9 means here what it means to Ollama; beyond its range the largest one."""
    largest = 3.4028234663852886e38
    return float(struct.unpack("f", struct.pack("f", min(max(value, -largest), largest)))[0])


def _boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InternalError(f'option "{name}" must be of type boolean')
    return value


def _strings(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)):
        raise InternalError(f'option "{name}" must be of type array')
    if not all(isinstance(item, str) and not isinstance(item, Number) for item in value):
        raise InternalError(f'option "{name}" must be of an array of strings')
    return tuple(value)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or isinstance(value, Number):
        raise InternalError(f'option "{name}" must be of type string')
    return value


def biases(name: str, value: Any) -> Biases:
    """Biases of logits: `{"token": bias}`, or pairs, as llama-server takes them too; the bias `false` forbids the token."""
    entries = value.items() if isinstance(value, dict) else value
    if not isinstance(value, (dict, list, tuple)) or not all(
        isinstance(entry, (list, tuple)) and len(entry) == 2 for entry in entries
    ):
        raise InternalError(f'option "{name}" must be of type map')
    return tuple((_token(name, token), _bias(name, bias)) for token, bias in entries)


def _token(name: str, value: Any) -> int:
    text = str(value)
    if isinstance(value, bool) or not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise InternalError(f'option "{name}" must be a map of token ids')
    return int(text)


def _bias(name: str, value: Any) -> float:
    return _NEVER if value is False else max(_float(name, value), _NEVER)


_READERS = {_INT: _integer, _FLOAT: _float, _BOOL: _boolean, _STRINGS: _strings, _BIASES: biases, _TEXT: _text}


def _clamp(value: int, low: int, high: int) -> int:
    return min(max(value, low), high)
