"""How near the card's logits are to those of the CPU, by type of weights; and to llama.cpp's on the embedded model."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import GOLDEN, MODEL, forced, perplexity
from machine import ROOT

sys.path.insert(0, str(ROOT / "tests"))

import distance
import naive
import tiny_gguf
from stepping import Text, blocks_for, open_model

from runtime.execute import hybrid
from runtime.frames import Load

TYPES = ("Q4_K", "Q5_K", "Q6_K", "Q8_0", "Q4_0", "IQ4_XS", "MXFP4", "F16", "BF16")
PROMPT, DECODED = 40, 24
PLACES = {"vram": None, "ram": 0}  # experts of a layer in VRAM


def by_type(folder: Path) -> dict[str, Any]:
    """NMSE of a small model's logits, and their smallest cosine: of the card against the same weights in float, and against the
    CPU's kernels (int8 activations), with all experts in VRAM and with none. Every expert is chosen, so that no router's tie
    decides: a flip there says nothing of a kernel."""
    found: dict[str, Any] = {}
    for kind in TYPES:
        shape = dataclasses.replace(tiny_gguf.variant("qwen3moe", kind), experts=4, used=4)
        path = tiny_gguf.write(folder / f"correct-{kind}.gguf", shape)
        tokens = np.random.default_rng(5).integers(0, 300, PROMPT + DECODED).tolist()
        exact = naive.Model(path).logits(tokens)
        with closing(open_model(path)) as executor:
            cpu = _logits(executor, tokens)
        row = {"cpu_float": _distance(cpu, exact)}
        for place, resident in PLACES.items():
            with on_card(path, resident) as executor:
                card = _logits(executor, tokens)
            row |= {f"{place}_float": _distance(card, exact), f"{place}_cpu": _distance(card, cpu)}
        path.unlink()
        print(kind, row, flush=True)
        found[kind] = row
    return {"correct": found}


def demo() -> dict[str, Any]:
    """The embedded model, teacher-forced, against llama.cpp's recorded probabilities."""
    golden, found = dict(np.load(GOLDEN / "demo-moe.npz")), {}
    tokens = golden["tokens"]
    for place, resident in PLACES.items():
        with on_card(MODEL, resident, rows=512, ctx=512) as executor:
            ours = forced(executor, golden)
        kl, agreement = distance.to_golden(golden, ours)
        ratio = perplexity(ours, tokens) / float(np.exp(-golden["target"][:-1].mean()))
        found[place] = {"tokens": len(tokens), "kl": kl, "same_best": agreement, "perplexity_over_llama_cpp": ratio}
        print("demo-moe", place, found[place], flush=True)
    itself = {"kl": float(golden["self_kl"]), "same_best": float(golden["self_agreement"])}
    return {"demo_moe": found | {"llama_cpp_with_itself": itself}}


@contextmanager
def on_card(path: Path, resident: int | None, rows: int = 128, ctx: int = 1024) -> Iterator[hybrid.HybridExecutor]:
    """The model there; `resident`: experts of a layer in VRAM."""
    request = Load(str(path), num_ctx=ctx, num_parallel=4, num_batch=rows)
    executor = hybrid.load(request, lambda *_: None, resident=resident, over_pcie=0.0)
    if executor is None:
        raise SystemExit("the card cannot be used")
    with closing(executor):
        yield executor


def _logits(executor: Any, tokens: list[int]) -> np.ndarray:
    """A prompt, then one token after the other."""
    text = Text(executor, blocks_for(PROMPT + DECODED))
    return np.concatenate([text.feed(tokens[:PROMPT]), *(text.feed([token]) for token in tokens[PROMPT:])])


def _distance(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    cosine = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return {"nmse": float(f"{naive.nmse(a, b):.2e}"), "cosine": round(float(cosine.min()), 6)}
