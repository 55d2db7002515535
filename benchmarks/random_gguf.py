"""Writes GGUF files with the shapes and the Q4_K_M mix of published models, filled with random valid blocks.

Speed depends on shapes and types and not on what the weights say. `python benchmarks/random_gguf.py qwen3-30b-a3b out.gguf`
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type


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


SHAPES = {
    "qwen3-30b-a3b": Shape(48, 2048, 32, 4, 128, 128, 8, 768),
    "moe-67b": Shape(28, 4096, 64, 4, 128, 128, 8, 1536),  # Qwen3-235B-A22B's layers, 28 of them
    # two layers of DeepSeek-V3: its experts, and plain attention of as many bytes as its own and the shared expert have together
    "deepseek-v3-2": Shape(2, 7168, 120, 6, 128, 256, 8, 2048, 129280),
    "moe-tiny": Shape(4, 512, 8, 2, 64, 16, 4, 256, 4096),
    "moe-small": Shape(12, 1024, 16, 4, 64, 64, 8, 512),
}
SCALES = {Type.Q4_K: ((0, 1.0), (2, 7.5)), Type.Q6_K: ((208, 1.0),)}  # offsets of f16 scales in a block, and their ratio
PATTERN = 8192  # blocks that are made; longer tensors repeat them


def blocks(kind: Type, rng: np.random.Generator) -> np.ndarray:
    """Random blocks whose values spread like weights do, (PATTERN, bytes)."""
    raw = rng.integers(0, 256, (PATTERN, gguf.GGML_QUANT_SIZES[kind][1]), dtype=np.uint8)

    def set_scales(size: float) -> None:
        for offset, ratio in SCALES[kind]:
            scale = (size * ratio * rng.uniform(0.9, 1.1, PATTERN)).astype(np.float16)
            raw[:, offset : offset + 2] = scale.view(np.uint8).reshape(-1, 2)

    set_scales(1e-3)
    set_scales(1e-3 * 0.02 / gguf.quants.dequantize(raw[:256], kind).std())
    return raw


def tensors(shape: Shape) -> dict[str, tuple[tuple[int, ...], Type]]:
    """Names, shapes (rows first) and types. Q4_K_M keeps more bits of every third layer and of those at both ends."""
    s, kinds = shape, {}
    kinds["token_embd.weight"] = (s.vocabulary, s.width), Type.Q4_K
    kinds["output_norm.weight"] = (s.width,), Type.F32
    kinds["output.weight"] = (s.vocabulary, s.width), Type.Q6_K
    for layer in range(s.layers):
        edge = s.layers // 8
        more = Type.Q6_K if layer < edge or layer >= 7 * s.layers // 8 or (layer - edge) % 3 == 2 else Type.Q4_K
        block = {
            "attn_norm": ((s.width,), Type.F32),
            "ffn_norm": ((s.width,), Type.F32),
            "attn_q_norm": ((s.head,), Type.F32),
            "attn_k_norm": ((s.head,), Type.F32),
            "attn_q": ((s.heads * s.head, s.width), Type.Q4_K),
            "attn_k": ((s.heads_kv * s.head, s.width), Type.Q4_K),
            "attn_v": ((s.heads_kv * s.head, s.width), more),
            "attn_output": ((s.width, s.heads * s.head), Type.Q4_K),
            "ffn_gate_inp": ((s.experts, s.width), Type.F32),
            "ffn_gate_exps": ((s.experts, s.inner, s.width), Type.Q4_K),
            "ffn_up_exps": ((s.experts, s.inner, s.width), Type.Q4_K),
            "ffn_down_exps": ((s.experts, s.width, s.inner), more),
        }
        kinds |= {f"blk.{layer}.{name}.weight": entry for name, entry in block.items()}
    return kinds


def write(shape: Shape, path: Path, seed: int = 0) -> Path:
    """Write the file. Its vocabulary is numbers: enough to load it here, not for text."""
    rng = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "qwen3moe")
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
    writer.add_expert_count(shape.experts)
    writer.add_expert_used_count(shape.used)
    writer.add_expert_feed_forward_length(shape.inner)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_tokenizer_model("none")
    writer.add_token_list([str(i) for i in range(shape.vocabulary)])
    kinds = tensors(shape)
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
    patterns = {kind: blocks(kind, rng) for kind in SCALES}
    for size, kind in kinds.values():
        if kind == Type.F32:
            values = np.ones(size) if len(size) == 1 else rng.normal(0, 0.02, size)
            writer.write_tensor_data(values.astype(np.float32))
        else:
            count = int(np.prod(size)) // gguf.GGML_QUANT_SIZES[kind][0]
            turned = np.roll(patterns[kind], int(rng.integers(PATTERN)), axis=0)
            writer.write_tensor_data(np.resize(turned, (count, turned.shape[1])))
    writer.close()
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("path", type=Path)
    arguments = parser.parse_args()
    write(SHAPES[arguments.shape], arguments.path)
