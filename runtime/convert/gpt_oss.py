"""gpt-oss: its experts come in MXFP4 and stay in it, bit by bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np

from runtime.convert import metadata
from runtime.convert.config import Config
from runtime.convert.errors import ConvertError
from runtime.convert.model import DECODER, Model, Recipe, output, plain, unchanged
from runtime.convert.names import grouped
from runtime.convert.outputs import Output, Piece
from runtime.convert.safetensors import Array, Stored

_NAMES = dataclasses.replace(
    DECODER,
    layers={
        **DECODER.layers,
        "self_attn.sinks": "attn_sinks.weight",
        "post_attention_layernorm": "post_attention_norm",
        "mlp.router": "ffn_gate_inp",
        "mlp.experts.down_proj_bias": "ffn_down_exps.bias",
    },
)
_EXPERTS = "mlp.experts."
_BLOCK = 32  # values that share a scale
_DEFAULTS = {"max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "head_dim": 64, "sliding_window": 128}


def convert(model: Model) -> Recipe:
    """The recipe; ConvertError for a checkpoint that does not fit its config."""
    config = model.config.with_defaults(_DEFAULTS)
    fused = {name: stored for name, stored in model.tensors.items() if _is_fused(name)}
    rest = {name: stored for name, stored in model.tensors.items() if name not in fused and not name.endswith("_scales")}
    outputs = [out for name, stored in fused.items() for out in _experts(model, name, stored)]
    outputs += plain(model, grouped(_NAMES, rest), unchanged)
    return Recipe("gpt-oss", metadata.shared(config) | _more(config), outputs)


def _more(config: Config) -> metadata.Values:
    return {
        "attention.sliding_window": config.count("sliding_window"),
        "expert_feed_forward_length": config.count("intermediate_size"),
    }


def _is_fused(name: str) -> bool:
    """Whether it is a matrix of all experts, or the biases of gates and ups together."""
    part = name.partition(_EXPERTS)[2]
    return part in ("gate_up_proj_blocks", "down_proj_blocks", "gate_up_proj", "down_proj", "gate_up_proj_bias")


def _experts(model: Model, name: str, stored: Stored) -> Iterator[Output]:
    """Gates and ups alternate row by row; GGUF keeps them apart."""
    layer = int(name.partition("layers.")[2].partition(".")[0])
    part = name.partition(_EXPERTS)[2]
    names = ("gate", "up") if part.startswith("gate_up") else ("down",)
    for number, target in enumerate(names):
        rows = slice(number, None, len(names))
        if part.endswith("_bias"):
            yield _bias(f"blk.{layer}.ffn_{target}_exps.bias", stored, rows)
        elif part.endswith("_blocks"):
            yield _packed(f"blk.{layer}.ffn_{target}_exps.weight", stored, _scales(model.tensors, name), rows)
        else:
            yield _float(model, f"blk.{layer}.ffn_{target}_exps.weight", stored, rows)


def _bias(name: str, stored: Stored, rows: slice) -> Output:
    experts, n = stored.shape
    return Output(name, (experts, len(range(n)[rows])), "F32", [Piece(lambda: stored.array()[:, rows])])


def _float(model: Model, name: str, stored: Stored, rows: slice) -> Output:
    """Matrices that somebody has unpacked: (experts, inputs, outputs)."""
    experts, n_in, n_out = _dims(stored, 3)
    pieces = [Piece(lambda e=e: stored.array()[e].T[rows]) for e in range(experts)]  # type: ignore[misc]
    return output(model, name, (experts, len(range(n_out)[rows]), n_in), stored, pieces)


def _packed(name: str, blocks: Stored, scales: Stored, rows: slice) -> Output:
    experts, n, groups, half = _dims(blocks, 4)
    if half * 2 != _BLOCK or scales.shape != (experts, n, groups) or blocks.dtype != "U8" or scales.dtype != "U8":
        raise ConvertError(f"tensor {blocks.name!r} of shape {list(blocks.shape)} is no MXFP4")
    pieces = [Piece(lambda e=e: repack(blocks.array()[e, rows], scales.array()[e, rows])) for e in range(experts)]  # type: ignore[misc]
    return Output(name, (experts, len(range(n)[rows]), groups * _BLOCK), "MXFP4", pieces)


def _dims(stored: Stored, count: int) -> tuple[int, ...]:
    if len(stored.shape) != count:
        raise ConvertError(f"tensor {stored.name!r} has the shape {list(stored.shape)}")
    return stored.shape


def _scales(tensors: Mapping[str, Stored], name: str) -> Stored:
    other = name.removesuffix("_blocks") + "_scales"
    if other not in tensors:
        raise ConvertError(f"tensor {other!r} is missing")
    return tensors[other]


def repack(blocks: Array, scales: Array) -> Array:
    """Blocks as ggml has them, (rows, groups, 17): the scale, then values 0-15 in low nibbles and 16-31 in high ones.

    In `blocks`, (rows, groups, 16), neighbours share a byte, the first of them in its low nibble.
    """
    values = np.stack((blocks & 15, blocks >> 4), axis=-1).reshape(*blocks.shape[:-1], _BLOCK)
    packed = values[..., : _BLOCK // 2] | values[..., _BLOCK // 2 :] << 4
    return np.concatenate((scales[..., None], packed), axis=-1)
