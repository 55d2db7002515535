"""Small random models of any architecture and any weight type, written as real GGUF files."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

from runtime.quantize import file
from runtime.quantize.mixes import MIXES


@dataclasses.dataclass(frozen=True)
class Shape:
    """Sizes of a tiny model. `type` is the type of every matrix, `down` another one for ffn_down and attn_v."""

    architecture: str = "qwen3moe"
    layers: int = 2
    embedding: int = 256
    heads: int = 4
    kv_heads: int = 2
    head: int = 64
    feed_forward: int = 512
    experts: int = 0
    used: int = 0
    vocab: int = 320
    type: Type = Type.F32
    down: Type | None = None
    experts_type: Type | None = None
    mix: tuple[Type, Type, Type | None] = (Type.Q4_K, Type.Q8_0, None)  # these three of the variant MIX
    context: int = 1024
    tied: bool = True
    biases: bool = False
    head_norms: bool = False
    rope_freqs: bool = False
    metadata: dict[str, object] = dataclasses.field(default_factory=dict)
    encoder: bool = False  # sees whole texts, norms after each layer, and has a WordPiece vocabulary
    labels: int = 0  # of a head that ranks
    gated: bool = True  # the feed-forward layers of an encoder
    dense: int = 0  # leading blocks without experts
    shared: int = 0  # width of the shared expert
    latent: int = 0  # length of latent vectors; of a head `head - turning` values do not turn, and `head` are its value's
    turning: int = 0
    query: int = 0  # rank of the queries
    spread: float = 1.5  # of weights, times the root of a row's length; less where rounding would be magnified
    wide: tuple[int, ...] = ()  # blocks of gemma4 that see everything: heads twice as large, half as many keys, values of keys
    together: bool = False  # q, k and v in one matrix, and gates and ups in another one
    fused: bool = False  # keys and values of latent vectors in one matrix
    recurrent: tuple[int, int, int] = (0, 0, 0)  # key heads, value heads and their size, of all but every fourth block
    more: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)  # further tensors of a block: sizes by name
    renamed: Mapping[str, str] = dataclasses.field(default_factory=dict)  # tensors of a block that have another name


_YARN: dict[str, object] = {
    "rope.scaling.type": "yarn",
    "rope.scaling.factor": 8.0,
    "rope.scaling.original_context_length": 512,
}
_GPT_OSS: dict[str, object] = {
    "rope.scaling.type": "yarn",
    "rope.scaling.factor": 8.0,
    "rope.scaling.original_context_length": 64,
    "attention.sliding_window": 16,
}
_GEMMA: dict[str, object] = {"attention.sliding_window": 16, "rope.freq_base_swa": 5000.0, "rope.freq_base": 1e6}
_POST_NORMS = {"post_attention_norm.weight": ("d",), "post_ffw_norm.weight": ("d",)}
_SOFTCAPS: dict[str, object] = {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0, "attention.sliding_window": 16}
_DEEPSEEK_V3: dict[str, object] = {
    **_YARN,
    "rope.scaling.original_context_length": 64,
    "rope.scaling.yarn_log_multiplier": 0.1,
    "expert_weights_norm": True,
    "expert_weights_scale": 2.5,
    "expert_gating_func": 2,
    "expert_group_count": 4,
    "expert_group_used_count": 2,
}
_DEEPSEEK_LITE: dict[str, object] = {**_YARN, "rope.scaling.yarn_log_multiplier": 0.0707, "expert_weights_scale": 1.0}
_MOE: dict[str, Any] = {"experts": 8, "used": 3, "feed_forward": 256, "spread": 1.0}
_WIDE_NORMS = {"attn_q_norm.weight": ("q",), "attn_k_norm.weight": ("kv",)}
_DOTS: dict[str, object] = {"expert_weights_norm": True, "expert_weights_scale": 2.5, "expert_gating_func": 2}
_GRANITE: dict[str, object] = {
    **{"embedding_scale": 12.0, "residual_scale": 0.22, "attention.scale": 0.0156, "logit_scale": 6.0},
}
_GEMMA4: dict[str, object] = {**_GEMMA, "embedding_length_per_layer_input": 0, "final_logit_softcapping": 3.0}
_PHI: dict[str, object] = {"rope.scaling.original_context_length": 4096, "rope.scaling.attn_factor": 1.19}
_SECTIONS: dict[str, object] = {"rope.dimension_sections": [12, 10, 10, 0]}
_DELTA: dict[str, Any] = {"layers": 5, "head_norms": True, "turning": 32, "tied": False}
_DELTA |= {"renamed": {"ffn_norm.weight": "post_attention_norm.weight"}}
_DELTA_MOE: dict[str, Any] = {**_DELTA, **_MOE, "shared": 256, "more": {"ffn_gate_inp_shexp.weight": ("d",)}}
_DELTA_MOE |= {"metadata": {"expert_shared_feed_forward_length": 256}}
ARCHITECTURES = {
    "llama": Shape("llama", tied=False),
    "mixtral": Shape("llama", experts=4, used=2),
    "qwen2": Shape("qwen2", biases=True),
    "qwen3": Shape("qwen3", head_norms=True),
    "qwen3moe": Shape("qwen3moe", head_norms=True, experts=8, used=3, feed_forward=256),
    "llama3": Shape("llama", rope_freqs=True),
    "llama-linear": Shape("llama", metadata={"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}),
    "qwen3-yarn": Shape("qwen3", head_norms=True, context=4096, metadata=_YARN),
    "gpt-oss": Shape(
        "gpt-oss",
        experts=8,
        used=3,
        feed_forward=256,
        tied=False,
        biases=True,
        spread=1.0,
        metadata=_GPT_OSS,
        mix=(Type.Q8_0, Type.Q8_0, Type.MXFP4),
        renamed={"ffn_norm.weight": "post_attention_norm.weight"},
        more={
            "attn_sinks.weight": ("heads",),
            "attn_output.bias": ("d",),
            "ffn_gate_inp.bias": ("e",),
            "ffn_gate_exps.bias": ("e", "f"),
            "ffn_up_exps.bias": ("e", "f"),
            "ffn_down_exps.bias": ("e", "d"),
        },
    ),
    "gemma4": Shape("gemma4", layers=2, wide=(1,), rope_freqs=True, metadata=_GEMMA4, **(_MOE | {"spread": 0.7})),
    "gemma4-dense": Shape("gemma4", layers=3, wide=(2,), rope_freqs=True, metadata=_GEMMA4),
    "glm4moe": Shape(
        "glm4moe",
        layers=3,
        dense=1,
        experts=8,
        used=3,
        feed_forward=256,
        shared=256,
        turning=32,
        biases=True,
        head_norms=True,
        metadata={"expert_weights_norm": True, "expert_weights_scale": 1.5, "expert_gating_func": 2},
        renamed={"ffn_norm.weight": "post_attention_norm.weight"},
        more={"exp_probs_b.bias": ("e",)},
    ),
    "deepseek2": Shape(
        "deepseek2",
        layers=3,
        dense=1,
        experts=16,
        used=3,
        feed_forward=256,
        shared=256,
        latent=128,
        turning=32,
        query=64,
        spread=0.7,
        metadata=_DEEPSEEK_V3,
        more={"exp_probs_b.bias": ("e",)},
        mix=(Type.Q4_0, Type.Q8_0, Type.Q4_K),
    ),
    "deepseek2-lite": Shape(
        "deepseek2",
        layers=27,
        dense=1,
        embedding=128,
        experts=8,
        used=3,
        feed_forward=64,
        shared=128,
        latent=64,
        turning=32,
        fused=True,
        kv_heads=4,
        spread=0.6,
        metadata=_DEEPSEEK_LITE,
        mix=(Type.Q8_0, Type.Q8_0, Type.Q8_0),
    ),
    "qwen2moe": Shape(
        "qwen2moe",
        biases=True,
        tied=False,
        shared=512,
        metadata={"expert_shared_feed_forward_length": 512},
        more={"ffn_gate_inp_shexp.weight": ("d",)},
        **_MOE,
    ),
    "olmoe": Shape("olmoe", kv_heads=4, tied=False, more=_WIDE_NORMS, **_MOE),
    "minimax-m2": Shape(
        "minimax-m2",
        tied=False,
        turning=32,
        metadata={"expert_gating_func": 2},
        more={**_WIDE_NORMS, "exp_probs_b.bias": ("e",)},
        **_MOE,
    ),
    "dots1": Shape(
        "dots1",
        dense=1,
        kv_heads=4,
        shared=256,
        head_norms=True,
        tied=False,
        metadata=_DOTS,
        more={"exp_probs_b.bias": ("e",)},
        **_MOE,
    ),
    "ernie4_5-moe": Shape(
        "ernie4_5-moe",
        layers=4,
        dense=2,
        shared=256,
        metadata={"interleave_moe_layer_step": 1, "expert_shared_feed_forward_length": 256},
        more={"exp_probs_b.bias": ("e",)},
        **_MOE,
    ),
    "phi3": Shape("phi3", together=True, tied=False),
    "phi3-mini": Shape("phi3", together=True, rope_freqs=True, turning=48, metadata=_PHI, spread=1.0),
    "granite": Shape("granite", metadata=_GRANITE),
    "granitemoe": Shape("granitemoe", shared=256, metadata=_GRANITE | {"expert_shared_feed_forward_length": 256}, **_MOE),
    "qwen3vl": Shape("qwen3vl", head_norms=True, metadata=_SECTIONS),
    "qwen3vlmoe": Shape("qwen3vlmoe", head_norms=True, metadata=_SECTIONS, **_MOE),
    "qwen2vl": Shape("qwen2vl", biases=True, spread=1.0, metadata=_SECTIONS),
    "qwen3next": Shape("qwen3next", recurrent=(2, 4, 64), **_DELTA_MOE),
    "qwen35": Shape("qwen35", recurrent=(2, 8, 32), metadata=_SECTIONS, **_DELTA),
    "qwen35moe": Shape("qwen35moe", recurrent=(2, 4, 64), **(_DELTA_MOE | {"metadata": _DELTA_MOE["metadata"] | _SECTIONS})),
    "gemma2": Shape("gemma2", layers=3, metadata=_SOFTCAPS, more=_POST_NORMS),
    "gemma3": Shape("gemma3", layers=7, feed_forward=256, head_norms=True, metadata=_GEMMA, more=_POST_NORMS),
}

RECENT = (
    *("gpt-oss", "gemma2", "gemma3", "glm4moe", "deepseek2", "deepseek2-lite", "qwen2moe", "olmoe", "minimax-m2", "dots1"),
    *("ernie4_5-moe", "granite", "granitemoe", "qwen2vl", "qwen3vl", "qwen3vlmoe", "gemma4", "gemma4-dense"),
    *("phi3", "phi3-mini", "qwen3next", "qwen35", "qwen35moe"),
)
"""Those whose goldens are of F32 and MIX; of the others F32 and F16."""


def kinds(architecture: str) -> tuple[str, str]:
    """The variants that llama.cpp's logits are recorded of."""
    return ("F32", "MIX") if architecture in RECENT else ("F32", "F16")


ADAPTED = {
    "llama": ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down", "output", "token_embd"),
    "qwen3": ("attn_q", "attn_v"),
    "qwen3moe": ("attn_v", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"),
}
"""What an adapter changes in some of them."""

_ENCODER = Shape(encoder=True, kv_heads=4, head=32, embedding=128, feed_forward=192, context=256)
RANKERS = {
    "bert-rank": dataclasses.replace(_ENCODER, architecture="bert", gated=False, labels=1, metadata={"pooling_type": 4}),
    "qwen3-rank": dataclasses.replace(ARCHITECTURES["qwen3"], labels=2, metadata={"pooling_type": 4}),
}
ENCODERS = {
    "bert": dataclasses.replace(_ENCODER, architecture="bert", gated=False, metadata={"pooling_type": 1}),
    "bert-cls": dataclasses.replace(_ENCODER, architecture="bert", gated=False, metadata={"pooling_type": 2}),
    "nomic-bert": dataclasses.replace(_ENCODER, architecture="nomic-bert", metadata={"pooling_type": 1}),
    "qwen3-embedding": dataclasses.replace(ARCHITECTURES["qwen3"], metadata={"pooling_type": 3}),
}
"""Models that make vectors of texts. The last one is a decoder, whose last token stands for the text."""
DEEP = {
    "grouped": Shape(architecture="llama", layers=16, kv_heads=1, type=Type.F16, feed_forward=256),
    "untied": Shape(architecture="llama", layers=16, tied=False, type=Type.F16, feed_forward=256),
    "experts": Shape(architecture="qwen3moe", layers=16, experts=8, used=2, type=Type.F16, feed_forward=256),
}
"""Models with so many layers that mixes make a difference between them."""


def variant(architecture: str, kind: str) -> Shape:
    """The tiny model of an architecture with all matrices of one type, by its name, or of several: MIX."""
    shape = (ARCHITECTURES | ENCODERS | RANKERS)[architecture]
    if kind == "MIX":
        return dataclasses.replace(shape, type=shape.mix[0], down=shape.mix[1], experts_type=shape.mix[2])
    return dataclasses.replace(shape, type=Type[kind])


def write(path: Path, shape: Shape, seed: int = 0, given: Mapping[str, np.ndarray] | None = None) -> Path:
    """Write the model to `path`. Weights that are not given are random with the spread of a trained model's."""
    writer = gguf.GGUFWriter(path, shape.architecture)
    _metadata(writer, shape)
    rng = np.random.default_rng(seed)
    for name, size in tensors(shape).items():
        is_vector = len(size) == 1 or name.endswith(".bias")
        is_plain = is_vector or any(part in name for part in ("gate_inp", "_types", "position", "conv1d"))
        mean = 1.0 if ("norm" in name and "bias" not in name) or name.startswith("rope_f") or "scale" in name else 0.0
        mean = 0.2 if shape.wide and name.endswith("attn_q_norm.weight") else mean  # scores have no other factor
        mean = 4.0 if name.endswith("ffn_gate_inp.scale") else -0.5 if name.endswith("ssm_a") else mean
        values = rng.normal(mean, 0.1 if is_vector else shape.spread / np.sqrt(size[-1]), size).astype(np.float32)
        values = given[name].astype(np.float32) if given else values
        kind = Type.F32 if is_plain else _type(name, shape)
        writer.add_tensor(name, encode(values, kind, rng), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def requantised(source: Path, path: Path, mix: str) -> Path:
    """The model `source` in the types of another mix, at `path`; the same bytes every time."""
    with path.open("wb") as target:
        file.quantize(source, target, MIXES[mix], [], lambda done, total: None)
    return path


def write_adapter(path: Path, shape: Shape, parts: Sequence[str], rank: int = 4, alpha: float = 6.0, seed: int = 7) -> Path:
    """A LoRA adapter for all tensors of the model whose names end with one of `parts` and `.weight`, or are that."""
    writer = gguf.GGUFWriter(path, shape.architecture)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha)
    rng = np.random.default_rng(seed)
    for name, size in tensors(shape).items():
        if name.removesuffix(".weight").rpartition(".")[2] in parts:
            stack, (rows, row) = size[:-2], size[-2:]
            first, second = ((rows, rank), (row, rank)) if name == "token_embd.weight" else ((rank, row), (rows, rank))
            writer.add_tensor(f"{name}.lora_a", rng.normal(0, 1 / np.sqrt(row), (*stack, *first)).astype(np.float32))
            writer.add_tensor(f"{name}.lora_b", rng.normal(0, 0.5, (*stack, *second)).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def tensors(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Names and NumPy shapes (rows first, so ggml's shape reversed)."""
    return (_encoder_tensors(shape) if shape.encoder else _decoder_tensors(shape)) | _head_tensors(shape)


def _head_tensors(shape: Shape) -> dict[str, tuple[int, ...]]:
    """The head of a model that ranks; an encoder's has two layers."""
    if not shape.labels:
        return {}
    d = shape.embedding
    hidden = {"cls.weight": (d, d), "cls.bias": (d,)} if shape.encoder else {}
    return {**hidden, "cls.output.weight": (shape.labels, d), **({"cls.output.bias": (shape.labels,)} if shape.encoder else {})}


def _encoder_tensors(shape: Shape) -> dict[str, tuple[int, ...]]:
    d, f = shape.embedding, shape.feed_forward
    out: dict[str, tuple[int, ...]] = {"token_embd.weight": (shape.vocab, d), "token_types.weight": (2, d)}
    if not shape.gated:
        out["position_embd.weight"] = (shape.context, d)
    names = [("token_embd_norm", d, 0)]
    for i in range(shape.layers):
        parts = [("attn_qkv", 3 * d, d)] if shape.gated else [(f"attn_{name}", d, d) for name in "qkv"]
        parts += [("attn_output", d, d), ("attn_output_norm", d, 0), ("layer_output_norm", d, 0)]
        parts += [("ffn_gate", f, d)] * shape.gated + [("ffn_up", f, d), ("ffn_down", d, f)]
        names += [(f"blk.{i}.{name}", n, m) for name, n, m in parts]
    for name, n_out, n_in in names:
        out[f"{name}.weight"] = (n_out, n_in) if n_in else (n_out,)
        if not n_in or not shape.gated:
            out[f"{name}.bias"] = (n_out,)
    return out


def _decoder_tensors(shape: Shape) -> dict[str, tuple[int, ...]]:
    d, q, kv = shape.embedding, shape.heads * shape.head, shape.kv_heads * shape.head
    out: dict[str, tuple[int, ...]] = {"token_embd.weight": (shape.vocab, d), "output_norm.weight": (d,)}
    if not shape.tied:
        out["output.weight"] = (shape.vocab, d)
    if shape.together and shape.rope_freqs:
        out |= {f"rope_factors_{name}.weight": (shape.turning // 2,) for name in ("short", "long")}
    elif shape.rope_freqs:
        out["rope_freqs.weight"] = (shape.head if shape.wide else shape.head // 2,)
    for i in range(shape.layers):
        block: dict[str, tuple[int, ...]] = {
            "attn_norm.weight": (d,),
            "ffn_norm.weight": (d,),
            "attn_q.weight": (q, d),
            "attn_k.weight": (kv, d),
            "attn_v.weight": (kv, d),
            "attn_output.weight": (d, q),
        }
        if shape.biases:
            block |= {"attn_q.bias": (q,), "attn_k.bias": (kv,), "attn_v.bias": (kv,)}
        if shape.head_norms:
            block |= {"attn_q_norm.weight": (shape.head,), "attn_k_norm.weight": (shape.head,)}
        e, f = shape.experts if i >= shape.dense else 0, shape.feed_forward
        known = {"d": d, "q": q, "kv": kv, "head": shape.head, "heads": shape.heads, "e": e, "f": f}
        more = {name: tuple(known[size] for size in sizes) for name, sizes in shape.more.items()}
        block |= {name: size for name, size in more.items() if e or "exp" not in name}
        if shape.together:
            block = {name: size for name, size in block.items() if name[5:] not in ("q.weight", "k.weight", "v.weight")}
            block["attn_qkv.weight"] = (q + 2 * kv, d)
        if shape.wide:
            block = _gemma4_tensors(shape, block, i in shape.wide)
        if any(shape.recurrent):
            block = _delta_tensors(shape, block) if (i + 1) % 4 else block | {"attn_q.weight": (2 * q, d)}
        if shape.latent:
            block = {name: size for name, size in block.items() if name[:6] not in ("attn_q", "attn_k", "attn_v")}
            block |= _latent_tensors(shape)
        if shape.shared and e:
            block |= {f"ffn_{part}_shexp.weight": (shape.shared, d) for part in ("gate", "up")}
            block["ffn_down_shexp.weight"] = (d, shape.shared)
        if shape.wide:
            pass
        elif e:
            block |= {"ffn_gate_inp.weight": (e, d), "ffn_gate_exps.weight": (e, f, d), "ffn_up_exps.weight": (e, f, d)}
            block |= {"ffn_down_exps.weight": (e, d, f)}
        elif shape.together:
            block |= {"ffn_up.weight": (2 * f, d), "ffn_down.weight": (d, f)}
        else:
            block |= {"ffn_gate.weight": (f, d), "ffn_up.weight": (f, d), "ffn_down.weight": (d, f)}
        out |= {f"blk.{i}.{shape.renamed.get(name, name)}": size for name, size in block.items()}
    return out


def _gemma4_tensors(shape: Shape, block: dict[str, tuple[int, ...]], wide: bool) -> dict[str, tuple[int, ...]]:
    d, f, e = shape.embedding, shape.feed_forward, shape.experts
    head, kv = (2 * shape.head, shape.kv_heads // 2) if wide else (shape.head, shape.kv_heads)
    block |= {"attn_q.weight": (shape.heads * head, d), "attn_k.weight": (kv * head, d), "attn_v.weight": (kv * head, d)}
    block |= {"attn_output.weight": (d, shape.heads * head), "attn_q_norm.weight": (head,), "attn_k_norm.weight": (head,)}
    if wide:
        del block["attn_v.weight"]
    block |= {f"{name}.weight": (d,) for name in ("post_attention_norm", "post_ffw_norm")} | {"layer_output_scale.weight": (1,)}
    block |= {"ffn_gate.weight": (f, d), "ffn_up.weight": (f, d), "ffn_down.weight": (d, f)}
    if e:
        block |= {f"{name}.weight": (d,) for name in ("pre_ffw_norm_2", "post_ffw_norm_1", "post_ffw_norm_2")}
        block |= {"ffn_gate_inp.weight": (e, d), "ffn_gate_inp.scale": (d,), "ffn_down_exps.scale": (e,)}
        block |= {"ffn_gate_up_exps.weight": (e, 2 * f, d), "ffn_down_exps.weight": (e, d, f)}
    return block


def _delta_tensors(shape: Shape, block: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    d, (key_heads, heads, size) = shape.embedding, shape.recurrent
    channels = (2 * key_heads + heads) * size
    out = {name: sizes for name, sizes in block.items() if not name.startswith("attn_") or name == "attn_norm.weight"}
    out |= {"attn_qkv.weight": (channels, d), "attn_gate.weight": (heads * size, d), "ssm_conv1d.weight": (channels, 4)}
    out |= {"ssm_a": (heads,), "ssm_dt.bias": (heads,), "ssm_norm.weight": (size,), "ssm_out.weight": (d, heads * size)}
    if shape.architecture == "qwen3next":
        return out | {"ssm_ba.weight": (2 * heads, d)}
    return out | {"ssm_alpha.weight": (heads, d), "ssm_beta.weight": (heads, d)}


def _latent_tensors(shape: Shape) -> dict[str, tuple[int, ...]]:
    d, heads, head, latent, still = shape.embedding, shape.heads, shape.head, shape.latent, shape.head - shape.turning
    out = {"attn_q.weight": (heads * head, d)}
    if shape.query:
        out = {"attn_q_a.weight": (shape.query, d), "attn_q_a_norm.weight": (shape.query,)}
        out["attn_q_b.weight"] = (heads * head, shape.query)
    out |= {"attn_kv_a_mqa.weight": (latent + shape.turning, d), "attn_kv_a_norm.weight": (latent,)}
    if shape.fused:
        return out | {"attn_kv_b.weight": (heads * (still + head), latent)}
    return out | {"attn_k_b.weight": (heads, latent, still), "attn_v_b.weight": (heads, head, latent)}


SCALES = {
    **{Type.Q2_K: (80, 82), Type.Q3_K: (108,), Type.Q4_K: (0, 2), Type.Q5_K: (0, 2), Type.Q6_K: (208,)},
    **{Type.IQ4_NL: (0,), Type.IQ4_XS: (0,), Type.IQ2_XXS: (0,), Type.IQ3_S: (0,)},
}
"""Where the f16 scales of a block lie; of two, the second is that of the mins."""


def encode(values: np.ndarray, kind: Type, rng: np.random.Generator) -> np.ndarray:
    """`values` in a GGUF type; K types, which gguf cannot quantise, get random valid blocks of about the same spread."""
    if kind in (Type.F32, Type.F16):
        return values.astype(np.float32 if kind == Type.F32 else np.float16)
    try:
        return gguf.quants.quantize(values, kind)
    except NotImplementedError:
        return _random_blocks(values, kind, rng)


def _random_blocks(values: np.ndarray, kind: Type, rng: np.random.Generator) -> np.ndarray:
    block, nbytes = gguf.GGML_QUANT_SIZES[kind]
    n = values.size // block
    raw = rng.integers(0, 256, (n, nbytes), dtype=np.uint8)
    scales = SCALES[kind]
    for i, offset in enumerate(scales):
        scale = np.full(n, 1e-3 * (7.5, 15.5)[kind == Type.Q5_K] if i else 1e-3, np.float16)
        raw[:, offset : offset + 2] = scale.view(np.uint8).reshape(-1, 2)
    spread = gguf.quants.dequantize(raw, kind).std()
    for offset in scales:
        d = raw[:, offset : offset + 2].copy().view(np.float16) * np.float16(values.std() / spread)
        raw[:, offset : offset + 2] = d.view(np.uint8)
    return raw.reshape(*values.shape[:-1], -1)


def _type(name: str, shape: Shape) -> Type:
    if shape.experts_type is not None and "_exps" in name:
        return shape.experts_type
    return shape.down if shape.down is not None and ("down" in name or "attn_v" in name) else shape.type


def _metadata(writer: gguf.GGUFWriter, shape: Shape) -> None:
    writer.add_block_count(shape.layers)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.embedding)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    together = shape.latent and not shape.fused
    if shape.wide:
        writer.add_head_count_kv([shape.kv_heads // (1 + (i in shape.wide)) for i in range(shape.layers)])
        pattern = [i not in shape.wide for i in range(shape.layers)]
        writer.add_array(f"{shape.architecture}.attention.sliding_window_pattern", pattern)
        for kind in ("key", "value"):
            writer.add_uint32(f"{shape.architecture}.attention.{kind}_length_swa", shape.head)
        writer.add_uint32(f"{shape.architecture}.rope.dimension_count_swa", shape.head)
    else:
        writer.add_head_count_kv(1 if together else shape.kv_heads)
    head = 2 * shape.head if shape.wide else shape.head
    writer.add_key_length(shape.latent + shape.turning if together else head)
    writer.add_value_length(shape.latent if together else head)
    if shape.latent:
        writer.add_kv_lora_rank(shape.latent)
        if shape.query:
            writer.add_q_lora_rank(shape.query)
    if together:
        writer.add_key_length_mla(shape.head)
        writer.add_value_length_mla(shape.head)
    if shape.encoder:
        writer.add_layer_norm_eps(1e-12)
        writer.add_causal_attention(False)
        writer.add_token_type_count(2)
    else:
        writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(shape.turning or head)
    writer.add_vocab_size(shape.vocab)
    if shape.experts:
        writer.add_expert_count(shape.experts)
        writer.add_expert_used_count(shape.used)
        writer.add_expert_feed_forward_length(shape.feed_forward)
        if shape.shared:
            writer.add_expert_shared_count(shape.shared // shape.feed_forward)
        if shape.dense:
            writer.add_leading_dense_block_count(shape.dense)
    if any(shape.recurrent):
        key_heads, heads, size = shape.recurrent
        writer.add_ssm_conv_kernel(4)
        writer.add_ssm_inner_size(heads * size)
        writer.add_ssm_state_size(size)
        writer.add_ssm_time_step_rank(heads)
        writer.add_ssm_group_count(key_heads)
    for key, value in shape.metadata.items():
        if isinstance(value, list):
            writer.add_array(f"{shape.architecture}.{key}", value)
            continue
        add = {str: writer.add_string, float: writer.add_float32, int: writer.add_uint32, bool: writer.add_bool}[type(value)]
        add(f"{shape.architecture}.{key}", value)
    if shape.labels:
        writer.add_array(f"{shape.architecture}.classifier.output_labels", [f"label {i}" for i in range(shape.labels)])
    (_word_pieces if shape.encoder else _vocabulary)(writer, shape.vocab)


def _vocabulary(writer: gguf.GGUFWriter, size: int) -> None:
    """Bytes, then filler words: enough of a tokenizer for llama.cpp to load the file too."""
    letters = [chr(c) for c in [*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324)]][:256]
    tokens = [*letters, "ab", *(f"w{i}" for i in range(1, size - 257)), "<|end|>"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * (size - 1) + [3])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(size - 1)
    writer.add_bos_token_id(size - 1)
    writer.add_add_bos_token(False)


def _word_pieces(writer: gguf.GGUFWriter, size: int) -> None:
    """Special tokens, letters at the start of a word and within one, then filler words."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,?!"
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"\u2581{c}" for c in letters), *letters]
    words = ["\u2581the", "\u2581sky", "\u2581is", "\u2581blue", "ing"]
    tokens += words + [f"\u2581w{i}" for i in range(size - len(tokens) - len(words))]
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("jina-v2-en")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * 5 + [1] * (size - 5))
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_sep_token_id(3)
    writer.add_eos_token_id(3)
    writer.add_mask_token_id(4)
