"""Prefill and decode speed on the CPU, in turns with llama.cpp on the same file.

    python benchmarks/generate.py MODEL.gguf --llama-bench PATH [--threads 1 2] [--prompt 512] [--tokens 64] [--rounds 5]

Each round runs one measurement of ours and one `llama-bench` run, alternating which goes first; medians, spread and the ratio
of the medians are printed. Both sides measure the forward pass alone: no tokenizer, no sampling beyond the argmax.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from runtime.core import BLOCK_TOKENS, Batch
from runtime.execute.cpu import CpuExecutor, load


class Ours:
    """Our executor, kept loaded between rounds (its threads sleep while llama.cpp runs)."""

    def __init__(self, path: Path, threads: int, tokens: int) -> None:
        self.executor: CpuExecutor = load(
            path,
            num_ctx=tokens + BLOCK_TOKENS,
            num_parallel=1,
            num_batch=512,
            num_thread=threads,
            kv_cache_type="f16",
            progress=lambda phase, done, total: None,
        )
        blocks = -(-tokens // BLOCK_TOKENS) + 1
        self._table = np.arange(blocks, dtype=np.int32)[None, :]
        self._rng = np.random.default_rng(0)

    def _forward(self, start: int, count: int) -> np.ndarray:
        tokens = self._rng.integers(0, self.executor.n_vocab, count).astype(np.int32)
        positions = np.arange(start, start + count, dtype=np.int32)
        zeros = np.zeros(count, np.int32)
        return self.executor.forward(Batch(tokens, positions, zeros, self._table, np.array([count - 1], np.int32)))

    def prefill(self, count: int) -> float:
        """Tokens a second of one prompt from an empty cache."""
        begin = time.perf_counter()
        for start in range(0, count, self.executor.max_rows):
            self._forward(start, min(self.executor.max_rows, count - start))
        return count / (time.perf_counter() - begin)

    def decode(self, count: int) -> float:
        """Tokens a second, one at a time, from an empty cache."""
        begin = time.perf_counter()
        for position in range(count):
            self._forward(position, 1).argmax()
        return count / (time.perf_counter() - begin)


def llama_bench(binary: Path, path: Path, threads: int, prompt: int, tokens: int) -> tuple[float, float]:
    """Prefill and decode tokens a second of one llama-bench run."""
    command = [binary, "-m", path, "-t", threads, "-p", prompt, "-n", tokens, "-r", 1, "-ngl", 0, "-o", "json"]
    out = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout
    results = {bool(entry["n_gen"]): entry["avg_ts"] for entry in json.loads(out)}
    return results[False], results[True]


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            flags = Path("/proc/cpuinfo").read_text()
            return f"{line.split(':')[1].strip()} ({'AVX-512 VNNI' if 'avx512_vnni' in flags else 'no AVX-512 VNNI'})"
    return platform.processor()


def show(name: str, ours: list[float], theirs: list[float]) -> None:
    def text(values: list[float]) -> str:
        return f"{statistics.median(values):8.1f} ({min(values):.1f}-{max(values):.1f})" if values else "-"

    ratio = f"{statistics.median(ours) / statistics.median(theirs):.2f}x" if theirs else ""
    print(f"  {name:10} ours {text(ours):28} llama.cpp {text(theirs):28} {ratio}", flush=True)


def measure(arguments: argparse.Namespace, threads: int) -> None:
    ours = Ours(arguments.model, threads, max(arguments.prompt, arguments.tokens))
    ours.prefill(64), ours.decode(4)  # touch the weights
    results: dict[str, tuple[list[float], list[float]]] = {"prefill": ([], []), "decode": ([], [])}

    def we() -> None:
        results["prefill"][0].append(ours.prefill(arguments.prompt))
        results["decode"][0].append(ours.decode(arguments.tokens))

    def they() -> None:
        if arguments.llama_bench:
            speeds = llama_bench(arguments.llama_bench, arguments.model, threads, arguments.prompt, arguments.tokens)
            results["prefill"][1].append(speeds[0])
            results["decode"][1].append(speeds[1])

    turns: list[Callable[[], None]] = [we, they]
    for round_number in range(arguments.rounds):
        for turn in turns if round_number % 2 == 0 else reversed(turns):
            turn()
    ours.executor.close()
    print(f"{arguments.model.name}, {threads} thread(s), prompt {arguments.prompt}, {arguments.tokens} tokens:")
    for name, (mine, peer) in results.items():
        show(name, mine, peer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--llama-bench", type=Path)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print(f"{cpu_name()}\n{' '.join(sys.argv)}", flush=True)
    for threads in arguments.threads:
        measure(arguments, threads)


if __name__ == "__main__":
    main()
