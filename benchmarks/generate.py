"""Prefill and decode speed on the CPU, in turns with llama.cpp on the same file.

    python benchmarks/generate.py MODEL.gguf --llama FOLDER [--threads 1 2] [--prompt 512] [--tokens 64] [--batch 4 16]

Each round runs one measurement of ours and one `llama-bench` run (of the build in FOLDER; without it ours alone), alternating
which goes first; medians, spread and the ratio of the medians are printed. Both sides measure the forward pass alone: no
tokenizer, no sampling beyond the argmax. `--batch`: so many texts at once, a token each a step, beside `llama-batched-bench`.

The limit of decode is what a read loop gets from memory in the same run, divided by the bytes of weights that a token reads.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bandwidth import read_speeds

from runtime.core import BLOCK_TOKENS, Batch
from runtime.execute.cpu import CpuExecutor, load
from runtime.gguf_file import open_gguf


class Ours:
    """Our executor, kept loaded between rounds (its threads sleep while llama.cpp runs)."""

    def __init__(self, path: Path, threads: int, tokens: int, texts: int = 1) -> None:
        self.executor: CpuExecutor = load(
            path,
            num_ctx=tokens + BLOCK_TOKENS,
            num_parallel=texts,
            num_batch=512,
            num_thread=threads,
            kv_cache_type="f16",
            progress=lambda phase, done, total: None,
        )
        blocks = -(-tokens // BLOCK_TOKENS) + 1
        self._tables = np.arange(texts * blocks, dtype=np.int32).reshape(texts, blocks)
        self._rng = np.random.default_rng(0)

    def _forward(self, start: int, count: int) -> np.ndarray:
        tokens = self._rng.integers(0, self.executor.n_vocab, count).astype(np.int32)
        positions = np.arange(start, start + count, dtype=np.int32)
        zeros = np.zeros(count, np.int32)
        return self.executor.forward(Batch(tokens, positions, zeros, self._tables[:1], np.array([count - 1], np.int32)))

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

    def decode_batch(self, texts: int, count: int) -> float:
        """Tokens a second of several texts together, from empty caches."""
        numbers = np.arange(texts, dtype=np.int32)
        begin = time.perf_counter()
        for position in range(count):
            tokens = self._rng.integers(0, self.executor.n_vocab, texts).astype(np.int32)
            positions = np.full(texts, position, np.int32)
            self.executor.forward(Batch(tokens, positions, numbers, self._tables[:texts], numbers)).argmax(axis=1)
        return texts * count / (time.perf_counter() - begin)


def weight_bytes(path: Path) -> int:
    """Bytes of weights that one token reads: of the experts only those chosen, of a table that only embeds nothing."""
    with open_gguf(path) as file:
        architecture = file.metadata["general.architecture"]
        used, experts = (int(file.metadata.get(f"{architecture}.expert_{name}", 1)) for name in ("used_count", "count"))
        total = 0
        for info in file.tensors.values():
            if info.name != "token_embd.weight" or "output.weight" not in file.tensors:
                total += info.nbytes * used // experts if len(info.shape) == 3 else info.nbytes
        return total


def llama_batched_bench(binary: Path, path: Path, threads: int, texts: Sequence[int], tokens: int) -> dict[int, float]:
    """Decode tokens a second of all texts together, by their number."""
    counts = ",".join(map(str, texts))
    context = max(texts) * (tokens + 64)
    command = [binary, "-m", path, "-t", threads, "-tb", threads, "-c", context, "-npp", 1, "-ntg", tokens, "-npl", counts]
    out = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout
    rows = [line.split("|")[1:-1] for line in out.splitlines() if line.startswith("|") and line.split("|")[1].strip().isdigit()]
    return {int(row[2]): float(row[7]) for row in rows}


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
    ours = Ours(arguments.model, threads, max(arguments.prompt, arguments.tokens), max(arguments.batch, default=1))
    ours.prefill(64), ours.decode(4)  # touch the weights
    results: dict[str, tuple[list[float], list[float]]] = {"prefill": ([], []), "decode": ([], [])}

    def we() -> None:
        results["prefill"][0].append(ours.prefill(arguments.prompt))
        results["decode"][0].append(ours.decode(arguments.tokens))

    def they() -> None:
        if arguments.llama:
            speeds = llama_bench(arguments.llama / "llama-bench", arguments.model, threads, arguments.prompt, arguments.tokens)
            results["prefill"][1].append(speeds[0])
            results["decode"][1].append(speeds[1])

    turns: list[Callable[[], None]] = [we, they]
    for round_number in range(arguments.rounds):
        for turn in turns if round_number % 2 == 0 else reversed(turns):
            turn()
    batches = measure_batches(ours, arguments, threads) if arguments.batch else {}
    ours.executor.close()
    print(f"{arguments.model.name}, {threads} thread(s), prompt {arguments.prompt}, {arguments.tokens} tokens:")
    for name, (mine, peer) in results.items():
        show(name, mine, peer)
    read, needed = read_speeds([threads])[threads], weight_bytes(arguments.model)
    share = statistics.median(results["decode"][0]) * needed / read / 1e9
    print(f"  {needed / 1e6:.0f} MB a token, a read loop gets {read:.1f} GB/s: decode has {share:.2f} of that limit", flush=True)
    for texts, (mine, peer) in batches.items():
        show(f"{texts} texts", mine, peer)


def measure_batches(ours: Ours, arguments: argparse.Namespace, threads: int) -> dict[int, tuple[list[float], list[float]]]:
    """Tokens a second by the number of texts, ours and llama.cpp's."""
    results: dict[int, tuple[list[float], list[float]]] = {texts: ([], []) for texts in arguments.batch}
    for _ in range(arguments.rounds):
        for texts, (mine, _) in results.items():
            mine.append(ours.decode_batch(texts, arguments.tokens))
        if arguments.llama:
            binary = arguments.llama / "llama-batched-bench"
            for texts, speed in llama_batched_bench(binary, arguments.model, threads, arguments.batch, arguments.tokens).items():
                results[texts][1].append(speed)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--llama", type=Path, help="folder of llama-bench and llama-batched-bench")
    parser.add_argument("--batch", type=int, nargs="*", default=[])
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
