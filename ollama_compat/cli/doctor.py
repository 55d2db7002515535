"""doctor: what this machine can do, and what models would do on it."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

from ollama_compat.cli import ending, human, model_file, work
from ollama_compat.cli.command import Call
from ollama_compat.cli.errors import CommandError
from ollama_compat.cli.others import beside
from ollama_compat.cli.table import fitted
from ollama_compat.doctor import shape, system
from ollama_compat.doctor.diagnosis import Change, Diagnosis, Doctor, plain
from ollama_compat.doctor.predict import cycles_per_byte
from ollama_compat.doctor.published import MODELS
from ollama_compat.doctor.shape import Shape
from ollama_compat.doctor.system import System
from runtime.gguf_file import GGUFError

USUAL_TYPES = ("Q4_K", "Q6_K")
UNSTEADY = 1.25  # times as much bandwidth a moment later
HEADER = ("MODEL", "SIZE", "WHERE", "READ A TOKEN", "DECODE", "LIMIT", "PROMPT", "HELD BY", "MOST HELP")


class NotWell(CommandError):
    """Something will not work."""


def doctor(call: Call) -> None:
    """`doctor [MODEL] [--all] [--json]`. Raises NotWell with what will not work."""
    shapes = _shapes(call)
    if not call.flags.on("json"):
        print("Measuring this machine ...", file=sys.stderr)
    found = system.read()
    types = sorted({*USUAL_TYPES, *(name for each in shapes for name in each.types)})
    with ending.in_order(), _scratch() as folder:
        machine = work.run("machine", _arguments(call, found, types, shapes) | {"scratch": folder})
    subject = Doctor(found, machine)
    placements = (machine["gpu"] or {}).get("placements") or [None] * len(shapes)
    diagnoses = [subject.diagnose(each, placement=place) for each, place in zip(shapes, placements, strict=True)]
    named = diagnoses[: len(call.words)]  # of the well-known models nobody expects that all run
    store = [problem] if (problem := model_file.unreadable()) else []
    problems = [*subject.problems(), *store, *(f"{each.name}: {problem}" for each in named for problem in each.problems)]
    if call.flags.on("json"):
        print(json.dumps(_document(found, machine, diagnoses, problems)))
    else:
        print(_text(found, machine, diagnoses), end="")
    if problems:
        raise NotWell("; ".join(problems))


@contextlib.contextmanager
def _scratch() -> Iterator[str]:
    """A folder for the job, which is killed where somebody ends this program; empty where none can be made."""
    with contextlib.ExitStack() as stack:
        folder = ""
        with contextlib.suppress(OSError):
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="moellama-doctor-"))
        yield folder


def _shapes(call: Call) -> list[Shape]:
    """Of the model that is named, and of the well-known ones."""
    shapes = []
    if call.words:
        file = model_file.find(call.words[0])
        model_file.header(file)
        try:
            shapes.append(shape.of_file(file.path, file.name))
        except (GGUFError, OSError) as error:
            raise CommandError(str(error)) from error
    return shapes + ([model.shape() for model in MODELS] if call.flags.on("all") else [])


def _arguments(call: Call, found: System, types: Sequence[str], shapes: Sequence[Shape]) -> dict[str, Any]:
    """Of the job."""
    largest = model_file.find(call.words[0]).path if call.words else model_file.largest()
    free = found.memory_available
    return {
        "types": list(types),
        "states": any(each.state_values for each in shapes),
        "cache_bytes": found.cache_bytes,
        "free_bytes": int(free) if math.isfinite(free) else 0,
        "disk": str(largest) if largest else "",
        "folder": str(model_file.store().root),
        "gpu": True,
        "shapes": [each.numbers for each in shapes],
        "usual_types": list(shapes[0].usual_types) if shapes else [],
        **model_file.loading(),
    }


def _document(found: System, machine: dict[str, Any], diagnoses: Sequence[Diagnosis], problems: list[str]) -> dict[str, Any]:
    return {"system": plain(found), "machine": machine, "models": plain(diagnoses), "problems": problems}


# ------------------------------------------------------------ for people


def _text(found: System, machine: dict[str, Any], diagnoses: Sequence[Diagnosis]) -> str:
    rows = [*_system_rows(found, machine), *_measured_rows(machine)]
    text = "".join(f"  {name:<11}{value}\n" for name, value in rows)
    if diagnoses:
        lines = [_row(diagnosis) for diagnosis in diagnoses]
        text += "\nTokens a second, decode on a short context, prompt of 512 tokens:\n\n" + fitted(lines, HEADER, 60)
    for diagnosis in diagnoses if len(diagnoses) == 1 else ():
        text += _elsewhere(diagnosis)
    return text


def _system_rows(found: System, machine: dict[str, Any]) -> Iterator[tuple[str, str]]:
    executed = ", ".join(machine["isa_executed"])
    yield "CPU", f"{found.cpu}, {machine['clock'] / 1e9:.2f} GHz; executes {executed}"
    quota = f", {found.quota:g} granted" if found.quota else ""
    allowed = " allowed" if found.threads < found.cores else ""
    used = f"{machine['threads']} thread{'s' * (machine['threads'] > 1)}"
    numa = f", {found.numa_nodes} NUMA nodes" if found.numa_nodes > 1 else ""
    yield (
        "cores",
        f"{found.cores} physical, {found.threads} logical{allowed}{quota}{numa}; models run on up to {used}",
    )
    yield "memory", _memory(found)
    if found.modules:
        of = f" on {found.modules.channels} channels" if found.modules.channels else ""
        yield "modules", f"{found.modules.count} of {found.modules.slots} slots filled{of}, {found.modules.speed} MT/s"
    else:
        yield "modules", "not told (the firmware's tables are for root)"
    limit = "no limit" if found.pinned_limit is None else human.size(found.pinned_limit)
    yield "locked", f"{limit} of memory that a process may lock"
    if found.wsl or found.container:
        yield "inside", " and ".join(["WSL"] * found.wsl + [f"a container ({found.container})"] * bool(found.container))


def _memory(found: System) -> str:
    told = [human.size(found.memory_total)] if found.memory_total else []
    told += [f"{human.size(int(found.memory_available))} available"] if math.isfinite(found.memory_available) else []
    return ", ".join(told) or "not told"


def _measured_rows(machine: dict[str, Any]) -> Iterator[tuple[str, str]]:
    one, every = machine["read_one"] / 1e9, machine["read_all"] / 1e9
    if busy := beside(machine["others"]):
        yield "busy", busy
    by_all = f", {every:.1f} by {machine['threads']}" if machine["threads"] > 1 else ""
    yield "bandwidth", f"{one:.1f} GB/s read by one thread{by_all}{_unsteady(machine)}"
    for name, rate in machine["rates"]["types"].items():
        cycles = cycles_per_byte(machine, name)
        near, far = (1e-9 / rate[place] for place in ("cache", "memory"))
        work = 1e-9 / rate["prompt"]
        yield (
            f"{name}",
            (
                f"{cycles:.3f} cycles a byte in cache ({near:.0f} GB/s on all cores), {far:.0f} GB/s from memory, "
                f"{work:.0f} GOP/s in prompts"
            ),
        )
    unknown = "not measured (no room for a file, or no way past the cache)"
    yield "disk", f"{machine['disk'] / 1e9:.2f} GB/s" if machine["disk"] else unknown
    if not machine["keeps_kernels"]:
        yield "kernels", "cannot be kept (no folder for caches that may be written, or no room): each start compiles them anew"
    yield from _card_rows(machine["gpu"])


def _unsteady(machine: dict[str, Any]) -> str:
    """What all threads got at least and at most, where that differs much: predictions are of medians."""
    found = [every / 1e9 for _, every in machine["reads"]]
    told = f" ({min(found):.1f} to {max(found):.1f} within seconds: others have a part of this machine)"
    return told if max(found) > UNSTEADY * min(found) else ""


def _card_rows(card: dict[str, Any] | None) -> Iterator[tuple[str, str]]:
    if card is None:
        yield "card", "none that could be measured"
        return
    free, total = card["memory_free"] / 1e9, card["memory"] / 1e9
    yield "card", f"{card['name']}, {free:.1f} of {total:.1f} GB free, {card['memory_read'] / 1e9:.0f} GB/s"
    yield (
        "PCIe",
        (
            f"{card['to_card'] / 1e9:.1f} GB/s to the card, {card['from_card'] / 1e9:.1f} from it; "
            f"{card['to_card_beside_reads'] / 1e9:.1f} beside {card['read_beside_copies'] / 1e9:.1f} read by the CPU"
        ),
    )
    yield "pinned", f"at least {human.size(card['pinned'])} at once"


def _elsewhere(diagnosis: Diagnosis) -> str:
    """With a card: the speeds by where the model lies."""
    if len(diagnosis.elsewhere) < 2:
        return ""
    rows = [[words, *map(_speed, (found.decode, found.prompt))] for words, found in diagnosis.elsewhere.items()]
    return "\nWherever it lies, as far as it fits:\n\n" + fitted(rows, ("WHERE", "DECODE", "PROMPT"))


def _row(diagnosis: Diagnosis) -> list[str]:
    found = diagnosis.prediction
    return [
        diagnosis.name,
        human.size(diagnosis.nbytes),
        diagnosis.place,
        human.size(int(diagnosis.bytes_a_token)),
        _speed(found.decode),
        _speed(found.decode_limit),
        _speed(found.prompt),
        found.bound if found.decode else "",
        _remark(diagnosis),
    ]


def _remark(diagnosis: Diagnosis) -> str:
    """What would help."""
    told = [*diagnosis.problems, "makes vectors and no text"] if diagnosis.makes_vectors else diagnosis.problems
    return "; ".join(told) or _change(diagnosis.change)


def _speed(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _change(change: Change | None) -> str:
    return f"{change.what}: about {change.factor:.1f}x" if change else ""
