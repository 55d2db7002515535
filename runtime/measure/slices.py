"""Slices of a model: files with few layers of a well-known shape and random weights, for measuring what a layer costs.

Speed depends on shapes and types and not on what the weights say, as long as routers choose all experts alike.
"""

from __future__ import annotations

import dataclasses
import math
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from runtime.gguf_file import TensorInfo
from runtime.gguf_writer import head, padded, placed, uint32
from runtime.quantize.encode import encode
from runtime.quantize.weighing import NEEDY
from runtime.quants import BY_NAME

ALIGNMENT = 32
PATTERN = 1 << 20  # values that are made; longer tensors repeat them
SPREAD = 0.02  # of weights
TABLE = "Q6_K"  # the type of the table, which is the output as well
_STRING, _FLOAT, _ARRAY = 8, 6, 9  # types of metadata


@dataclasses.dataclass(frozen=True, slots=True)
class Slice:
    """Layers of the shape of Qwen3-30B-A3B, with fewer experts to choose from. Every second one, from the first, has values and
    the last matrices of experts in the type `better`, as mixes have it; all else is in `usual`."""

    layers: int
    usual: str = "Q4_K"
    better: str = "Q6_K"
    width: int = 2048
    heads: int = 32
    heads_kv: int = 4
    head: int = 128
    experts: int = 64
    used: int = 8
    inner: int = 768
    vocabulary: int = 65536

    @property
    def expert_types(self) -> dict[str, int]:
        """Bytes of the experts that a token reads in a layer, by type; of two layers half."""
        each, halves = self.used * self.width * self.inner, Counter[str]()
        halves[self.usual] += 5 * _nbytes(self.usual, each)
        halves[self.better] += _nbytes(self.better, each)
        return {kind: nbytes // 2 for kind, nbytes in halves.items()}

    @property
    def stack_bytes(self) -> int:
        """Bytes of all experts of a layer; of two layers half."""
        return sum(self.expert_types.values()) * self.experts // self.used

    @property
    def layer_bytes(self) -> int:
        """Bytes of all else in a layer; of two layers half."""
        tensors = (info for info in _tensors(dataclasses.replace(self, layers=2)) if info.name.startswith("blk."))
        return sum(info.nbytes for info in tensors if len(info.shape) < 3) // 2

    @property
    def output_bytes(self) -> int:
        """Of the output."""
        return _nbytes(TABLE, self.vocabulary * self.width)

    @property
    def operations(self) -> tuple[int, int]:
        """Of a token in a layer's matrices: all but the experts, and the experts."""
        attention = 2 * self.width * self.head * (self.heads + self.heads_kv)
        return 2 * (attention + self.width * self.experts), 2 * 3 * self.used * self.width * self.inner


def write(shape: Slice, path: Path) -> None:
    """The file. OSError where there is no room for it."""
    tensors = list(placed(_tensors(shape), ALIGNMENT))
    rng = np.random.default_rng(0)
    patterns = {kind: _pattern(kind, rng) for kind in {TABLE, shape.usual, shape.better}}
    with path.open("wb") as file:
        file.write(head(_metadata(shape), tensors, ALIGNMENT))
        for info in tensors:
            data = _floats(info, rng) if info.type_name == "F32" else patterns[info.type_name]
            for first in range(0, info.nbytes, data.nbytes):
                file.write(data[: info.nbytes - first].data)
            file.write(bytes(padded(info.nbytes, ALIGNMENT) - info.nbytes))


def narrow(shape: Slice) -> Slice:
    """Layers of a quarter or so of the work, as small models have them: what is left of the time does not go by work."""
    return dataclasses.replace(shape, width=1024, heads=16, head=64, inner=512)


def layers_beyond(cache_bytes: int, shape: Slice, most: int) -> int:
    """Layers whose experts no cache holds, within reason: 5 at least, `most` bytes at the most. An odd number: those after the
    first are of both kinds alike."""
    each = shape.stack_bytes
    return max(5, min(math.ceil(4 * cache_bytes / each), most // each) - 1 | 1)


def _metadata(shape: Slice) -> dict[str, bytes]:
    counts = {
        "block_count": shape.layers,
        "context_length": 8192,
        "embedding_length": shape.width,
        "feed_forward_length": shape.inner,
        "expert_feed_forward_length": shape.inner,
        "attention.head_count": shape.heads,
        "attention.head_count_kv": shape.heads_kv,
        "attention.key_length": shape.head,
        "attention.value_length": shape.head,
        "expert_count": shape.experts,
        "expert_used_count": shape.used,
    }
    name = b"qwen3moe"
    return {
        "general.architecture": struct.pack("<IQ", _STRING, len(name)) + name,
        **{f"qwen3moe.{key}": uint32(value) for key, value in counts.items()},
        "qwen3moe.attention.layer_norm_rms_epsilon": struct.pack("<If", _FLOAT, 1e-6),
        "qwen3moe.rope.freq_base": struct.pack("<If", _FLOAT, 1e6),
        "tokenizer.ggml.tokens": struct.pack("<IIQ", _ARRAY, _STRING, shape.vocabulary) + bytes(8 * shape.vocabulary),
    }


def _tensors(shape: Slice) -> Iterator[TensorInfo]:
    """In the file's order, not yet placed. Shapes in ggml's order."""
    width, inner, experts, own, shared = (
        *(shape.width, shape.inner, shape.experts, shape.heads * shape.head, shape.heads_kv * shape.head),
    )
    yield _info("token_embd.weight", TABLE, width, shape.vocabulary)
    yield _info("output_norm.weight", "F32", width)
    for layer in range(shape.layers):
        usual, more = shape.usual, shape.usual if layer % 2 else shape.better
        for name, kind, *sizes in (
            ("attn_norm", "F32", width),
            ("attn_q", usual, width, own),
            ("attn_k", usual, width, shared),
            ("attn_v", more, width, shared),
            ("attn_output", usual, own, width),
            ("attn_q_norm", "F32", shape.head),
            ("attn_k_norm", "F32", shape.head),
            ("ffn_norm", "F32", width),
            ("ffn_gate_inp", "F32", width, experts),
            ("ffn_gate_exps", usual, width, inner, experts),
            ("ffn_up_exps", usual, width, inner, experts),
            ("ffn_down_exps", more, inner, width, experts),
        ):
            yield _info(f"blk.{layer}.{name}.weight", str(kind), *map(int, sizes))


def _info(name: str, kind: str, *sizes: int) -> TensorInfo:
    return TensorInfo(name, sizes, BY_NAME[kind].type_id, kind, 0, _nbytes(kind, math.prod(sizes)))


def _nbytes(kind: str, values: int) -> int:
    return values // BY_NAME[kind].block_size * BY_NAME[kind].block_bytes


def _pattern(kind: str, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Blocks of random weights, flat."""
    values = rng.normal(0, SPREAD, (PATTERN // BY_NAME[kind].block_size, BY_NAME[kind].block_size)).astype(np.float32)
    return encode(kind, values, np.ones_like(values) if kind in NEEDY else None).view(np.uint8).ravel()


def _floats(info: TensorInfo, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Norms are one; a router's values are random."""
    values = np.ones(info.shape[0]) if len(info.shape) == 1 else rng.standard_normal(math.prod(info.shape)) * 0.05
    return values.astype(np.float32).view(np.uint8)
