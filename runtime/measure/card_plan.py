"""How a model would lie on a card, from the numbers of its shape: by the planner that loads models."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from runtime.core import BLOCK_TOKENS
from runtime.execute.budget import DEFAULT_CONTEXT
from runtime.execute.long_texts import text_bytes
from runtime.execute.needs import USUAL_ROWS, sizes, step_bytes
from runtime.execute.placement import WORTH_WHILE, Needs, NoRoom, plan
from runtime.frames import Load
from runtime.layers.ops import Heads

Shape = Mapping[str, Any]
"""What ollama_compat.doctor.shape.Shape has as `numbers`."""


def placed(shape: Shape, vram: int, asked: Load) -> dict[str, Any]:
    """Where a server puts it: the `first` layer on the card, the part of each such layer's experts that lies in VRAM
    (`resident`), bytes there, `rows` of a step; or `refused`: why not. `whole`: the same where only layers go to the card that
    have all their experts there, as many as fit; None where that is all or none."""
    if shape["dense_bytes"] + shape["expert_bytes"] < WORTH_WHILE:
        return {"refused": "a model that small runs on the CPU", "whole": None}
    found = _first_that_fits(shape, vram, sizes(asked, shape["layers"]), asked)
    fewer = ((first, 1, USUAL_ROWS) for first in range(1, shape["layers"]))
    whole = _first_that_fits(shape, vram, fewer, dataclasses.replace(asked, num_cpu_moe=0), complete=True)
    everything = not found.get("first") and all(part == 1.0 for part in found.get("resident", (0.0,)))
    return found | {"whole": None if everything or "refused" in whole else whole}


def _first_that_fits(
    shape: Shape, vram: int, tries: Iterable[tuple[int, int, int]], asked: Load, *, complete: bool = False
) -> dict[str, Any]:
    """Of layers on the CPU, texts that are promised a context, and rows of a step. `complete`: with all experts."""
    refused = ""
    for first, parallel, rows in tries:
        needs = needs_of(shape, first, parallel, rows, asked.num_ctx or DEFAULT_CONTEXT)
        before = shape["expert_layers"] - len(needs.experts)
        try:
            found = plan(needs, vram, num_cpu_moe=max(0, asked.num_cpu_moe - before))
        except NoRoom as error:
            refused = refused or str(error)
            continue
        parts = [count / experts for count, (experts, _) in zip(found.resident, needs.experts, strict=True)]
        if not complete or all(part == 1.0 for part in parts):
            return {"first": first, "resident": parts, "vram": found.vram, "rows": rows}
    return {"refused": refused}


def needs_of(shape: Shape, first: int, parallel: int, rows: int, num_ctx: int = DEFAULT_CONTEXT) -> Needs:
    """What runtime.execute.needs finds by the tensors, here by layers that are all alike; those without experts come first."""
    layers, experts, width = shape["layers"] - first, shape["expert_count"], shape["embedding_length"]
    stacks = min(shape["expert_layers"], layers)
    tokens = min(num_ctx, shape["context_length"] or num_ctx)
    table = shape["table_bytes"] if first == 0 else 0
    dense = shape["dense_bytes"] - shape["output_bytes"] - shape["table_bytes"]
    step = step_bytes(rows, width, shape["hidden_width"], shape["expert_used_count"], shape["query_width"] // 2, shape["n_vocab"])
    return Needs(
        layers=layers,
        dense=dense * layers // max(1, shape["layers"]) + shape["output_bytes"] + table,
        experts=((experts, shape["expert_bytes"] // (experts * shape["expert_layers"])),) * stacks if stacks else (),
        block=shape["cache_bytes"] * BLOCK_TOKENS * layers // max(1, shape["layers"]),
        blocks=parallel * -(-tokens // BLOCK_TOKENS) + 1,
        step=step + text_bytes(_heads(shape), tokens),
    )


def _heads(shape: Shape) -> Heads:
    """As far as it is known: keys as long as values, and of the others that share them nothing."""
    size = shape["query_width"] // max(1, 2 * shape["head_count"])
    return Heads(shape["head_count"], 1, size, size, False, 1.0)
