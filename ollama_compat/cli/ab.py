"""ab: this server against a real Ollama, or another server, on the same model file, prompts and options, in turns."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ollama_compat.cli import ab_sides, ending, model_file
from ollama_compat.cli.ab_sides import OURS
from ollama_compat.cli.command import Call
from ollama_compat.cli.errors import CommandError
from ollama_compat.cli.model_file import ModelFile
from ollama_compat.cli.progress import Progress
from ollama_compat.cli.table import fitted
from ollama_compat.cli.work import Phases
from ollama_compat.compare import asking, page, report, sameness, turns, workload
from ollama_compat.compare.asking import AskError
from ollama_compat.compare.report import Comparison, Line, Report
from ollama_compat.compare.sides import Side, SideError
from ollama_compat.compare.turns import Record
from ollama_compat.compare.workload import Plan
from ollama_compat.doctor import shape, system
from ollama_compat.doctor.shape import Shape
from runtime.gguf_file import GGUFError

HEADER = ("WHAT", "WITH", "MOELLAMA", "OTHER", "", "RATIO", "95 %", "")
UNKNOWN_CONTEXT = 4096
Tell = Callable[[str], None]


def ab(call: Call) -> None:
    """`ab MODEL`. Whatever the result, what could be measured is status 0."""
    _check(call)
    file = model_file.find(call.words[0])
    model_file.header(file)
    with _page(call.flags.text("html")) as write_page:
        with ending.in_order() as deaf, Progress(sys.stderr, clear=sys.stderr.isatty()) as progress:
            try:
                found = _run(call, file, Phases(progress).enter, deaf)
            except (AskError, SideError, GGUFError, OSError) as error:
                raise CommandError(str(error)) from error
        write_page(found)
    print(json.dumps(report.document(found)) if call.flags.on("json") else _text(found).rstrip("\n"))


def _check(call: Call) -> None:
    """What would be found only after minutes of measuring."""
    sides_named = [f"--{flag}" for flag in ("against", "against-openai", "ollama") if call.flags.text(flag)]
    if len(sides_named) > 1:
        raise CommandError(f"{' and '.join(sides_named)} name one other side each: only one of them is possible")
    for flag in ("minutes", "rounds"):
        if call.flags.count(flag) < 0:
            raise CommandError(f"--{flag} takes a number of 0 or more, not {call.flags.count(flag)}")


@contextlib.contextmanager
def _page(path: str) -> Iterator[Callable[[Report], None]]:
    """Writes a report there, if anywhere. That it can be is found out first, and no empty file stays where there is no report."""
    place, there = Path(path), Path(path).exists()

    def write(found: Report) -> None:
        if path:
            place.write_text(page.render(found), "utf-8")

    try:
        if path:
            place.open("a").close()
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {(error.strerror or str(error)).lower()}") from error
    try:
        yield write
    except BaseException:  # an interrupt too
        if path and not there:
            place.unlink()
        raise


def _run(call: Call, file: ModelFile, tell: Tell, deaf: Callable[[], None]) -> Report:
    found = shape.of_file(file.path, file.name)
    with tempfile.TemporaryDirectory(prefix="moellama-ab-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        tell("starting servers")
        others = ab_sides.others(call, file, folder, experts=bool(found.expert_count))
        sides = [stack.enter_context(side) for side in (ab_sides.ours(file, folder), *others)]
        stack.callback(deaf)  # on the way out nothing may be left half done
        return _Run(call, file, folder, sides, tell).report(found)


class _Run:
    """Servers that are there, ours first."""

    def __init__(self, call: Call, file: ModelFile, folder: Path, sides: Sequence[Side], tell: Tell) -> None:
        self._call, self._file, self._folder, self._sides, self._tell = call, file, folder, sides, tell
        self._together = call.flags.on("together")

    def report(self, found: Shape) -> Report:
        """All of it."""
        context = found.context_length or UNKNOWN_CONTEXT
        capabilities = asking.call(self._sides[0], "/api/show", {"model": self._sides[0].model}).get("capabilities") or []
        versions = {side.name: ab_sides.version(side) for side in self._sides}
        notes = [note for side in self._sides[1:] for note in self._of_running(side)]
        records, plan = self._measured(context, makes_text="completion" in capabilities)
        comparisons = self._compared(records, capabilities, min(context, 2048))
        return Report(
            model=self._file.name,
            machine=_machine(),
            versions=versions,
            settings={side.name: ab_sides.settings(side) for side in self._sides},
            plan=plan,
            comparisons=comparisons,
            notes=_notes(comparisons) + notes,
        )

    def _of_running(self, side: Side) -> Iterator[str]:
        """What has to be known of a server that was there before; its model leaves the memory."""
        if side.pid is not None:
            return
        yield f"{side.name} was running before: its memory was not measured"
        if side.dialect != "ollama":
            yield f"{side.name} has {side.model}: whether that is the same file is its word"
            if not self._together:
                yield f"{side.name} cannot be told to unload: it had its model in memory all the time, beside ours"
            return
        same = ab_sides.same_file(side, self._file, self._folder)
        if same is not None:
            yield f"{side.name} has the same file" if same else f"{side.name} has ANOTHER FILE under the name {side.model}"
        else:
            yield f"whether {side.name} has the same file is its word"
        if not self._together:
            turns.unload(side)
            if others := turns.loaded(side):
                yield f"{side.name} had other models in memory: {', '.join(others)}"

    def _measured(self, context: int, *, makes_text: bool) -> tuple[list[Record], Plan]:
        if not makes_text:
            nothing = Plan((), 0, ("speed: the model makes vectors and no text",), context)
            return [Record(side) for side in self._sides], nothing
        begin = time.monotonic()
        prompts = workload.Prompts(time.time_ns())  # a server that was asked before must not know them
        paces = []
        for side in self._sides:
            self._tell(f"a first short measurement: {side.name}")
            paces.append(turns.pace(side, prompts, context))
            self._unload(side)
        budget = 60.0 * self._call.flags.count("minutes") or workload.BUDGET
        full, rounds = self._call.flags.on("full"), self._call.flags.count("rounds")
        plan = workload.plan(context, paces, full=full, budget=budget, rounds=rounds)
        left = math.inf if full or rounds else budget - (time.monotonic() - begin) - workload.afterwards(paces)
        return turns.measure(self._sides, plan, prompts, self._tell, together=self._together, seconds=left)

    def _compared(self, records: Sequence[Record], capabilities: Sequence[str], num_ctx: int) -> list[Comparison]:
        """Speeds, and answers: those of one side after those of the other."""
        said = []
        for side in self._sides:
            self._tell(f"comparing answers: {side.name}")
            said.append(sameness.ask(side, capabilities, num_ctx))
            with contextlib.suppress(AskError):  # a server that is gone has nothing in memory
                self._unload(side)
        return [
            report.compare(records[0], record, sameness.compare(said[0], answers, same_api=record.side.dialect == "ollama"))
            for record, answers in zip(records[1:], said[1:], strict=True)
        ]

    def _unload(self, side: Side) -> None:
        if not self._together:
            turns.unload(side)


# ------------------------------------------------------------ what stands beside the figures


def _machine() -> str:
    found = system.read()
    memory = f"{found.memory_total / 2**30:.0f} GiB" if found.memory_total else "unknown memory"
    card = f", {found.driver['name']}" if found.driver else ""
    return f"{found.cpu}, {found.cores} cores, {memory}{card}"


def _notes(comparisons: Sequence[Comparison]) -> list[str]:
    notes = []
    for comparison in comparisons:
        for doubtful, failed, name in zip(comparison.doubtful, comparison.failed, (OURS, comparison.name), strict=True):
            notes += [f"{cell}: not compared, {error}" for cell, error in failed.items()]
            notes += [f"{name}: its own count of {what} differs from the clock here by more than 15 %" for what in doubtful]
        if comparison.by_our_clock:
            what = " and ".join(comparison.by_our_clock)
            notes.append(f"{comparison.name} tells no times of {what}: both sides' are by the clock here")
    return list(dict.fromkeys(notes))  # ours stands beside each of the others


# ------------------------------------------------------------ for people


def _text(found: Report) -> str:
    texts = [f"{found.model} on {found.machine}\n"]
    versions = "; ".join(
        f"{name} {version}" + (f" ({found.settings[name]})" if found.settings[name] else "")
        for name, version in found.versions.items()
    )
    plan = found.plan
    measured = f"; {plan.rounds} round{'s' * (plan.rounds != 1)}, context {plan.num_ctx}" if plan.rounds else ""
    texts.append(f"{versions}{measured}\n")
    for comparison in found.comparisons:
        texts.append(f"\nAgainst {comparison.name}:\n\n")
        if comparison.lines:
            texts.append(fitted([_row(line) for line in comparison.lines], HEADER, 40) + "\n")
        texts += [f"{line}\n" for line in report.sentences(comparison.sameness)]
        lost = report.losses(comparison)
        texts.append(f"\nWorse or different: {'; '.join(lost)}\n" if lost else "\nNowhere clearly worse or different.\n")
    texts += [f"left out: {line}\n" for line in found.plan.left_out] + [f"note: {line}\n" for line in found.notes]
    return "".join(texts)


def _row(line: Line) -> list[str]:
    ratio = line.ratio
    return [
        line.metric,
        line.cell,
        _spread(line.mine),
        _spread(line.theirs),
        line.unit,
        f"{page.times(ratio.value)}x",
        "" if line.once else f"{page.times(ratio.low)}-{page.times(ratio.high)}",
        line.verdict,
    ]


def _spread(spread: Any) -> str:
    if spread.count == 1:
        return page.figure(spread.median)
    return f"{page.figure(spread.median)} ({page.figure(spread.low)}-{page.figure(spread.high)})"
