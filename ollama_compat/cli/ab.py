"""ab: this server against a real Ollama, or another server, on the same model file, prompts and options, in turns."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from ollama_compat.cli import model_file
from ollama_compat.cli.command import Call
from ollama_compat.cli.errors import CommandError
from ollama_compat.cli.model_file import ModelFile
from ollama_compat.cli.progress import Progress
from ollama_compat.cli.table import render
from ollama_compat.cli.work import Phases
from ollama_compat.compare import asking, page, report, sameness, sides, turns, workload
from ollama_compat.compare.asking import AskError
from ollama_compat.compare.report import Comparison, Line, Report
from ollama_compat.compare.sides import Side, SideError
from ollama_compat.compare.turns import Record
from ollama_compat.doctor import shape, system
from ollama_compat.settings import Address
from ollama_compat.store.names import ModelName
from runtime.gguf_file import GGUFError

FILE_NAME = ModelName.parse("ab-model")  # what a GGUF file is called in the stores that are made for it
TUNED = {"LLAMA_ARG_CPU_MOE": "1"}  # as experts run a model of experts beside a card
OURS = "Moellama"
HEADER = ("WHAT", "WITH", "MOELLAMA", "OTHER", "", "RATIO", "95 %", "")
UNKNOWN_CONTEXT = 4096


def ab(call: Call) -> None:
    """`ab MODEL`. Whatever the result, what could be measured is status 0."""
    _check(call)
    file = model_file.find(call.words[0])
    model_file.header(file)
    with _ending_in_order(), Progress(sys.stderr, clear=sys.stderr.isatty()) as progress:
        phases = Phases(progress)
        try:
            found = _run(call, file, phases.enter)
        except (AskError, SideError, GGUFError, OSError) as error:
            raise CommandError(str(error)) from error
    if path := call.flags.text("html"):
        Path(path).write_text(page.render(found), "utf-8")
    print(
        json.dumps(report.document(found)) if call.flags.on("json") else _text(found), end="\n" if call.flags.on("json") else ""
    )


def _check(call: Call) -> None:
    """What would be found only after minutes of measuring."""
    sides_named = [f"--{flag}" for flag in ("against", "against-openai", "ollama") if call.flags.text(flag)]
    if len(sides_named) > 1:
        raise CommandError(f"{' and '.join(sides_named)} name one other side each: only one of them is possible")
    for flag in ("minutes", "rounds"):
        if call.flags.count(flag) < 0:
            raise CommandError(f"--{flag} takes a number of 0 or more, not {call.flags.count(flag)}")
    if path := call.flags.text("html"):
        try:
            Path(path).touch()
        except OSError as error:
            raise CommandError(f"{path} cannot be written: {(error.strerror or str(error)).lower()}") from error


@contextlib.contextmanager
def _ending_in_order() -> Iterator[None]:
    """Servers that were started are stopped as well where somebody ends this program."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(call: Call, file: ModelFile, tell: Callable[[str], None]) -> Report:
    found = shape.of_file(file.path, file.name)
    with contextlib.ExitStack() as stack, tempfile.TemporaryDirectory(prefix="moellama-ab-") as folder:
        tell("starting servers")
        all_sides = [stack.enter_context(_ours(file, Path(folder)))]
        all_sides += [stack.enter_context(side) for side in _others(call, file, Path(folder), bool(found.expert_count))]
        return _compare(call, file, found.context_length or UNKNOWN_CONTEXT, all_sides, tell)


def _compare(call: Call, file: ModelFile, context: int, all_sides: Sequence[Side], tell: Callable[[str], None]) -> Report:
    mine, *others = all_sides
    together = call.flags.on("together")
    capabilities = asking.call(mine, "/api/show", {"model": mine.model}).get("capabilities") or []
    makes_text = "completion" in capabilities
    plan = workload.Plan((), 0, ("speed: the model makes vectors and no text",), context)
    records = [Record(side) for side in all_sides]
    if makes_text:
        begin = time.monotonic()
        prompts = workload.Prompts(time.time_ns())  # a server that was asked before must not know them
        paces = []
        for side in all_sides:
            tell(f"a first short measurement: {side.name}")
            paces.append(turns.pace(side, prompts, context))
            if not together:
                turns.unload(side)
        budget = 60.0 * call.flags.count("minutes") or workload.BUDGET
        full, rounds = call.flags.on("full"), max(0, call.flags.count("rounds"))
        plan = workload.plan(context, paces, full=full, budget=budget, rounds=rounds)
        left = math.inf if full or rounds else budget - (time.monotonic() - begin) - workload.afterwards(paces)
        records = turns.measure(all_sides, plan, prompts, tell, together=together, seconds=left)
        plan = workload.ended(plan, len(records[0].load))
    comparisons = []
    for side, record in zip(others, records[1:], strict=True):
        tell(f"comparing answers: {side.name}")
        same = sameness.compare(mine, side, capabilities, min(context, 2048))
        comparisons.append(report.compare(records[0], record, same))
    return Report(
        model=file.name,
        machine=_machine(),
        versions={side.name: _version(side) for side in all_sides},
        settings={side.name: _settings(side) for side in all_sides},
        plan=plan,
        comparisons=comparisons,
        notes=_notes(comparisons, others),
    )


# ------------------------------------------------------------ the sides


def _ours(file: ModelFile, folder: Path) -> contextlib.AbstractContextManager[Side]:
    side = Side(OURS, "ollama", Address(port=sides.free_port()), _linked(file, folder / "ours"))
    return sides.started(sides.OURS, side, folder / "ours", {})


def _others(call: Call, file: ModelFile, folder: Path, experts: bool) -> Iterator[contextlib.AbstractContextManager[Side]]:
    """Those that the flags name; without any, the `ollama` of PATH."""
    if url := call.flags.text("against-openai"):
        yield contextlib.nullcontext(_openai(url))
    elif url := call.flags.text("against"):
        name = file.name if file.stored else call.words[0]
        yield contextlib.nullcontext(Side("Ollama", "ollama", sides.address(url), name))
    else:
        yield from _ollamas(call.flags.text("ollama"), file, folder, experts)


def _openai(url: str) -> Side:
    side = Side("the other server", "openai", sides.address(url.rstrip("/").removesuffix("/v1")), "")
    listed = asking.call(side, "/v1/models").get("data") or [{"id": "default"}]
    return dataclasses.replace(side, model=str(listed[0].get("id")))


def _ollamas(path: str, file: ModelFile, folder: Path, experts: bool) -> Iterator[contextlib.AbstractContextManager[Side]]:
    """As it comes, and for a model of experts beside a card also as experts tune it."""
    binary = shutil.which(path or "ollama")
    if binary is None:
        what = f"there is no program {path!r}" if path else "there is no `ollama` on the PATH"
        raise CommandError(f"{what}; name one with --ollama, or a running server with --against or --against-openai")
    command = [str(Path(binary).resolve()), "serve"]
    variants: list[tuple[str, dict[str, str], dict[str, int]]] = [("Ollama", {}, {})]
    if experts and shutil.which("nvidia-smi"):
        variants.append(("Ollama, tuned", TUNED, {"num_gpu": 99}))
    for number, (name, environ, options) in enumerate(variants):
        home = folder / f"ollama-{number}"
        side = Side(name, "ollama", Address(port=sides.free_port()), _linked(file, home), options)
        yield sides.started(command, side, home, environ)


def _linked(file: ModelFile, home: Path) -> str:
    """A store in `home` with the model's files; the model's name there."""
    root = home / "models"
    if file.stored is None:
        sides.link_file(file.path, FILE_NAME, root)
        return FILE_NAME.short()
    sides.link_stored(model_file.store(), file.stored, root)
    return file.stored.short()


# ------------------------------------------------------------ what stands beside the figures


def _machine() -> str:
    found = system.read()
    memory = f"{found.memory_total / 2**30:.0f} GiB" if found.memory_total else "unknown memory"
    card = f", {found.driver['name']}" if found.driver else ""
    return f"{found.cpu}, {found.cores} cores, {memory}{card}"


def _version(side: Side) -> str:
    if side.name == OURS:
        from importlib import metadata  # only here, it reads files

        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version("moellama")
    if side.dialect != "ollama":
        return f"at {side.address.url}"
    return str(asking.call(side, "/api/version").get("version", ""))


def _settings(side: Side) -> str:
    return ", ".join(f"{name}={value}" for name, value in {**side.environ, **side.options}.items())


def _notes(comparisons: Sequence[Comparison], others: Sequence[Side]) -> list[str]:
    notes = []
    for comparison in comparisons:
        for agrees, failed, name in zip(comparison.clocks_agree, comparison.failed, (OURS, comparison.name), strict=True):
            notes += [f"{cell}: not compared, {error}" for cell, error in failed.items()]
            if not agrees:
                notes.append(f"{name}: its own count of decode differs from the clock of the client by more than 15 %")
    for side in others:
        if side.pid is None:
            notes.append(
                f"{side.name} was running before: its memory was not measured, and whether it has the same file is its word"
            )
    return list(dict.fromkeys(notes))  # ours stands beside each of the others


# ------------------------------------------------------------ for people


def _text(found: Report) -> str:
    texts = [f"{found.model} on {found.machine}\n"]
    versions = "; ".join(
        f"{name} {version}" + (f" ({found.settings[name]})" if found.settings[name] else "")
        for name, version in found.versions.items()
    )
    texts.append(f"{versions}; {found.plan.rounds} round{'s' * (found.plan.rounds != 1)}, context {found.plan.num_ctx}\n")
    for comparison in found.comparisons:
        texts.append(f"\nAgainst {comparison.name}:\n\n" + render([_row(line) for line in comparison.lines], HEADER, 40))
        texts += [f"{line}\n" for line in ["", *report.sentences(comparison.sameness)]]
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
        f"{ratio.value:.2f}x" if ratio else "",
        f"{ratio.low:.2f}-{ratio.high:.2f}" if ratio and not line.once else "",
        line.verdict,
    ]


def _spread(spread: Any) -> str:
    if spread.count == 1:
        return page.figure(spread.median)
    return f"{page.figure(spread.median)} ({page.figure(spread.low)}-{page.figure(spread.high)})"
