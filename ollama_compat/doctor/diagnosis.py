"""From measurements to what a person wants to know: does a model fit, how fast will it be, what would help, what is wrong."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from ollama_compat.doctor.places import RUNNER_BYTES, Place, Speeds, all_there
from ollama_compat.doctor.predict import Prediction
from ollama_compat.doctor.shape import Shape, Weights
from ollama_compat.doctor.system import System

SECOND_CHANNEL = 1.9  # times the bandwidth
LEAST_GAIN = 1.05  # what is worth saying
LEAN = {"F32", "F16", "BF16", "Q8_0"}  # types that people replace by Q4_K


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """Something to do, and how many times as fast decode would be."""

    what: str
    factor: float


@dataclasses.dataclass(frozen=True, slots=True)
class Diagnosis:
    """Of one model. Bytes; tokens a second."""

    name: str
    nbytes: int
    needed: int  # of RAM without a card, with the cache of a context and the runner
    bytes_a_token: float
    fits: bool  # in memory; what does not is read from the file as it is used
    place: str
    prediction: Prediction  # where it would lie
    elsewhere: dict[str, Prediction]  # by where else it could lie, whether it fits there or not
    change: Change | None
    problems: list[str]
    makes_vectors: bool  # and no text


class Doctor:
    """`machine`: the result of the job `machine`."""

    def __init__(self, system: System, machine: Mapping[str, Any]) -> None:
        self.system, self.machine = system, machine
        self._speeds = Speeds(system, machine)

    def problems(self) -> list[str]:
        """What will not work on this machine, whatever the model."""
        found = []
        if self.machine["isa"] == "portable":
            found.append("this CPU executes neither AVX2 nor better: models run on plain code, many times slower")
        if self.system.memory_available < RUNNER_BYTES:
            there, least = (f"{nbytes / 1e6:.0f} MB" for nbytes in (self.system.memory_available, RUNNER_BYTES))
            found.append(f"only {there} of memory are available: models do not run in less than {least} beside their weights")
        if self.system.driver and not self.machine.get("gpu"):
            found.append("an NVIDIA card and its driver are here, but torch is not, or finds no card: models run on the CPU")
        return found

    def diagnose(
        self, shape: Shape, context: int = 0, prompt: int = 512, placement: Mapping[str, Any] | None = None
    ) -> Diagnosis:
        """Of a model, decode at `context` tokens. `placement`: of the job, on a card."""
        place = self._speeds.place(shape, placement)
        problems = self._model_problems(shape)
        found = self._speeds.predict(shape, place, context, prompt)
        if problems:  # what the machine allows, and nothing that we expect
            found = dataclasses.replace(found, decode=None, prompt=None)
        if shape.makes_vectors:
            found = dataclasses.replace(found, decode=None, decode_limit=None)
        elsewhere = () if problems else self._speeds.elsewhere(shape, placement["whole"] if placement else None)
        return Diagnosis(
            name=shape.name,
            nbytes=shape.nbytes,
            needed=self._speeds.needed(shape),
            bytes_a_token=shape.bytes_a_token,
            fits=not place.on_disk,
            place=place.words,
            prediction=found,
            elsewhere={other.words: self._speeds.predict(shape, other, context, prompt) for other in elsewhere},
            change=self._change(shape, place, context) if found.decode else None,
            problems=problems,
            makes_vectors=shape.makes_vectors,
        )

    def _model_problems(self, shape: Shape) -> list[str]:
        problems = []
        if shape.architecture not in self.machine["architectures"]:
            problems.append(f"this version does not run the architecture {shape.architecture!r}")
        least, there = self._speeds.needed(shape) - shape.nbytes, self.system.memory_available
        if least > there:
            problems.append(f"it needs {least / 1e9:.1f} GB of memory beside its weights, {there / 1e9:.1f} GB are available")
        return problems

    # ------------------------------------------------------------ what would help

    def _change(self, shape: Shape, place: Place, context: int) -> Change | None:
        """The one that helps decode most."""
        now = self._speeds.decode_seconds(shape, place, context)
        changes: list[Change | None]
        if place.on_disk:
            changes = [self._room(shape, place, context, now)]
        elif place.on_card:
            changes = self._card_changes(shape, place, context, now)
        else:
            changes = [self._memory(shape, context, now), self._cores(shape, context, now), self._types(shape, context, now)]
        best = max((change for change in changes if change), key=lambda change: change.factor, default=None)
        return best if best and best.factor >= LEAST_GAIN else None

    def _room(self, shape: Shape, place: Place, context: int, now: float) -> Change:
        """Memory for what is on the disk."""
        missing = place.on_disk * self._speeds.in_ram(shape, place)
        there = self._speeds.decode_seconds(shape, dataclasses.replace(place, on_disk=0.0), context)
        return Change(f"{missing / 1e9:.1f} GB more memory", now / there)

    def _card_changes(self, shape: Shape, place: Place, context: int, now: float) -> list[Change | None]:
        """Room for all, and faster memory for what has none."""
        if place.whole:
            return []
        front, rest = shape.split(place.first)
        missing = front.nbytes + rest.expert_bytes * (1 - place.share)
        there = self._speeds.decode_seconds(shape, all_there(shape), context)
        what, factor = self._faster_memory()
        faster = self._speeds.decode_seconds(shape, place, context, factor)
        return [Change(f"{missing / 1e9:.0f} GB more VRAM", now / there), Change(what, now / faster)]

    def _memory(self, shape: Shape, context: int, now: float) -> Change | None:
        what, factor = self._faster_memory()
        return Change(what, now / self._speeds.cpu.decode_seconds(shape, context, factor))

    def _faster_memory(self) -> tuple[str, float]:
        """What would make memory faster, and by what factor."""
        modules = self.system.modules
        if modules and (modules.channels or modules.count) > 1:
            return "memory that is twice as fast", 2.0
        return "a second memory channel" if modules else "a second memory channel, if only one is filled", SECOND_CHANNEL

    def _cores(self, shape: Shape, context: int, now: float) -> Change | None:
        """More of the cores that there are, where a limit keeps them away; else twice as many."""
        used, there = self._speeds.cpu.rates(shape)["threads"], self.system.cores
        if used < self.machine["threads"]:
            return None  # a small model: more threads would wait for one another
        ratio = there / used if there > used else 2.0
        weights = sum(part.bytes_a_token * self._with_cores(part, ratio) for part in shape.weights)
        today = sum(part.bytes_a_token * self._with_cores(part, 1.0) for part in shape.weights)
        what = f"all {there} cores instead of {used}" if there > used else "twice as many cores"
        return Change(what, now / (now - today + weights))

    def _with_cores(self, part: Weights, ratio: float) -> float:
        """Seconds of a byte on `ratio` times the cores: no less than the memory takes."""
        rate = self.machine["rates"]["types"][part.type_name]
        limit = 1 / self.machine["read_all"]
        return float(max(rate["cache"] / ratio, min(rate["memory"], max(rate["memory"] / ratio, limit))))

    def _types(self, shape: Shape, context: int, now: float) -> Change | None:
        lean = [part for part in shape.weights if part.type_name in LEAN and part.values * part.share > 0]
        if "Q4_K" not in self.machine["rates"]["types"] or not lean:
            return None
        weights = tuple(dataclasses.replace(part, type_name="Q4_K") if part in lean else part for part in shape.weights)
        smaller = dataclasses.replace(shape, weights=weights)
        return Change("the same model in Q4_K_M", now / self._speeds.cpu.decode_seconds(smaller, context))


def plain(value: Any) -> Any:
    """Dataclasses as JSON values; infinity, which JSON cannot write, as None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
