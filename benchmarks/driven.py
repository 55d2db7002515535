"""A model on the card, driven by hand, and what its tokens read from where."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from runtime.core import Batch
from runtime.execute import hybrid
from runtime.execute.experts import Residence
from runtime.frames import Load
from runtime.kernels import compile as kernel_compile
from runtime.kernels import cores
from runtime.kernels.leaves import Leaves
from runtime.measure import gpu, memory
from runtime.measure.stage import Stage

ROUNDS = 3
TOKENS = 48  # decoded for one figure
AT = 128  # tokens of the text before them
TEXT = 4352  # tokens of a context
MEASURED = {
    **{"dram": "read", "pcie": "to_card", "vram": "memory_read"},
    **{"dram_beside_pcie": "read_beside_copies", "pcie_beside_dram": "to_card_beside_reads"},
}
"""What a run says of the machine's pipes, and what runtime.measure.gpu calls it."""
ASKED = {"num_ctx": TEXT, "num_parallel": 1, "num_batch": 4096}  # of every load
READ = 2 << 30  # bytes of the buffer that memory's speed is measured with


@dataclasses.dataclass(frozen=True)
class Decoded:
    """Some tokens of a text. `hit_rate`: None where no experts move, so that none are counted; `moved`: bytes of experts that
    came to the card, a token; `at`: tokens before them."""

    tokens_a_second: float
    hit_rate: float | None = None
    moved: float = 0.0
    at: int = AT


class Model:
    """One loaded model. `options`: fields of frames.Load, and those of hybrid.load."""

    def __init__(self, path: Path, **options: Any) -> None:
        resident, over_pcie = options.pop("resident", None), options.pop("over_pcie", 0.0)
        request = Load(str(path), **ASKED | options)
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
        return self.decoded(tokens, at).tokens_a_second

    def decoded(self, tokens: int = TOKENS, at: int = AT, before: Callable[[], None] = lambda: None) -> Decoded:
        """So many tokens, one after the other; `before` comes before each."""
        cache = self.executor._cache
        start, hits, lookups, moved = time.perf_counter(), cache.hits, cache.lookups, cache.moved_bytes
        for position in range(at, at + tokens):
            before()
            self.feed(1, position)
        seconds, lookups = time.perf_counter() - start, cache.lookups - lookups
        hit_rate = (cache.hits - hits) / lookups if lookups else None
        return Decoded(tokens / seconds, hit_rate, (cache.moved_bytes - moved) / tokens, at)

    @contextlib.contextmanager
    def standing(self) -> Iterator[None]:
        """Experts stay where they are."""
        cache = self.executor._cache

        def stay() -> None:
            cache._looked = False

        with torch.inference_mode(), torch.cuda.stream(self.executor._stream):
            cache.settle()
        cache._begin_moves = stay  # type: ignore[method-assign]
        try:
            yield
        finally:
            del cache._begin_moves

    def prefill(self, tokens: int) -> float:
        """Tokens a second of a prompt, until its last row's logits are there."""
        start, most = time.perf_counter(), self.executor.max_rows
        for first in range(0, tokens, most):
            self.feed(min(most, tokens - first), first)
        return tokens / (time.perf_counter() - start)

    def users(self, n: int) -> float:
        """All tokens a second of n texts, each of which begins by itself: behind the rows of an earlier prompt all of them would
        ask for much the same experts."""
        for position in range(4):
            self.feed(0, position, n)
        start = time.perf_counter()
        for position in range(4, 4 + TOKENS // 2):
            self.feed(0, position, n)
        return n * (TOKENS // 2) / (time.perf_counter() - start)


def in_turns(measures: dict[str, Callable[[], float]], rounds: int = ROUNDS) -> dict[str, float]:
    """The median of each, one after the other in every round."""
    found = defaultdict(list)
    for _ in range(rounds):
        for name, measure in measures.items():
            found[name].append(measure())
    return {name: round(statistics.median(values), 1) for name, values in found.items()}


def with_model(path: Path, measure: Callable[[Model], dict[str, float]], **options: Any) -> dict[str, float]:
    """What `measure` finds with a model that is loaded for it alone."""
    model = Model(path, **options)
    print(model.executor.placement, flush=True)
    try:
        return measure(model)
    finally:
        model.executor.close()
        gc.collect()  # what others have hooked into it may refer to itself
        torch.cuda.empty_cache()


def vram_used() -> int:
    """Bytes of the card that are taken, by whomever: what torch keeps of a model's peak, its cache, its kernels."""
    free, total = torch.cuda.mem_get_info()
    return int(total - free)


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Bytes of weights that a token reads: of experts from RAM, and of everything that lies in VRAM."""

    ram: float
    vram: float


def traffic(executor: hybrid.HybridExecutor, hit_rate: float | None = None, text: int = AT) -> Traffic:
    """Of one token after `text` others. `hit_rate`: how often the experts of layers that are not whole in VRAM were found there
    (random weights, too, prefer some); None: as many as lie there."""
    model, weights = executor._model, executor._weights
    config, residences = model.config, executor._ops.residences.values()
    stacked = {tensor.name: (tensor.nbytes, r) for r in residences for tensor in r.layer.tensors}
    used = config.expert_used_count / max(1, config.expert_count)

    def rate(residence: Residence) -> float:
        return residence.slots / residence.layer.experts if hit_rate is None or residence.complete else hit_rate

    hits = sum(used * nbytes * rate(residence) for nbytes, residence in stacked.values())
    table = model.token_embd.weight.name
    dense = sum(t.nbytes for t in weights if t.name not in stacked and (t.name != table or t.name == model.output.weight.name))
    kept = 2 * config.block_count * config.head_count_kv * (config.key_length + config.value_length)
    return Traffic(sum(used * nbytes for nbytes, _ in stacked.values()) - hits, dense + hits + kept * text)


def bandwidths() -> dict[str, float]:
    """GB/s of memory, bus and card, each alone, and of memory and bus at the same time."""
    leaves = Leaves()
    kernel_compile.ahead(leaves, [], lambda *_: None, (*kernel_compile.DRIVER_MODULES, "probes"), set())
    stage, buffer = Stage(leaves, cores.physical()), memory.filled(READ)
    try:
        found = gpu.measure(stage, buffer)
        found["read"] = memory.read_speed(stage, buffer)
    finally:
        stage.close()
    torch.cuda.empty_cache()
    return {f"{name}_gb_s": round(found[key] / 1e9, 1) for name, key in MEASURED.items()}


def share(model: Model, decoded: Decoded, rates: dict[str, float]) -> float:
    """A decode speed over what memory, with the bus where the card reads experts over it, and VRAM allow."""
    both = rates["dram_beside_pcie_gb_s"] + rates["pcie_beside_dram_gb_s"]
    pipes = max(rates["dram_gb_s"], both) if model.executor._ops.over_pcie else rates["dram_gb_s"]
    bytes_read = traffic(model.executor, decoded.hit_rate, decoded.at)
    return round(decoded.tokens_a_second * (bytes_read.ram / pipes + bytes_read.vram / rates["vram_gb_s"]) / 1e9, 3)
