"""Measuring in turns: each side loads, answers every cell, and leaves the memory, and the order alternates."""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from ollama_compat.compare import asking
from ollama_compat.compare.asking import Answer, AskError
from ollama_compat.compare.processes import Peak
from ollama_compat.compare.sides import Side
from ollama_compat.compare.workload import ANSWER, MARGIN, SHORT, Cell, Pace, Plan, Prompts

UNLOAD_SECONDS = 30.0
CLOCKS_DIFFER = 0.15  # by more than this share a server's count and our clock disagree

Report = Callable[[str], None]
Samples = dict[str, list[float]]  # by metric, one a turn


@dataclasses.dataclass(slots=True)
class Record:
    """What one side did. `cells` by the cell's name."""

    side: Side
    load: list[float] = dataclasses.field(default_factory=list)
    cells: dict[str, Samples] = dataclasses.field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    failed: dict[str, str] = dataclasses.field(default_factory=dict)  # by the cell's name: the error that it was answered with
    clock_ratios: list[float] = dataclasses.field(default_factory=list)  # decode by the server's clock over ours
    ram: int = 0
    vram: int = 0

    @property
    def clocks_agree(self) -> bool:
        """Whether the server's counts hold against the clock here."""
        ordered = sorted(self.clock_ratios)
        return not ordered or abs(ordered[len(ordered) // 2] - 1) <= CLOCKS_DIFFER


def options(num_ctx: int) -> dict[str, Any]:
    """Of every request: the same on both sides."""
    return {"num_ctx": num_ctx, "num_predict": ANSWER, "temperature": 0, "seed": 1}


def pace(side: Side, prompts: Prompts, context: int) -> Pace:
    """A first short measurement, which also counts how many tokens a word has."""
    fitting = options(min(context, SHORT + ANSWER + 16 * MARGIN))
    load = _load(side, fitting)
    text = prompts.text(SHORT)
    answer = asking.chat(side, text, fitting)
    prompts.learn(len(text.split()), answer.prompt_length)
    answer = asking.chat(side, prompts.text(SHORT), fitting)  # the first one was the warm-up
    return Pace(answer.prefill or 1e3, answer.decode or 1e2, load)


def measure(
    sides: Sequence[Side], plan: Plan, prompts: Prompts, report: Report, *, together: bool, seconds: float = math.inf
) -> list[Record]:
    """Every side in every round, of which no further one begins that would not end within so many seconds. `together`: all
    stay in memory."""
    records, begin = [Record(side) for side in sides], time.monotonic()
    for number in range(plan.rounds):
        if number and (time.monotonic() - begin) * (1 + 1 / number) > seconds:
            break
        for record in records if number % 2 == 0 else reversed(records):
            report(f"round {number + 1} of {plan.rounds}: {record.side.name}")
            _turn(record, plan, prompts)
            if not together:
                unload(record.side)
    return records


def _turn(record: Record, plan: Plan, prompts: Prompts) -> None:
    side, asked = record.side, options(plan.num_ctx)
    peak = Peak(side.pid)
    with peak.watching():
        record.load.append(_load(side, asked))
        asking.chat(side, prompts.text(SHORT), asked)  # the warm-up
        for cell in plan.cells:
            if cell.name not in record.failed:
                _try(record, cell, prompts, asked)
    record.ram, record.vram = max(record.ram, peak.ram), max(record.vram, peak.vram)


def _try(record: Record, cell: Cell, prompts: Prompts, asked: dict[str, Any]) -> None:
    """A cell that is answered with an error is measured no more, and the others go on."""
    try:
        _cell(record, cell, prompts, asked)
    except AskError as error:
        record.failed[cell.name] = str(error)


def _cell(record: Record, cell: Cell, prompts: Prompts, asked: dict[str, Any]) -> None:
    texts = [prompts.text(cell.prompt) for _ in range(cell.users)]
    begin = time.perf_counter()
    answers = _at_once(record.side, texts, asked)
    seconds = time.perf_counter() - begin
    samples = record.cells[cell.name]
    if cell.users > 1:
        samples["total"].append(sum(answer.tokens or answer.chunks for answer in answers) / seconds)
        samples["first"].append(sorted(answer.first for answer in answers)[len(answers) // 2])
    else:
        _single(record, samples, answers[0])


def _at_once(side: Side, texts: Sequence[str], asked: dict[str, Any]) -> list[Answer]:
    """The answers to questions that come at the same time; AskError, when all have ended, where one of them has one."""
    if len(texts) == 1:
        return [asking.chat(side, texts[0], asked)]
    answers: list[Answer] = []
    errors: list[AskError] = []

    def ask(text: str) -> None:
        try:
            answers.append(asking.chat(side, text, asked))
        except AskError as error:
            errors.append(error)

    # daemons, since whoever ends the program does not wait for answers
    users = [threading.Thread(target=ask, args=(text,), daemon=True) for text in texts]
    for user in users:
        user.start()
    for user in users:
        user.join()
    if errors:
        raise AskError(f"{len(errors)} of {len(texts)} requests failed, {errors[0]}")
    return answers


def _single(record: Record, samples: Samples, answer: Answer) -> None:
    samples["first"].append(answer.first)
    if answer.prefill > 0:
        samples["prefill"].append(answer.prefill)
    if answer.decode > 0:
        samples["decode"].append(answer.decode)
    if answer.seconds > 0 and answer.decode_here > 0:
        record.clock_ratios.append(answer.decode / answer.decode_here)


def _load(side: Side, asked: dict[str, Any]) -> float:
    """Seconds until the model is in memory, by our clock: process, weights, and whatever else it needs."""
    begin = time.perf_counter()
    if side.dialect == "ollama":
        asking.call(side, "/api/generate", {"model": side.model, "options": {**asked, **side.options}})
    return time.perf_counter() - begin


def unload(side: Side) -> None:
    """Until the model is out of memory; a server of OpenAI's dialect has no way to be told."""
    if side.dialect != "ollama":
        return
    asking.call(side, "/api/generate", {"model": side.model, "keep_alive": 0})
    deadline = time.monotonic() + UNLOAD_SECONDS
    while time.monotonic() < deadline and asking.call(side, "/api/ps").get("models"):
        time.sleep(0.05)
