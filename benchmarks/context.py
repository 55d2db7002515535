"""Speed deep in a text: decode and prefill behind 8k and 32k tokens, in turns with llama-bench on the same file and threads.

    python benchmarks/context.py [MODEL.gguf] --llama FOLDER [--depths 8192 32768] [--threads 2] [--kind q8_0] [--rounds 3]

Without MODEL one layer is written whose attention is that of a model with 16 heads of 128 values in groups of 4, and all else of
it small: then attention is what is measured. `--prompt` tokens are read, and `--tokens` written one by one, behind so many
others; both sides have read those before. `--flash`: llama-bench's -fa. `--kind`: of keys and values, on both sides.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from generate import show
from machine import heading
from random_gguf import Shape, write

from runtime.core import BLOCK_TOKENS, Batch
from runtime.execute.cpu import CpuExecutor, load

ATTENTION = Shape(1, 1024, 16, 4, 128, 8, 1, 256, vocabulary=4096)


class Ours:
    """Our executor with a text in its cache."""

    def __init__(self, arguments: argparse.Namespace, path: Path, depth: int) -> None:
        longest = depth + arguments.prompt + arguments.tokens
        self.executor: CpuExecutor = load(
            path,
            num_ctx=longest,
            num_parallel=1,
            num_batch=512,
            num_thread=arguments.threads,
            kv_cache_type=arguments.kind,
            progress=lambda phase, done, total: None,
        )
        self._depth = depth
        self._table = np.arange(-(-longest // BLOCK_TOKENS), dtype=np.int32)[None]
        self._rng = np.random.default_rng(0)
        for start in range(0, depth, 512):
            self._step(start, min(512, depth - start))

    def _step(self, start: int, count: int) -> None:
        tokens = self._rng.integers(0, self.executor.n_vocab, count).astype(np.int32)
        positions = np.arange(start, start + count, dtype=np.int32)
        batch = Batch(tokens, positions, np.zeros(count, np.int32), self._table, np.array([count - 1], np.int32))
        self.executor.forward(batch).argmax()

    def prefill(self, count: int) -> float:
        """Tokens a second of a prompt that follows the text."""
        begin = time.perf_counter()
        for start in range(0, count, 512):
            self._step(self._depth + start, min(512, count - start))
        return count / (time.perf_counter() - begin)

    def decode(self, count: int) -> float:
        """Tokens a second, one at a time, behind the text."""
        begin = time.perf_counter()
        for i in range(count):
            self._step(self._depth + i, 1)
        return count / (time.perf_counter() - begin)


def llama_bench(arguments: argparse.Namespace, path: Path, depth: int) -> tuple[float, float]:
    """Prefill and decode of one run of llama-bench."""
    command = [arguments.llama / "llama-bench", "-m", path, "-t", arguments.threads, "-d", depth]
    command += ["-p", arguments.prompt, "-n", arguments.tokens, "-fa", arguments.flash, "-r", 1, "-ngl", 0]
    command += ["-ctk", arguments.kind, "-ctv", arguments.kind]
    out = subprocess.run([*map(str, command), "-o", "json"], check=True, capture_output=True, text=True).stdout
    speeds = {bool(entry["n_gen"]): float(entry["avg_ts"]) for entry in json.loads(out)}
    return speeds[False], speeds[True]


def measure(arguments: argparse.Namespace, path: Path, depth: int) -> None:
    ours = Ours(arguments, path, depth)
    mine: tuple[list[float], list[float]] = ([], [])
    peer: tuple[list[float], list[float]] = ([], [])
    for number in range(arguments.rounds):
        for turn in (0, 1) if number % 2 == 0 else (1, 0):
            if turn == 0:
                mine[0].append(ours.prefill(arguments.prompt))
                mine[1].append(ours.decode(arguments.tokens))
            elif arguments.llama:
                for speeds, speed in zip(peer, llama_bench(arguments, path, depth), strict=True):
                    speeds.append(speed)
    ours.executor.close()
    print(f"{path.name}, behind {depth} tokens, {arguments.threads} thread(s), keys and values in {arguments.kind}:")
    for name, left, right in zip(("prefill", "decode"), mine, peer, strict=True):
        show(name, left, right)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--llama", type=Path, help="folder of llama-bench")
    parser.add_argument("--depths", type=int, nargs="+", default=[8192, 32768])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kind", default="f16")
    parser.add_argument("--flash", type=int, default=1)
    arguments = parser.parse_args()
    print(heading(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.model or write(ATTENTION, Path(folder) / "attention.gguf")
        for depth in arguments.depths:
            measure(arguments, path, depth)


if __name__ == "__main__":
    sys.exit(main())
