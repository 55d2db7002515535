"""From measurements to what a person wants to know: does a model fit, how fast will it be, what would help, what is wrong."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from ollama_compat.doctor.predict import Prediction, Predictor
from ollama_compat.doctor.shape import Shape, Weights
from ollama_compat.doctor.system import System

RUNNER_BYTES = 400 << 20  # of a runner beside weights and cache
CONTEXT = 4096  # tokens that have to fit
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
    needed: int  # with the cache of CONTEXT tokens and the runner
    bytes_a_token: float
    fits: bool
    place: str
    prediction: Prediction | None
    card_limit: float | None  # decode, with the experts in RAM and all else on the card
    change: Change | None
    problems: list[str]


class Doctor:
    """`machine`: the result of the job `machine`."""

    def __init__(self, system: System, machine: Mapping[str, Any]) -> None:
        self.system, self.machine = system, machine
        self._predictor = Predictor(machine, system.cache_bytes)

    def problems(self) -> list[str]:
        """What will not work on this machine, whatever the model."""
        found = []
        if self.machine["isa"] == "portable":
            found.append("this CPU executes neither AVX2 nor better: models run on plain code, many times slower")
        if self.system.memory_available < 1 << 30:
            found.append(f"only {self.system.memory_available / 2**20:.0f} MiB of memory are available")
        if self.system.driver and not self.machine.get("gpu"):
            found.append("an NVIDIA card and its driver are here, but torch is not, or finds no card: models run on the CPU")
        return found

    def diagnose(self, shape: Shape, context: int = 0, prompt: int = 512) -> Diagnosis:
        """Of a model, decode at `context` tokens."""
        needed = shape.nbytes + RUNNER_BYTES + shape.cache_bytes * min(CONTEXT, shape.context_length or CONTEXT)
        fits = needed <= self.system.memory_available
        problems = self._model_problems(shape, needed, fits)
        prediction = None if problems else self._predictor.predict(shape, context, prompt)
        return Diagnosis(
            name=shape.name,
            nbytes=shape.nbytes,
            needed=needed,
            bytes_a_token=shape.bytes_a_token,
            fits=fits,
            place=self._place(shape, needed, fits),
            prediction=prediction or self._limits(shape, prompt),
            card_limit=self._card_limit(shape),
            change=self._change(shape, context) if prediction and prediction.decode else None,
            problems=problems,
        )

    def _limits(self, shape: Shape, prompt: int) -> Prediction:
        """Of a model that will not run as things are: what the machine allows, and nothing that we expect."""
        limits = self._predictor.predict(shape, 0, prompt)
        return dataclasses.replace(limits, decode=None, prompt=None)

    def _model_problems(self, shape: Shape, needed: int, fits: bool) -> list[str]:
        problems = []
        if shape.architecture not in self.machine["architectures"]:
            problems.append(f"this version does not run the architecture {shape.architecture!r}")
        if not fits:
            there = self.system.memory_available
            problems.append(f"it needs {needed / 1e9:.1f} GB of memory, {there / 1e9:.1f} GB are available")
        return problems

    def _place(self, shape: Shape, needed: int, fits: bool) -> str:
        card = self.machine.get("gpu")
        if card and needed <= card["memory_free"]:
            return "RAM; fits the card"
        if card and fits and shape.expert_bytes and needed - shape.expert_bytes <= card["memory_free"]:
            return "RAM; all but the experts fit the card"
        return "RAM" if fits else "nowhere"

    def _card_limit(self, shape: Shape) -> float | None:
        """Tokens a second, if hand-offs cost nothing."""
        card = self.machine.get("gpu")
        if not card or not shape.expert_bytes:
            return None
        experts = sum(part.bytes_a_token for part in shape.weights if part.share < 1)
        seconds = experts / self.machine["read_all"] + (shape.bytes_a_token - experts) / card["memory_read"]
        return float(1 / seconds)

    # ------------------------------------------------------------ what would help

    def _change(self, shape: Shape, context: int) -> Change | None:
        """The one that helps decode most."""
        now = self._predictor.decode_seconds(shape, context)
        changes = [self._memory(shape, context, now), self._cores(shape, context, now), self._types(shape, context, now)]
        best = max((change for change in changes if change), key=lambda change: change.factor, default=None)
        return best if best and best.factor >= LEAST_GAIN else None

    def _memory(self, shape: Shape, context: int, now: float) -> Change | None:
        faster = self._predictor.decode_seconds(shape, context, SECOND_CHANNEL)
        modules = self.system.modules
        if modules and (modules.channels or modules.count) > 1:
            return Change("memory that is twice as fast", now / self._predictor.decode_seconds(shape, context, 2.0))
        what = "a second memory channel" if modules else "a second memory channel, if only one is filled"
        return Change(what, now / faster)

    def _cores(self, shape: Shape, context: int, now: float) -> Change | None:
        """More of the cores that there are, where a limit keeps them away; else twice as many."""
        used, there = self._predictor.rates(shape)["threads"], self.system.cores
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
        return Change("the same model in Q4_K_M", now / self._predictor.decode_seconds(smaller, context))


def plain(value: Any) -> Any:
    """Dataclasses as JSON values; infinity, which JSON cannot write, as None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
