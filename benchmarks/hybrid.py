"""Measures the hybrid executor on a machine with an NVIDIA GPU: `python benchmarks/hybrid.py STEP [STEP ...] --json FILE`.

Steps: `decode` (experts in RAM, with a share over PCIe, half of them in VRAM, all in VRAM), `prefill`, `users`, `moe67b`
(a 67B-class model on cards of 24, 12 and 8 GiB), `breakdown`. Each writes its model into --folder where it is not there, and
adds its figures to FILE. Figures are medians of repetitions in turns; DRAM and PCIe are measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from random_gguf import SHAPES, write

from runtime.core import Batch
from runtime.execute import hybrid
from runtime.frames import Load

ROUNDS = 3
TOKENS = 48  # decoded for one figure
AT = 128  # tokens of the text before them
TEXT = 4352  # tokens of a context
GIB = 1 << 30


class Model:
    """A model on the card, driven by hand."""

    def __init__(self, path: Path, **options: Any) -> None:
        resident, over_pcie = options.pop("resident", None), options.pop("over_pcie", 0.0)
        request = Load(str(path), num_ctx=TEXT, num_parallel=1, num_batch=4096, **options)
        executor = hybrid.load(request, lambda *_: None, resident=resident, over_pcie=over_pcie)
        if executor is None:
            raise SystemExit("the card cannot be used")
        self.executor = executor
        self.rng = np.random.default_rng(0)
        self.prefill(AT + 72)
        self.decode(8)

    def feed(self, tokens: int, start: int, sequences: int = 1) -> None:
        """One step: so many tokens of one text, or one of each of several."""
        n = max(tokens, sequences)
        blocks = -(-TEXT // 64) if sequences == 1 else 4
        tables = np.arange(1, 1 + sequences * blocks, dtype=np.int32).reshape(sequences, blocks)
        rows = np.arange(n, dtype=np.int32)
        positions = start + rows if sequences == 1 else np.full(n, start, np.int32)
        of = np.zeros(n, np.int32) if sequences == 1 else rows
        outputs = rows[-1:] if sequences == 1 else rows
        tokens_in = self.rng.integers(0, self.executor.n_vocab, n).astype(np.int32)
        self.executor.forward(Batch(tokens_in, positions, of, tables, outputs))

    def decode(self, tokens: int = TOKENS, at: int = AT) -> float:
        """Tokens a second."""
        start = time.perf_counter()
        for position in range(at, at + tokens):
            self.feed(1, position)
        return tokens / (time.perf_counter() - start)

    def prefill(self, tokens: int) -> float:
        start = time.perf_counter()
        self.feed(tokens, 0)
        return tokens / (time.perf_counter() - start)

    def users(self, n: int) -> float:
        """All tokens a second of n texts."""
        self.feed(0, 3, n)
        start = time.perf_counter()
        for position in range(4, 4 + TOKENS // 2):
            self.feed(0, position, n)
        return n * (TOKENS // 2) / (time.perf_counter() - start)


def in_turns(measures: dict[str, Callable[[], float]]) -> dict[str, float]:
    found = defaultdict(list)
    for _ in range(ROUNDS):
        for name, measure in measures.items():
            found[name].append(measure())
    return {name: round(statistics.median(values), 1) for name, values in found.items()}


def with_model(path: Path, measure: Callable[[Model], dict[str, float]], **options: Any) -> dict[str, float]:
    model = Model(path, **options)
    print(model.executor.placement, flush=True)
    try:
        return measure(model)
    finally:
        model.executor.close()


def decode(path: Path) -> dict[str, float]:
    def one(name: str) -> Callable[[Model], dict[str, float]]:
        return lambda model: in_turns({name: model.decode})

    experts = SHAPES["qwen3-30b-a3b"].experts
    return {
        **with_model(path, one("decode_ram"), resident=0),
        **with_model(path, one("decode_ram_pcie"), resident=0, over_pcie=None),
        **with_model(path, one("decode_half"), resident=experts // 2),
        **with_model(path, one("decode_vram")),
    }


def prefill(path: Path) -> dict[str, float]:
    def ram(model: Model) -> dict[str, float]:
        return in_turns({f"prefill_{n}": lambda n=n: model.prefill(n) for n in (512, 2048, 4096)})

    def vram(model: Model) -> dict[str, float]:
        return in_turns({"prefill_vram": lambda: model.prefill(2048)})

    return {**with_model(path, ram, resident=0), **with_model(path, vram)}


def users(path: Path) -> dict[str, float]:
    return with_model(path, lambda m: in_turns({f"decode_{n}_users": lambda n=n: m.users(n) for n in (4, 16)}), resident=0)


def moe67b(path: Path) -> dict[str, float]:
    def measure(model: Model, card: int) -> dict[str, float]:
        torch.cuda.reset_peak_memory_stats()
        figures = {f"moe67b_{card}g": model.decode, f"moe67b_{card}g_prefill_2048": lambda: model.prefill(2048)}
        return in_turns(figures) | {f"moe67b_{card}g_peak_gib": round(torch.cuda.max_memory_reserved() / GIB, 2)}

    found: dict[str, float] = {}
    for card in (24, 12, 8):
        found |= with_model(path, lambda model, card=card: measure(model, card), vram=card * GIB)
    return found


def breakdown(path: Path) -> dict[str, float]:
    """Microseconds a token by kernel, experts in RAM."""
    from torch.profiler import ProfilerActivity, profile

    def measure(model: Model) -> dict[str, float]:
        with profile(activities=[ProfilerActivity.CUDA]) as recorded:
            model.decode(4)
        total: dict[str, float] = defaultdict(float)
        for event in recorded.events():
            total[event.name.split("(")[0]] += event.device_time / 4
        return {f"us_{name}": round(value, 1) for name, value in sorted(total.items(), key=lambda item: -item[1]) if value > 5}

    return with_model(path, measure, resident=0)


def bandwidths() -> dict[str, float]:
    """GB/s of plain copies over PCIe."""
    host, card = torch.empty(1 << 30, dtype=torch.uint8, pin_memory=True), torch.empty(1 << 30, dtype=torch.uint8, device="cuda")

    def speed() -> float:
        torch.cuda.synchronize()
        start = time.perf_counter()
        card.copy_(host, non_blocking=True)
        torch.cuda.synchronize()
        return (1 << 30) / (time.perf_counter() - start) / 1e9

    return {"pcie_to_card_gb_s": round(max(speed() for _ in range(5)), 1)}


def machine() -> dict[str, str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return {"gpu": torch.cuda.get_device_name(0), "cpu": cpu, "torch": torch.__version__}


def commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


STEPS = {"decode": decode, "prefill": prefill, "users": users, "moe67b": moe67b, "breakdown": breakdown}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("steps", nargs="+", choices=STEPS)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("/tmp"))
    parser.add_argument("--clean", action="store_true", help="remove the models afterwards")
    parser.add_argument("--commit", default=commit())
    arguments = parser.parse_args()
    report = json.loads(arguments.json.read_text()) if arguments.json and arguments.json.exists() else {"figures": {}}
    report |= {"commit": arguments.commit, "machine": machine(), "command": " ".join(["python", *sys.argv])}
    report["figures"] |= bandwidths()
    for step in arguments.steps:
        shape = "moe-67b" if step == "moe67b" else "qwen3-30b-a3b"
        path = arguments.folder / f"{shape}.gguf"
        if not path.exists():
            write(SHAPES[shape], path)
        found = STEPS[step](path)
        print(step, json.dumps(found), flush=True)
        report["figures"] |= found
        if arguments.json:
            arguments.json.write_text(json.dumps(report, indent=1) + "\n")
        if arguments.clean:
            path.unlink()


if __name__ == "__main__":
    main()
