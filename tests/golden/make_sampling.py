"""Make sampling.json from llama.cpp's samplers: python tests/golden/make_sampling.py

Needs the package llama-cpp-python (0.3.36 was used: llama.cpp of September 2026). Every case has the seed of its logits (see
`logits_of`), the options, and what llama.cpp's sampler leaves of the candidates: their ids and logits, -1e30 for an impossible
one. Cases of DRY and mirostat have a history, or the tokens that were drawn one after the other.
"""

from __future__ import annotations

import ctypes
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

HERE = Path(__file__).parent
DEMO = HERE.parents[1] / "ollama_compat/data/demo-moe-Q4_K_M.gguf"
NEVER = -1e30


def logits_of(seed: int, size: int, spread: float) -> np.ndarray:
    return np.round(np.random.default_rng(seed).standard_normal(size) * spread, 4).astype(np.float32)


class Row:
    """Candidates as llama.cpp has them."""

    def __init__(self, logits: np.ndarray) -> None:
        self.data = (llama_cpp.llama_token_data * len(logits))(
            *(llama_cpp.llama_token_data(id=i, logit=float(x), p=0.0) for i, x in enumerate(logits))
        )
        self.array = llama_cpp.llama_token_data_array(data=self.data, size=len(logits), selected=-1, sorted=False)

    def apply(self, sampler: Any) -> Row:
        llama_cpp.llama_sampler_apply(sampler, ctypes.byref(self.array))
        return self

    def left(self) -> list[list[float]]:
        entries = ((self.array.data[i].id, self.array.data[i].logit) for i in range(self.array.size))
        return [[token, round(logit, 5) if math.isfinite(logit) else NEVER] for token, logit in entries]

    def selected(self) -> int:
        return int(self.array.data[self.array.selected].id)


def plain() -> Iterator[dict[str, Any]]:
    """Samplers without a state."""
    for seed, (size, spread) in enumerate([(12, 1.0), (60, 2.5), (200, 0.3)]):
        for threshold in (0.02, 0.1, 0.3, 0.5):
            sampler = llama_cpp.llama_sampler_init_xtc(1.0, threshold, 0, 7)
            options = {"xtc_probability": 1.0, "xtc_threshold": threshold}
            yield case(seed, size, spread, options, sampler)
        for n in (0.5, 1.0, 1.7):
            yield case(seed, size, spread, {"top_n_sigma": n}, llama_cpp.llama_sampler_init_top_n_sigma(n))
        for temperature, reach, exponent in ((0.8, 0.5, 1.0), (1.0, 2.0, 0.5), (0.0, 0.7, 2.0)):
            sampler = llama_cpp.llama_sampler_init_temp_ext(temperature, reach, exponent)
            options = {"temperature": temperature, "dynatemp_range": reach, "dynatemp_exponent": exponent}
            yield case(seed, size, spread, options, sampler)


def case(seed: int, size: int, spread: float, options: dict[str, float], sampler: Any) -> dict[str, Any]:
    left = Row(logits_of(seed, size, spread)).apply(sampler).left()
    return {"logits": [seed, size, spread], "options": options, "left": left}


def chains() -> Iterator[dict[str, Any]]:
    """Several samplers in the order of llama-server."""
    for seed in range(8):
        random = np.random.default_rng(100 + seed)
        o = {
            "top_n_sigma": float(random.choice([-1.0, 1.2, 2.0])),
            "top_k": int(random.choice([0, 8, 40])),
            "typical_p": float(random.choice([1.0, 0.8])),
            "top_p": float(random.choice([1.0, 0.9])),
            "min_p": float(random.choice([0.0, 0.05])),
            "xtc_probability": 1.0,
            "xtc_threshold": float(random.choice([0.05, 0.12])),
            "temperature": 0.9,
            "dynatemp_range": float(random.choice([0.0, 0.6])),
        }
        if o["top_n_sigma"] > 0 and o["typical_p"] < 1:
            o["typical_p"] = 1.0  # llama.cpp's entropy is no number where a logit is minus infinity
        row = Row(logits_of(seed, 120, 2.0))
        for sampler in (
            llama_cpp.llama_sampler_init_top_n_sigma(o["top_n_sigma"]),
            llama_cpp.llama_sampler_init_top_k(o["top_k"]),
            llama_cpp.llama_sampler_init_typical(o["typical_p"], 0),
            llama_cpp.llama_sampler_init_top_p(o["top_p"], 0),
            llama_cpp.llama_sampler_init_min_p(o["min_p"], 0),
            llama_cpp.llama_sampler_init_xtc(1.0, o["xtc_threshold"], 0, 7),
            llama_cpp.llama_sampler_init_temp_ext(o["temperature"], o["dynatemp_range"], 1.0),
        ):
            row.apply(sampler)
        yield {"logits": [seed, 120, 2.0], "options": o, "left": row.left()}


def dry(vocab: Any) -> Iterator[dict[str, Any]]:
    """Histories of few tokens, so that they repeat; penalties of llama.cpp, as what is taken from a logit of 0."""
    colon = tokens_of(vocab, ":")[-1]
    for seed in range(24):
        random = np.random.default_rng(seed)
        history = random.integers(300, 303 + seed // 5, 90).tolist()
        if seed % 4 >= 2:
            history = random.integers(300, 304, 12).tolist() * 8
        if seed % 3 == 0:
            history[-int(random.integers(2, 9))] = colon
        text = ["\n", ":", '"', "*"] if seed % 2 else [":", "ing the", "s"]
        if seed % 6 == 2:
            spot = int(random.integers(3, 12))
            broken = tokens_of(vocab, "running the")
            history[-spot - len(broken) : -spot] = broken
        o = {
            "dry_multiplier": float(random.choice([0.8, 3.0])),
            "dry_base": float(random.choice([1.75, 1.1, 1.0, 4.0])),
            "dry_allowed_length": int(random.choice([0, 1, 2, 4])),
            "dry_penalty_last_n": int(random.choice([16, 64, 1000])),
            "dry_sequence_breakers": text,
        }
        raw = (ctypes.c_char_p * len(text))(*(breaker.encode() for breaker in text))
        sampler = llama_cpp.llama_sampler_init_dry(
            vocab, o["dry_multiplier"], o["dry_base"], o["dry_allowed_length"], o["dry_penalty_last_n"], raw, len(text)
        )
        for token in history:
            llama_cpp.llama_sampler_accept(sampler, token)
        n = llama_cpp.llama_vocab_n_tokens(vocab)
        left = Row(np.zeros(n, np.float32)).apply(sampler).left()
        yield {"history": history, "options": o, "left": [[token, logit] for token, logit in left if logit]}


def tokens_of(vocab: Any, text: str) -> list[int]:
    room = (llama_cpp.llama_token * 64)()
    count = llama_cpp.llama_tokenize(vocab, text.encode(), len(text.encode()), room, 64, False, False)
    return list(room[:count])


def mirostat() -> Iterator[dict[str, Any]]:
    """Ten tokens one after the other: how many candidates were left each time, and which was drawn."""
    for version in (1, 2):
        for seed, (tau, eta) in enumerate([(5.0, 0.1), (2.0, 0.5), (1.0, 1.0)]):
            sampler = (
                llama_cpp.llama_sampler_init_mirostat(400, 11, tau, eta, 100)
                if version == 1
                else llama_cpp.llama_sampler_init_mirostat_v2(11, tau, eta)
            )
            steps = []
            for step in range(10):
                row = Row(logits_of(1000 * seed + step, 400, 2.0)).apply(sampler)
                steps.append([row.array.size, row.selected()])
            options = {"mirostat": version, "mirostat_tau": tau, "mirostat_eta": eta}
            yield {"options": options, "logits": [1000 * seed, 400, 2.0], "steps": steps}


if __name__ == "__main__":
    model = llama_cpp.Llama(str(DEMO), vocab_only=True, verbose=False)
    found = {
        "plain": [*plain()],
        "chains": [*chains()],
        "dry": [*dry(llama_cpp.llama_model_get_vocab(model.model))],
        "mirostat": [*mirostat()],
    }
    lines = (f'"{name}": [\n' + ",\n".join(json.dumps(entry) for entry in cases) + "\n]" for name, cases in found.items())
    (HERE / "sampling.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
