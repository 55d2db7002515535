"""Weights in FP8 (E4M3), each block with a scale of its own: DeepSeek's and Qwen's way, and that of compressed-tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from runtime.convert.config import Config
from runtime.convert.errors import ConvertError
from runtime.convert.outputs import to_f32
from runtime.convert.safetensors import F8, Array, Stored

METHODS = ("fp8", "compressed-tensors")

_USELESS = (".input_scale", ".activation_scale", ".k_scale", ".v_scale")  # of activations and caches in FP8
_SCALES = ("_scale_inv", "_scale", ".scale_inv", ".scale")  # behind the name of the weights


@dataclasses.dataclass(frozen=True, slots=True)
class Scaled(Stored):
    """Weights that are read multiplied by their scales."""

    scale: Stored
    block: tuple[int, int]  # rows and columns that share one

    def array(self) -> Array:
        rows, columns = self.block
        scales = to_f32(self.scale.array()).reshape(-(-self.shape[0] // rows), -1)
        values: Array = _E4M3[Stored.array(self)]
        for number, row in enumerate(scales):
            values[number * rows : (number + 1) * rows] *= np.repeat(row, columns)[: self.shape[1]]
        return values


def _numbers() -> Array:
    """What each byte means: a sign, 4 bits of exponent (bias 7), 3 of mantissa; no infinities."""
    code = np.arange(256)
    exponent, mantissa = (code >> 3) & 15, (code & 7) / 8
    size = np.where(exponent == 0, mantissa * 2.0**-6, (1 + mantissa) * 2.0 ** (exponent - 7.0))
    size[(code & 127) == 127] = np.nan
    return np.where(code & 128, -size, size).astype(np.float32)


_E4M3 = _numbers()
_E4M3.setflags(write=False)


def scaled(tensors: Mapping[str, Stored], config: Config) -> dict[str, Stored]:
    """The tensors, FP8 ones with their scales; ConvertError where those are missing or do not fit."""
    found: dict[str, Stored] = dict(tensors)
    for name, stored in tensors.items():
        if stored.dtype != F8:
            continue
        scale = next((found.pop(name + end) for end in _SCALES if name + end in found), None)
        if scale is None:
            raise ConvertError(f'missing fp8 scale companion for tensor "{name}"')
        block = _block(stored, scale, config)
        found[name] = Scaled(name, stored.dtype, stored.shape, stored.data, stored.offset, scale, block)
    return {name: stored for name, stored in found.items() if not name.endswith(_USELESS)}


def _block(stored: Stored, scale: Stored, config: Config) -> tuple[int, int]:
    """Rows and columns of a block: all of them for a single scale, one row where each has its own."""
    if len(stored.shape) != 2:
        raise ConvertError(f'expected 2D fp8 tensor "{stored.name}", got shape {list(stored.shape)}')
    rows, columns = stored.shape
    if scale.size == 1:
        return rows, columns
    if scale.size == rows and scale.shape[0] == rows:
        return 1, columns
    block = _size(config)
    expected = [-(-rows // block[0]), -(-columns // block[1])]
    if list(scale.shape) != expected:
        shapes = f'{list(scale.shape)} for tensor "{stored.name}" shape {list(stored.shape)}; want {expected}'
        raise ConvertError(f"unexpected fp8 scale shape {shapes}")
    return block


def _size(config: Config) -> tuple[int, int]:
    """Of a block, as either of the two ways to describe a quantisation has it."""
    described = config.object("quantization_config", "compression_config", "quantization")
    groups = described.get("config_groups")
    weights = [_object(_object(group).get("weights")) for group in _object(groups).values()]
    for size in (described.get("weight_block_size"), *(entry.get("block_structure") for entry in weights)):
        if isinstance(size, list) and len(size) == 2 and all(type(n) is int and n > 0 for n in size):
            return size[0], size[1]
    raise ConvertError("missing fp8 block size metadata")


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
