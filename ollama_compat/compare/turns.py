"""Measuring in turns: each side loads, answers every cell, and leaves the memory, and the order alternates."""

from __future__ import annotations

import dataclasses
import math
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from ollama_compat.compare import asking
from ollama_compat.compare.asking import Answer, AskError
from ollama_compat.compare.processes import Peak
from ollama_compat.compare.sides import Side
from ollama_compat.compare.workload import ANSWER, FEWEST, MARGIN, SHORT, Cell, Pace, Plan, Prompts

UNLOAD_SECONDS = 30.0
CLOCKS_DIFFER = 0.15  # by more than this share a server's count and our clock disagree
COUNTED = "decode", "prefill"
HERE = "_here"  # behind the name of a metric: by our clock, for servers that tell no times

Report = Callable[[str], None]
Samples = dict[str, list[float]]  # by metric, one a turn


@dataclasses.dataclass(slots=True)
class Record:
    """What one side did. `cells` by the cell's name."""

    side: Side
    load: list[float] = dataclasses.field(default_factory=list)
    cells: dict[str, Samples] = dataclasses.field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    failed: dict[str, str] = dataclasses.field(default_factory=dict)  # by the cell's name: the error that it was answered with
    clocks: Samples = dataclasses.field(default_factory=lambda: defaultdict(list))  # COUNTED: the server's over ours
    seconds: dict[str, float] = dataclasses.field(default_factory=lambda: defaultdict(float))  # of cells, the last time
    ram: int = 0
    vram: int = 0

    @property
    def doubtful(self) -> list[str]:
        """What the server counted otherwise than the clock here."""
        return [name for name in COUNTED if (found := self.clocks[name]) and abs(statistics.median(found) - 1) > CLOCKS_DIFFER]


def options(num_ctx: int) -> dict[str, Any]:
    """Of every request: the same on both sides."""
    return {"num_ctx": num_ctx, "num_predict": ANSWER, "temperature": 0, "seed": 1}


def pace(side: Side, prompts: Prompts, context: int) -> Pace:
    """A first short measurement, which also counts how many tokens a word has."""
    fitting = options(min(context, SHORT + ANSWER + 16 * MARGIN))
    load, text = _load(side, fitting), prompts.text(0)  # as short as can be: a word may have many tokens
    answer = asking.chat(side, text, fitting)  # the warm-up
    prompts.learn(len(text.split()), answer.prompt_length)
    answer = asking.chat(side, prompts.text(min(SHORT, context // 4)), fitting)
    return Pace(answer.prefill or answer.prefill_here or 1e3, answer.decode or answer.decode_here or 1e2, load)


def measure(
    sides: Sequence[Side], plan: Plan, prompts: Prompts, report: Report, *, together: bool, seconds: float = math.inf
) -> tuple[list[Record], Plan]:
    """Every side in every round, and what became of the plan. No round begins that would not end within so many seconds: cells
    are left out for the FEWEST, which is what it takes to know how sure a ratio is. None begins after a server has failed; in
    the first one that is an AskError. `together`: all stay in memory."""
    records, end = [Record(side) for side in sides], time.monotonic() + seconds

    def turn(record: Record, number: int, plan: Plan) -> None:
        report(f"round {number + 1} of {plan.rounds}: {record.side.name}")
        _turn(record, plan, prompts.of_round(number), end)  # all with the same prompts
        if not together:
            unload(record.side)

    return records, _rounds(records, plan, turn, end)


def _rounds(records: Sequence[Record], plan: Plan, turn: Callable[[Record, int, Plan], None], end: float) -> Plan:
    """What becomes of the plan."""
    for number in range(plan.rounds):
        begin = time.monotonic()
        try:
            for record in records if number % 2 == 0 else reversed(records):
                turn(record, number, plan)
        except AskError as error:
            if not number:
                raise
            return plan.ended(number, str(error))
        plan = plan.measured([cell for cell in plan.cells if all(_has(record, cell) for record in records)])
        if (done := number + 1) < plan.rounds:
            now = time.monotonic()
            plan, taken = _shortened(plan, records, done, now - begin, end - now)
            if taken > end - now:
                return plan.ended(done, "they took longer than the first short measurement let expect")
    return plan


def _has(record: Record, cell: Cell) -> bool:
    """Whether it was measured, or cannot be."""
    return cell.name in record.cells or cell.name in record.failed


def _shortened(plan: Plan, records: Sequence[Record], done: int, taken: float, left: float) -> tuple[Plan, float]:
    """Without the slowest cells, as far as that lets the FEWEST rounds end in the time that is left, and what a round takes then.
    `done`: rounds; `taken`: seconds of the last one."""

    def cost(cell: Cell) -> float:
        return sum(record.seconds[cell.name] for record in records)

    while len(plan.cells) > 1 and (FEWEST - done) * taken > left:
        slowest = max(plan.cells[1:], key=cost)
        plan, taken = plan.without(slowest, done), taken - cost(slowest)
    return plan, taken


def _turn(record: Record, plan: Plan, prompts: Prompts, end: float) -> None:
    """`end`: no cell but the first begins after it."""
    side, asked = record.side, options(plan.num_ctx)
    peak = Peak(side.pid)
    with peak.watching():
        record.load.append(_load(side, asked))
        asking.chat(side, prompts.text(SHORT), asked)  # the warm-up
        for cell in plan.cells:
            texts = [prompts.text(cell.prompt) for _ in range(cell.users)]
            late = cell != plan.cells[0] and time.monotonic() > end
            if cell.name not in record.failed and not late:
                _try(record, cell, texts, asked)
    record.ram, record.vram = max(record.ram, peak.ram), max(record.vram, peak.vram)


def _try(record: Record, cell: Cell, texts: Sequence[str], asked: dict[str, Any]) -> None:
    """A cell that is answered with an error is measured no more, and the others go on; AskError where the server is gone."""
    try:
        _cell(record, cell, texts, asked)
    except AskError as error:
        asking.call(record.side, "/api/version" if record.side.dialect == "ollama" else "/v1/models")
        record.failed[cell.name] = str(error)


def _cell(record: Record, cell: Cell, texts: Sequence[str], asked: dict[str, Any]) -> None:
    begin = time.perf_counter()
    answers = _at_once(record.side, texts, asked)
    record.seconds[cell.name] = seconds = time.perf_counter() - begin
    samples = record.cells[cell.name]
    if cell.users > 1:
        samples["total"].append(sum(answer.tokens or answer.chunks for answer in answers) / seconds)
        samples["first"].append(sorted(answer.first for answer in answers)[len(answers) // 2])
    else:
        _single(record, samples, answers[0], long=cell.prompt > SHORT)


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


def _single(record: Record, samples: Samples, answer: Answer, *, long: bool) -> None:
    samples["first"].append(answer.first)
    told = {"prefill": answer.prefill, "decode": answer.decode}
    here = {"prefill": answer.prefill_here, "decode": answer.decode_here}
    for name in COUNTED:
        if told[name] > 0:
            samples[name].append(told[name])
        if here[name] > 0:
            samples[name + HERE].append(here[name])
    if told["decode"] > 0 and here["decode"] > 0:
        record.clocks["decode"].append(told["decode"] / here["decode"])
    if told["prefill"] > 0 and long:  # before the first token of a short one there is more than reading it
        record.clocks["prefill"].append(told["prefill"] / here["prefill"])


def _load(side: Side, asked: dict[str, Any]) -> float:
    """Seconds until the model is in memory, by our clock: process, weights, and whatever else it needs."""
    begin = time.perf_counter()
    if side.dialect == "ollama":
        body = {"model": side.model, "options": {**asked, **side.options}, "keep_alive": asking.KEPT}
        asking.call(side, "/api/generate", body)
    return time.perf_counter() - begin


def unload(side: Side) -> None:
    """Until the model is out of memory; a server of OpenAI's dialect has no way to be told."""
    if side.dialect != "ollama":
        return
    asking.call(side, "/api/generate", {"model": side.model, "keep_alive": 0})
    deadline = time.monotonic() + UNLOAD_SECONDS
    while time.monotonic() < deadline and side.model.lower() in loaded(side):
        time.sleep(0.05)


def loaded(side: Side) -> list[str]:
    """Names, in small letters, of the models that a server of Ollama's API has in memory."""
    return [str(entry.get("name")).lower() for entry in asking.call(side, "/api/ps").get("models") or ()]
