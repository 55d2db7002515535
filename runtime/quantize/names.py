"""What a tensor's name says of its part in a model, and which tensors are never quantised (llama-quant.cpp)."""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Sequence

_LAYER = re.compile(r"blk\.(\d+)\.")


class Role(enum.Enum):
    """The parts that mixes treat differently."""

    OUTPUT = "output"
    EMBEDDING = "embedding"
    VALUE = "value"  # also where query, key and value are one matrix
    KEY = "key"
    QUERY = "query"
    ATTENTION_OUTPUT = "attention output"
    UP = "up"
    GATE = "gate"
    DOWN = "down"
    OTHER = "other"


_WHOLE = {
    "output.weight": Role.OUTPUT,
    "token_embd.weight": Role.EMBEDDING,
    "per_layer_token_embd.weight": Role.EMBEDDING,
}
_PARTS = (
    ("attn_qkv.weight", Role.VALUE),
    ("attn_kv_b.weight", Role.VALUE),
    ("attn_v.weight", Role.VALUE),
    ("attn_k.weight", Role.KEY),
    ("attn_q.weight", Role.QUERY),
    ("attn_output.weight", Role.ATTENTION_OUTPUT),
    ("ffn_up", Role.UP),
    ("ffn_gate", Role.GATE),
    ("ffn_down", Role.DOWN),
)

_KEPT = (
    "_norm.weight",
    "ffn_gate_inp.weight",
    "ffn_gate_tid2eid.weight",
    "altup",
    "laurel",
    "per_layer_model_proj",
    "ssm_conv1d",
    "shortconv.conv.weight",
    "indexer.k_proj.weight",
    "indexer.q_proj.weight",
    "time_mix_first.weight",
    *(f"time_mix_{part}.weight" for part in ("w0", "w1", "w2", "v0", "v1", "v2", "a0", "a1", "a2", "g1", "g2")),
    "time_mix_decay_w1.weight",
    "time_mix_decay_w2.weight",
    "time_mix_lerp_fused.weight",
    "attn_rel_b.weight",
    ".position_embd",
    "sam.pos_embd",
    "sam.neck.",
    "sam.net_",
    ".rel_pos",
    ".patch_embd",
    ".patch_merger",
    "a.rvq.codebook",
    "mm.a.code_embd",
)
_KEPT_WHOLE = ("position_embd.weight", "token_types.weight")
_KEPT_OF = {
    "glm5-next": (
        *("hc_", "indexer.attn_q_b", "indexer.attn_k", "indexer.proj", "indexer_compressor_gate", "indexer_compressor_ape"),
        *("ssm_f_a.weight", "ssm_f_b.weight", "ssm_g_a.weight", "ssm_g_b.weight", "ssm_beta.weight"),
        *("attn_kv_a_mqa.weight", "attn_k_b.weight", "attn_v_b.weight"),
    ),
}


def role(name: str) -> Role:
    """The part that the tensor of that name has."""
    whole = _WHOLE.get(name)
    return whole or next((found for part, found in _PARTS if part in name), Role.OTHER)


def layer(name: str) -> int:
    """The layer of a tensor; -1 when it belongs to none."""
    match = _LAYER.match(name)
    return int(match[1]) if match else -1


def quantizable(name: str, shape: Sequence[int], architecture: str) -> bool:
    """Whether the tensor is a matrix that takes quantising well. `shape` in ggml's order."""
    if math.prod(shape[1:]) <= 1 or not name.endswith("weight") or name in _KEPT_WHOLE:
        return False
    return not any(part in name for part in _KEPT + _KEPT_OF.get(architecture, ()))
