"""How a model would lie on a card, from the numbers of its shape: by the planner that loads models."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from runtime.core import BLOCK_TOKENS
from runtime.execute.budget import DEFAULT_CONTEXT, PARALLEL
from runtime.execute.placement import WORTH_WHILE, Needs, NoRoom, plan

ROWS = (2048, 1024, 512, 256)  # of a step: the usual, and what a small card gets


def placed(shape: Mapping[str, Any], vram: int, num_cpu_moe: int) -> dict[str, Any]:
    """The part of each layer's experts that lies in VRAM (1 without experts), bytes there, rows of a step; or `refused`: why not.

    `shape`: fields of ollama_compat.doctor.shape.Shape, and `dense_bytes`, `expert_bytes`, `n_vocab`.
    """
    refused = ""
    if shape["dense_bytes"] + shape["expert_bytes"] < WORTH_WHILE:
        return {"refused": "a model that small runs on the CPU"}
    for parallel, rows in itertools.product((PARALLEL, 1), ROWS):
        try:
            found = plan(_needs(shape, parallel, rows), vram, num_cpu_moe=num_cpu_moe)
        except NoRoom as error:
            refused = str(error)
            continue
        experts = shape["expert_count"]
        return {"resident": [count / experts for count in found.resident], "vram": found.vram, "rows": rows}
    return {"refused": refused}


def _needs(shape: Mapping[str, Any], parallel: int, rows: int) -> Needs:
    """`step` is about what a step takes: states, the experts' hidden values, queries and answers of attention, logits."""
    layers, experts, width = shape["expert_layers"], shape["expert_count"], shape["embedding_length"]
    tokens = min(DEFAULT_CONTEXT, shape["context_length"] or DEFAULT_CONTEXT)
    values = 16 * width + 3 * shape["hidden_width"] + 2 * shape["expert_used_count"] * width + 2 * shape["query_width"]
    return Needs(
        layers=shape["layers"],
        dense=shape["dense_bytes"],
        experts=((experts, shape["expert_bytes"] // (experts * layers)),) * layers if layers else (),
        block=shape["cache_bytes"] * BLOCK_TOKENS,
        blocks=parallel * -(-tokens // BLOCK_TOKENS) + 1,
        step=4 * (rows * values + 128 * shape["n_vocab"]),
    )
