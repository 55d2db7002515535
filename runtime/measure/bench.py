"""The job `bench`: how fast a model reads and writes, what share of the machine's limit that is, and where the time goes."""

from __future__ import annotations

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from runtime.core import Executor, FloatArray, ModelError
from runtime.execute import cards
from runtime.execute.placement import wants_gpu
from runtime.frames import Sampling
from runtime.kernels import jit
from runtime.measure.batches import Texts
from runtime.measure.on_cpu import OnCpu
from runtime.measure.others import Others
from runtime.measure.subject import PART_STEPS, Subject, Wanted, options
from runtime.sampling import Sampler
from runtime.weights import Progress

SMALLEST_CONTEXT = 128


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """One line of the table. `n_prompt` tokens are read, or `n_gen` written by each of `n_batch` texts after `n_depth` others."""

    n_prompt: int
    n_gen: int
    n_depth: int
    n_seq: int

    @property
    def length(self) -> int:
        """Tokens of one text."""
        return self.n_prompt + self.n_gen + self.n_depth


def bench(arguments: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Arguments: path, prompts, gens, depths, batches (lists of numbers), repetitions, threads (list, 0: as the server would);
    and those of `subject.options`."""
    tests = plan(arguments["prompts"], arguments["gens"], arguments["depths"], arguments["batches"])
    widest = max((test.n_seq for test in tests), default=1)
    longest = max(SMALLEST_CONTEXT, *(test.length for test in tests))
    told, path = options(arguments), arguments["path"]
    card = wants_gpu(told["num_gpu"], False, Path(path).stat().st_size)
    results, gpu = [], cards.keep_to(None).number if card else 0
    for threads in arguments["threads"]:
        wanted = Wanted(path, longest, widest, threads, main_gpu=gpu, **told)
        results.append(_Run(wanted, tests, arguments["repetitions"], progress).results(card=card))
    return {"isa": jit.TIER.name, "runs": results}


def plan(prompts: Sequence[int], gens: Sequence[int], depths: Sequence[int], batches: Sequence[int]) -> list[Case]:
    """The tests that the lists ask for: every prompt, and every answer at every depth with every number of texts."""
    reading = [Case(n, 0, 0, 1) for n in prompts if n > 0]
    return reading + [Case(0, n, depth, seqs) for n in gens if n > 0 for depth in depths for seqs in batches]


def opened(wanted: Wanted, progress: Progress, *, card: bool) -> Subject:
    """On a card, where a server would use one and the model runs there, else on the CPU."""
    if card:
        from runtime.measure import on_card  # torch takes seconds to import

        found = on_card.load(wanted, progress)
        if found is not None:
            return found
    return OnCpu(wanted, progress)


class _Run:
    """A model on some threads."""

    def __init__(self, wanted: Wanted, tests: list[Case], repetitions: int, progress: Progress) -> None:
        self._wanted, self._tests = wanted, tests
        self._repetitions, self._progress = repetitions, progress

    def results(self, *, card: bool) -> dict[str, Any]:
        """The executor is there only as long as this takes."""
        begin = time.perf_counter()
        subject = opened(self._wanted, self._progress, card=card)
        try:
            return {"load_seconds": time.perf_counter() - begin} | self._measured(subject)
        finally:
            subject.executor.close()

    def _measured(self, subject: Subject) -> dict[str, Any]:
        executor, longest = subject.executor, max(test.length for test in self._tests) if self._tests else 0
        if longest > executor.n_ctx_train:
            raise ModelError(f"{longest} tokens are longer than this model's context of {executor.n_ctx_train}")
        rates, limits, others = [], [], Others()
        for number, test in enumerate(self._tests):
            self._progress(_phase(test), number, len(self._tests))
            rate = self._rate(executor, test)
            limits.append(subject.limit())  # beside each: a host changes what a virtual machine has from second to second
            rates.append(rate | {"read_bytes_per_second": limits[-1].ram, "limit_seconds": limits[-1].seconds})
        busy = others.cores()
        self._progress("measuring the parts of a token", 0, 1)
        limit = sorted(limits or [subject.limit()], key=lambda beside: beside.seconds)[len(limits) // 2]
        return {
            "backend": subject.backend,
            "placement": executor.placement,
            "n_threads": subject.threads,
            "kv_cache_type": self._wanted.kv_cache_type,
            "bytes_per_token": subject.bytes_per_token,
            "read_bytes_per_second": limit.ram,
            "vram_bytes_per_second": limit.vram,
            "limit_seconds": limit.seconds,
            "tests": rates,
            "others": busy,
            "parts": self._parts(subject),
        }

    def _rate(self, executor: Executor, test: Case) -> dict[str, Any]:
        """Seconds of each repetition; the first, which warms up, does not count."""
        texts = Texts(executor, test.n_seq, test.length)
        run = _reading(texts, test) if test.n_prompt else _writing(executor, texts, test)
        seconds = [run() for _ in range(self._repetitions + 1)][1:]
        tokens = test.n_prompt or test.n_gen * test.n_seq
        return dataclasses.asdict(test) | {
            "samples_ns": [int(s * 1e9) for s in seconds],
            "samples_ts": [tokens / s for s in seconds],
        }

    def _parts(self, subject: Subject) -> dict[str, float]:
        """Seconds of a token by part, on a short text."""
        executor = subject.executor
        texts = Texts(executor, 1, SMALLEST_CONTEXT)
        texts.read(0, SMALLEST_CONTEXT // 2)
        token = functools.partial(texts.next, SMALLEST_CONTEXT // 2)
        logits = executor.forward(token())[0].copy()
        return subject.parts(token) | {"sampling": self._sampling(logits)}

    def _sampling(self, logits: FloatArray) -> float:
        """Seconds that Ollama's default chain of samplers takes for a token."""
        sampler = Sampler(Sampling(seed=1), SMALLEST_CONTEXT)
        sampler.sample(logits.copy())
        return statistics.median(_seconds(lambda: sampler.sample(logits.copy())) for _ in range(PART_STEPS))


def _phase(test: Case) -> str:
    if test.n_prompt:
        return f"reading {test.n_prompt} tokens"
    return f"writing {test.n_gen} tokens, {test.n_seq} at a time" + (f", after {test.n_depth}" if test.n_depth else "")


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _reading(texts: Texts, test: Case) -> Callable[[], float]:
    return lambda: _seconds(lambda: texts.read(0, test.n_prompt))


def _writing(executor: Executor, texts: Texts, test: Case) -> Callable[[], float]:
    """The answer's steps alone: what lies before them in the cache has its length and no meaning. It was written, though: pages
    that nobody has written to are one and the same, which is always near."""
    texts.read(0, 1)
    first, *others = texts.blocks_before(test.n_depth) or [0]
    executor.copy_blocks([(first, other) for other in others])

    def write() -> None:
        for position in range(test.n_depth, test.n_depth + test.n_gen):
            executor.forward(texts.next(position)).argmax(-1)

    return lambda: _seconds(write)
