"""How near the card's logits are to those of the CPU, by type of weights; and to llama.cpp's on the embedded model."""

from __future__ import annotations

import dataclasses
import sys
import tempfile
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
from tiny_gguf import requantised

from runtime.execute import hybrid
from runtime.frames import Load

TYPES = ("Q4_K", "Q5_K", "Q6_K", "Q8_0", "Q4_0", "IQ4_XS", "MXFP4", "F16", "BF16")
TEXTS, PROMPT, DECODED = 8, 20, 4  # short ones: all that follows a value that was rounded to the other side differs too
NEAR = 1e-4  # NMSE
PLACES = {"vram": None, "ram": 0}  # experts of a layer in VRAM


def by_type(folder: Path) -> dict[str, Any]:
    """How far a small model's logits are, place by place of a text, from the same weights in float and from those of the CPU's
    kernels (int8 activations), with all experts in VRAM and with none. Every expert is chosen, so that no router's tie decides: a
    flip there says nothing of a kernel."""
    found: dict[str, Any] = {}
    for kind in TYPES:
        shape = dataclasses.replace(tiny_gguf.variant("qwen3moe", kind), experts=4, used=4)
        path = tiny_gguf.write(folder / f"correct-{kind}.gguf", shape)
        texts = np.random.default_rng(5).integers(0, 300, (TEXTS, PROMPT + DECODED)).tolist()
        exact = np.concatenate([naive.Model(path).logits(tokens) for tokens in texts])
        with closing(open_model(path)) as executor:
            cpu = _logits(executor, texts)
        row = {"cpu_float": _distance(cpu, exact)}
        for place, resident in PLACES.items():
            with on_card(path, resident) as executor:
                card = _logits(executor, texts)
            row |= {f"{place}_float": _distance(card, exact), f"{place}_cpu": _distance(card, cpu)}
        path.unlink()
        print(kind, row, flush=True)
        found[kind] = row
    return {"correct": found}


def demo() -> dict[str, Any]:
    """The embedded model, and its weights in float32, which nothing multiplies in int8."""
    with tempfile.TemporaryDirectory() as folder:
        exact = requantised(MODEL, Path(folder) / "F32.gguf", "F32")
        return {"demo_moe": _forced(MODEL, "demo-moe"), "demo_moe_f32": _forced(exact, "demo-moe-F32")}


def _forced(path: Path, name: str) -> dict[str, Any]:
    """A model, teacher-forced, against llama.cpp's recorded probabilities."""
    golden, found = dict(np.load(GOLDEN / f"{name}.npz")), dict[str, Any]()
    tokens = golden["tokens"]
    for place, resident in PLACES.items():
        with on_card(path, resident, rows=512, ctx=512) as executor:
            ours = forced(executor, golden)
        kl, agreement = distance.to_golden(golden, ours)
        ratio = perplexity(ours, tokens) / float(np.exp(-golden["target"][:-1].mean()))
        found[place] = {"tokens": len(tokens), "kl": kl, "same_best": agreement, "perplexity_over_llama_cpp": ratio}
        print(name, place, found[place], flush=True)
    itself = {"kl": float(golden["self_kl"]), "same_best": float(golden["self_agreement"])}
    return found | {"llama_cpp_with_itself": itself}


@contextmanager
def on_card(path: Path, resident: int | None, rows: int = 128, ctx: int = 1024) -> Iterator[hybrid.HybridExecutor]:
    """The model there; `resident`: experts of a layer in VRAM."""
    request = Load(str(path), num_ctx=ctx, num_parallel=4, num_batch=rows)
    executor = hybrid.load(request, lambda *_: None, resident=resident, over_pcie=0.0)
    if executor is None:
        raise SystemExit("the card cannot be used")
    with closing(executor):
        yield executor


def _logits(executor: Any, texts: list[list[int]]) -> np.ndarray:
    """Of each text a prompt, then one token after the other."""
    found = []
    for tokens in texts:
        text = Text(executor, blocks_for(PROMPT + DECODED))
        found += [text.feed(tokens[:PROMPT]), *(text.feed([token]) for token in tokens[PROMPT:])]
    return np.concatenate(found)


def _distance(a: np.ndarray, b: np.ndarray) -> dict[str, Any]:
    """NMSE of all places together; and by place, of the prompts and of what follows: the median, the largest, and the share of
    places that are NEAR."""
    rows = np.array([naive.nmse(*row) for row in zip(a, b, strict=True)]).reshape(TEXTS, -1)
    found: dict[str, Any] = {"together": _short(naive.nmse(a, b))}
    for name, part in (("prompt", rows[:, :PROMPT]), ("decoded", rows[:, PROMPT:])):
        figures = {"median": np.median(part), "most": part.max(), "near": (part <= NEAR).mean()}
        found[name] = {key: _short(value) for key, value in figures.items()}
    return found


def _short(value: float) -> float:
    return float(f"{value:.2e}")
