"""Tensors of the converted file: each a list of pieces, so that no more than one piece is in memory at a time."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from runtime.convert.errors import ConvertError
from runtime.convert.safetensors import BF16, F8, Array, Stored
from runtime.gguf_types import TYPES, GGMLType

CHUNK = 4 << 20  # elements that are converted at a time

TYPE: Mapping[str, GGMLType] = MappingProxyType({kind.name: kind for kind in TYPES.values()})

_ALWAYS_F32 = (".ffn_gate_inp.weight", "position_embd.weight", "token_types.weight", "_norm.weight")


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """A part of a tensor, in C order, in the source's own numbers; `done` is called once it is written."""

    read: Callable[[], Array]
    done: Callable[[], None] = lambda: None


@dataclasses.dataclass(frozen=True, slots=True)
class Output:
    """A tensor of the GGUF file. `shape` has rows first, which is ggml's order reversed."""

    name: str
    shape: tuple[int, ...]
    kind: str  # "F32", "F16", "BF16", or "MXFP4", whose pieces are bytes that are written as they are
    pieces: Sequence[Piece]
    source: str = ""  # the type that it has in the checkpoint

    @property
    def nbytes(self) -> int:
        kind = TYPE[self.kind]
        return math.prod(self.shape) // kind.block_size * kind.block_bytes

    def data(self) -> Iterator[bytes]:
        """The tensor's bytes; ConvertError where the numbers do not fit the type."""
        for piece in self.pieces:
            flat = piece.read().reshape(-1)
            for start in range(0, flat.size, CHUNK):
                yield self._encode(flat[start : start + CHUNK])
            piece.done()

    def _encode(self, values: Array) -> bytes:
        if self.kind == "MXFP4" or (self.kind == "BF16" and values.dtype == BF16):
            return values.tobytes()
        if self.kind == "F16" and values.dtype == np.float16:
            return values.tobytes()
        numbers = to_f32(values)
        if self.kind == "F32":
            return numbers.tobytes()
        if self.kind == "BF16":
            return to_bf16(numbers).tobytes()
        with np.errstate(over="ignore"):
            halves = numbers.astype("<f2")
        if (np.isinf(halves) & np.isfinite(numbers)).any():
            raise ConvertError(f"tensor {self.name} has numbers too large for F16; create the model with --quantize F32 or BF16")
        return halves.tobytes()


def to_f32(values: Array) -> Array:
    """The numbers as float32."""
    if values.dtype == BF16:
        return (values.astype("<u4") << 16).view("<f4")
    return values.astype("<f4", copy=False)


def to_bf16(values: Array) -> Array:
    """The bits of the nearest BF16, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(values, "<f4").view("<u4")
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(values), (bits >> 16) | 64, rounded).astype("<u2")


@dataclasses.dataclass(frozen=True, slots=True)
class Types:
    """Which type a tensor gets: the one that is wanted, else its own. F32 matrices become F16, as in the field's converters."""

    wanted: str = ""

    def of(self, name: str, shape: Sequence[int], dtype: str) -> str:
        """The GGUF type for a tensor of that name."""
        if len(shape) < 2 or not name.endswith(".weight") or name.endswith(_ALWAYS_F32):
            return "F32"
        return self.wanted or ("BF16" if dtype in ("BF16", F8) else "F16")


def whole(stored: Stored, change: Callable[[Array], Array] | None = None) -> Piece:
    """A tensor as it is stored, or changed."""
    if change is None:
        return Piece(stored.array, stored.drop)
    return Piece(lambda: change(stored.array()), stored.drop)
