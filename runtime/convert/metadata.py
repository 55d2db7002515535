"""Metadata of the converted file: Python values as GGUF writes them, and the keys that most models share."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from runtime.convert.config import Config, as_number
from runtime.convert.errors import ConvertError

Values = dict[str, Any]  # int: uint32, float: float32, bool, str, list of str, NumPy arrays of int32 and float32

_UINT32, _INT32, _FLOAT32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9

# GGUF key, names in config.json; those that are missing in the config are left out
_COUNTS = (
    ("context_length", "max_position_embeddings", "n_ctx", "n_positions", "max_sequence_length", "model_max_length"),
    ("embedding_length", "hidden_size", "n_embd", "dim"),
    ("feed_forward_length", "intermediate_size", "n_inner", "hidden_dim"),
    ("attention.head_count", "num_attention_heads", "n_head", "n_heads"),
    ("attention.head_count_kv", "num_key_value_heads", "n_kv_heads"),
    ("expert_count", "num_local_experts", "num_experts"),
    ("expert_used_count", "num_experts_per_tok", "num_experts_per_token", "experts_per_token"),
    ("attention.key_length", "head_dim"),
    ("attention.value_length", "head_dim"),
)
_NUMBERS = (
    ("attention.layer_norm_rms_epsilon", "rms_norm_eps", "norm_eps"),
    ("attention.layer_norm_epsilon", "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"),
)


def shared(config: Config) -> Values:
    """Keys of the architecture (without its name) that a config states in the usual words."""
    values: Values = {"block_count": config.layers}
    for key, *names in _COUNTS:
        if config.get(*names) is not None:
            values[key] = config.count(*names)
    values |= rope(config)
    for key, *names in _NUMBERS:
        if config.get(*names) is not None:
            values[key] = config.number(*names)
    return values


def rope_parameters(config: Config) -> dict[str, Any]:
    """How heads turn: `rope_parameters` of newer configs, `rope_scaling` and `rope_theta` of older ones."""
    parameters = dict(config.object("rope_parameters", "rope_scaling"))
    if isinstance(full := parameters.get("full_attention"), dict):
        parameters = dict(full)
    for key in ("rope_theta", "original_max_position_embeddings"):
        if parameters.get(key) is None and config.get(key) is not None:
            parameters[key] = config.get(key)
    parameters.setdefault("rope_type", parameters.get("type", "default"))
    return parameters


def rope(config: Config) -> Values:
    """Keys of rotary positions. Llama 3's way of scaling is a tensor; ConvertError for a way that GGUF has no word for."""
    parameters = rope_parameters(config)
    values: Values = {}
    if (theta := as_number(parameters.get("rope_theta"))) is not None:
        values["rope.freq_base"] = theta
    kind, factor = str(parameters["rope_type"]).lower(), as_number(parameters.get("factor"))
    if kind in ("linear", "yarn") and factor is not None:
        values |= {"rope.scaling.type": kind, "rope.scaling.factor": factor}
        if kind == "yarn":
            values |= _yarn(parameters, config)
    elif kind not in ("default", "none", "llama3", "mrope"):
        raise ConvertError(f"parse config.json: unsupported rope scaling {kind!r}")
    return values


def _yarn(parameters: Mapping[str, Any], config: Config) -> Values:
    original = parameters.get("original_max_position_embeddings", config.get("max_position_embeddings"))
    if type(original) is not int:
        raise ConvertError("parse config.json: 'original_max_position_embeddings' is missing")
    values: Values = {"rope.scaling.original_context_length": original}
    for key, *names in (
        ("yarn_ext_factor", "extrapolation_factor"),
        ("yarn_attn_factor", "attention_factor", "attn_factor"),
        ("yarn_beta_fast", "beta_fast"),
        ("yarn_beta_slow", "beta_slow"),
    ):
        number = next((n for name in names if (n := as_number(parameters.get(name))) is not None), None)
        if number is not None:
            values[f"rope.scaling.{key}"] = number
    return values


def encode(value: Any) -> bytes:
    """The value with its type before it, as in a file."""
    match value:
        case bool():
            return struct.pack("<IB", _BOOL, value)
        case int():
            return struct.pack("<II", _UINT32, value)
        case float():
            return struct.pack("<If", _FLOAT32, value)
        case str():
            return struct.pack("<I", _STRING) + _text(value)
        case list():
            return struct.pack("<IIQ", _ARRAY, _STRING, len(value)) + b"".join(map(_text, value))
    assert isinstance(value, np.ndarray)
    kind = _INT32 if value.dtype == np.int32 else _FLOAT32
    return struct.pack("<IIQ", _ARRAY, kind, value.size) + value.astype("<i4" if kind == _INT32 else "<f4").tobytes()


def _text(text: str) -> bytes:
    try:
        data = text.encode()
    except UnicodeEncodeError:
        raise ConvertError(f"the text {text[:50]!r} is no Unicode") from None
    return struct.pack("<Q", len(data)) + data
