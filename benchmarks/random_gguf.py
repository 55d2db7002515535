"""Writes GGUF files with the shapes of published models, in the Q4_K_M mix or in one type, filled with random valid blocks.

Speed depends on shapes and types and not on what the weights say, but for experts: what attention adds is small here beside a
token's own row of the table, since tokens of a text that all see the same average would choose the same experts.
`python benchmarks/random_gguf.py qwen3-30b-a3b out.gguf`
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

from runtime.quantize.encode import encode
from runtime.quantize.weighing import NEEDY

Entries = dict[str, tuple[tuple[int, ...], Type]]  # tensors by name: shape, rows first, and type


@dataclasses.dataclass(frozen=True)
class Shape:
    layers: int
    width: int
    heads: int
    heads_kv: int
    head: int
    experts: int
    used: int
    inner: int
    vocabulary: int = 151936
    shared: int = 0  # width of the shared expert
    recurrent: tuple[int, int, int] = (0, 0, 0)  # key heads, value heads and their size, of all but every fourth layer

    @property
    def architecture(self) -> str:
        return "qwen35moe" if any(self.recurrent) else "qwen3moe" if self.experts else "qwen3"


SHAPES = {
    "qwen3-30b-a3b": Shape(48, 2048, 32, 4, 128, 128, 8, 768),
    "moe-67b": Shape(28, 4096, 64, 4, 128, 128, 8, 1536),  # Qwen3-235B-A22B's layers, 28 of them
    # two layers of DeepSeek-V3: its experts, and plain attention of as many bytes as its own and the shared expert have together
    "deepseek-v3-2": Shape(2, 7168, 120, 6, 128, 256, 8, 2048, 129280),
    "qwen3.6-35b-a3b": Shape(40, 2048, 16, 2, 256, 256, 8, 512, 248320, 512, (16, 32, 128)),
    "delta-small": Shape(12, 1024, 8, 2, 128, 64, 8, 512, shared=512, recurrent=(8, 16, 64)),
    "moe-tiny": Shape(4, 512, 8, 2, 64, 16, 4, 256, 4096),
    "moe-small": Shape(12, 1024, 16, 4, 64, 64, 8, 512),
    "qwen3-0.6b": Shape(28, 1024, 16, 8, 128, 0, 0, 3072),
    "qwen3-8b": Shape(36, 4096, 32, 8, 128, 0, 0, 12288),
}
PATTERN = 8192  # blocks that are made; longer tensors repeat them
SPREAD, SPREADS = 0.02, {"token_embd": 1.0, "attn_output": 0.002, "ssm_out": 0.002}  # of weights; of tensors so called


def spread(name: str) -> float:
    """Of the weights of a tensor."""
    return next((value for part, value in SPREADS.items() if part in name), SPREAD)


def blocks(kind: Type, rng: np.random.Generator, spread: float = SPREAD) -> np.ndarray:
    """Random weights in that type, (PATTERN, bytes)."""
    values = rng.normal(0, spread, (PATTERN, gguf.GGML_QUANT_SIZES[kind][0])).astype(np.float32)
    return encode(kind.name, values, np.ones_like(values) if kind.name in NEEDY else None)


def tensors(shape: Shape, only: Type | None = None) -> Entries:
    """Names, shapes (rows first) and types. Q4_K_M keeps more bits of every third layer and of those at both ends.
    `only`: the type of all matrices in its place."""
    s, kinds = shape, Entries()
    experts = (s.experts,) if s.experts else ()
    stack = "_exps" if s.experts else ""
    kinds["token_embd.weight"] = (s.vocabulary, s.width), Type.Q4_K
    kinds["output_norm.weight"] = (s.width,), Type.F32
    kinds["output.weight"] = (s.vocabulary, s.width), Type.Q6_K
    for layer in range(s.layers):
        edge = s.layers // 8
        more = Type.Q6_K if layer < edge or layer >= 7 * s.layers // 8 or (layer - edge) % 3 == 2 else Type.Q4_K
        block: Entries = {
            "attn_norm": ((s.width,), Type.F32),
            "ffn_norm": ((s.width,), Type.F32),
            "attn_q_norm": ((s.head,), Type.F32),
            "attn_k_norm": ((s.head,), Type.F32),
            "attn_q": ((s.heads * s.head, s.width), Type.Q4_K),
            "attn_k": ((s.heads_kv * s.head, s.width), Type.Q4_K),
            "attn_v": ((s.heads_kv * s.head, s.width), more),
            "attn_output": ((s.width, s.heads * s.head), Type.Q4_K),
            f"ffn_gate{stack}": ((*experts, s.inner, s.width), Type.Q4_K),
            f"ffn_up{stack}": ((*experts, s.inner, s.width), Type.Q4_K),
            f"ffn_down{stack}": ((*experts, s.width, s.inner), more),
        }
        if experts:
            block["ffn_gate_inp"] = (s.experts, s.width), Type.F32
        if any(s.recurrent):
            block = _recurrent(s, block, attends=layer % 4 == 3)
        kinds |= {name_of(layer, name): entry for name, entry in block.items()}
    return {name: (size, kind if kind == Type.F32 else only or kind) for name, (size, kind) in kinds.items()}


def name_of(layer: int, name: str) -> str:
    """Of a block's tensor: those without a kind at the end are weights."""
    return f"blk.{layer}.{name}" if name == "ssm_a" or name.endswith(".bias") else f"blk.{layer}.{name}.weight"


def _recurrent(s: Shape, block: Entries, *, attends: bool) -> Entries:
    """A block of a model most of whose layers keep a state; the norm of its feed-forward layer has another name."""
    block["post_attention_norm"] = block.pop("ffn_norm")
    block |= {f"ffn_{part}_shexp": ((s.shared, s.width), Type.Q4_K) for part in ("gate", "up")}
    block |= {"ffn_down_shexp": ((s.width, s.shared), Type.Q4_K), "ffn_gate_inp_shexp": ((s.width,), Type.F32)}
    if attends:
        return block | {"attn_q": ((2 * s.heads * s.head, s.width), Type.Q4_K)}
    key_heads, heads, size = s.recurrent
    channels = (2 * key_heads + heads) * size
    block = {name: entry for name, entry in block.items() if not name.startswith("attn_") or name == "attn_norm"}
    block |= {"attn_qkv": ((channels, s.width), Type.Q4_K), "attn_gate": ((heads * size, s.width), Type.Q4_K)}
    block |= {"ssm_out": ((s.width, heads * size), Type.Q4_K), "ssm_conv1d": ((channels, 4), Type.F32)}
    block |= {f"ssm_{name}": ((heads, s.width), Type.F32) for name in ("alpha", "beta")}
    return block | {"ssm_a": ((heads,), Type.F32), "ssm_dt.bias": ((heads,), Type.F32), "ssm_norm": ((size,), Type.F32)}


def write(shape: Shape, path: Path, seed: int = 0, only: Type | None = None) -> Path:
    """Write the file. Its vocabulary is numbers: enough to load it here, not for text. `only`: see `tensors`."""
    rng = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, shape.architecture)
    writer.add_block_count(shape.layers)
    writer.add_context_length(40960)
    writer.add_embedding_length(shape.width)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads_kv)
    writer.add_key_length(shape.head)
    writer.add_value_length(shape.head)
    writer.add_rope_freq_base(1e6)
    writer.add_layer_norm_rms_eps(1e-6)
    if shape.experts:
        writer.add_expert_count(shape.experts)
        writer.add_expert_used_count(shape.used)
        writer.add_expert_feed_forward_length(shape.inner)
    if any(shape.recurrent):
        _state_keys(writer, shape)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_tokenizer_model("none")
    writer.add_token_list([str(i) for i in range(shape.vocabulary)])
    kinds = tensors(shape, only)
    for name, (size, kind) in kinds.items():
        if kind == Type.F32:
            writer.add_tensor_info(name, size, np.dtype(np.float32), 4 * int(np.prod(size)))
        else:
            values, nbytes = gguf.GGML_QUANT_SIZES[kind]
            packed = (*size[:-1], size[-1] // values * nbytes)
            writer.add_tensor_info(name, packed, np.dtype(np.uint8), int(np.prod(packed)), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    wanted = {(kind, spread(name)) for name, (_, kind) in kinds.items() if kind != Type.F32}
    patterns = {(kind, width): blocks(kind, rng, width) for kind, width in sorted(wanted)}
    for name, (size, kind) in kinds.items():
        if kind == Type.F32:
            values = np.ones(size) if len(size) == 1 else rng.normal(0, 0.02, size)
            values = -values if name.endswith("ssm_a") else values
            writer.write_tensor_data(values.astype(np.float32))
        else:
            count = int(np.prod(size)) // gguf.GGML_QUANT_SIZES[kind][0]
            turned = np.roll(patterns[kind, spread(name)], int(rng.integers(PATTERN)), axis=0)
            writer.write_tensor_data(np.resize(turned, (count, turned.shape[1])))
    writer.close()
    return path


def _state_keys(writer: gguf.GGUFWriter, shape: Shape) -> None:
    key_heads, heads, size = shape.recurrent
    writer.add_rope_dimension_count(shape.head // 4)
    writer.add_array(f"{shape.architecture}.rope.dimension_sections", [shape.head // 32, shape.head // 32, shape.head // 16, 0])
    writer.add_expert_shared_feed_forward_length(shape.shared)
    writer.add_ssm_conv_kernel(4)
    writer.add_ssm_inner_size(heads * size)
    writer.add_ssm_state_size(size)
    writer.add_ssm_time_step_rank(heads)
    writer.add_ssm_group_count(key_heads)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("path", type=Path)
    parser.add_argument("--layers", type=int, help="of them only so many")
    parser.add_argument("--type", choices=[kind.name for kind in Type], help="of all matrices, instead of the mix")
    arguments = parser.parse_args()
    shape = SHAPES[arguments.shape]
    shape = dataclasses.replace(shape, layers=arguments.layers or shape.layers)
    write(shape, arguments.path, only=Type[arguments.type] if arguments.type else None)
