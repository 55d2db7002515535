"""From measurements to what a person wants to know: does a model fit, how fast will it be, what would help, what is wrong."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ollama_compat.doctor.card import CardPredictor
from ollama_compat.doctor.predict import Prediction, Predictor
from ollama_compat.doctor.shape import Shape, Weights
from ollama_compat.doctor.system import System

RUNNER_BYTES = 400 << 20  # of a runner beside weights and cache
CONTEXT = 4096  # tokens that have to fit
SECOND_CHANNEL = 1.9  # times the bandwidth
ROWS = 2048  # of a step on a card with room
LEAST_GAIN = 1.05  # what is worth saying
LEAN = {"F32", "F16", "BF16", "Q8_0"}  # types that people replace by Q4_K


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """Something to do, and how many times as fast decode would be."""

    what: str
    factor: float


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where a model lies: on a card from layer `first` on, with that part of each such layer's experts in VRAM and prompts in
    steps of `rows`; or not."""

    words: str
    resident: Sequence[float] = ()
    rows: int = 0
    first: int = 0
    on_card: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Diagnosis:
    """Of one model. Bytes; tokens a second."""

    name: str
    nbytes: int
    needed: int  # with the cache of CONTEXT tokens and the runner
    bytes_a_token: float
    fits: bool
    place: str
    prediction: Prediction | None  # where it would lie
    elsewhere: dict[str, Prediction]  # by where else it could lie, whether it fits there or not
    change: Change | None
    problems: list[str]


class Doctor:
    """`machine`: the result of the job `machine`."""

    def __init__(self, system: System, machine: Mapping[str, Any]) -> None:
        self.system, self.machine = system, machine
        self._predictor = Predictor(machine, system.cache_bytes)
        card = machine.get("gpu")
        self._card = CardPredictor(machine) if card and card.get("rates") else None

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

    def diagnose(
        self, shape: Shape, context: int = 0, prompt: int = 512, placement: Mapping[str, Any] | None = None
    ) -> Diagnosis:
        """Of a model, decode at `context` tokens. `placement`: of the job, on a card."""
        needed = shape.nbytes + RUNNER_BYTES + shape.cache_bytes * min(CONTEXT, shape.context_length or CONTEXT)
        fits = needed <= self.system.memory_available
        problems = self._model_problems(shape, needed, fits)
        place = self._place(shape, placement if fits and self._card and self._card.knows(shape) else None, fits)
        prediction = None if problems else self._predict(shape, place, context, prompt)
        whole = placement["whole"] if placement else None
        return Diagnosis(
            name=shape.name,
            nbytes=shape.nbytes,
            needed=needed,
            bytes_a_token=shape.bytes_a_token,
            fits=fits,
            place=place.words,
            prediction=prediction or self._limits(shape, prompt),
            elsewhere={} if problems else self._elsewhere(shape, whole, context, prompt),
            change=self._change(shape, place, context) if prediction and prediction.decode else None,
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

    def _place(self, shape: Shape, placement: Mapping[str, Any] | None, fits: bool) -> Place:
        if placement is None or "refused" in placement:
            return Place("RAM" if fits else "nowhere")
        resident, first = tuple(placement["resident"]), int(placement["first"])
        share = sum(resident) / len(resident) if resident else 1.0
        words = "card" if share == 1 else f"card, {1 - share:.0%} of the experts in RAM" if share else "card, experts in RAM"
        if first:
            words = f"card, the first {first} of {shape.layers} layers on the CPU"
        return Place(words, resident, placement["rows"], first, on_card=True)

    def _predict(self, shape: Shape, place: Place, context: int, prompt: int) -> Prediction:
        if not place.on_card:
            return self._predictor.predict(shape, context, prompt)
        assert self._card is not None
        front, rest = shape.split(place.first)
        limit = front.bytes_a_token / self.machine["read_all"] + self._card.limit_seconds(rest, place.resident)
        reading = self._card.prompt_seconds(rest, place.resident, prompt, place.rows)
        if place.first:
            reading += self._predictor.prompt_seconds(front, prompt, self.machine["threads"])
        return Prediction(
            decode=1 / self._decode_seconds(shape, place, context),
            decode_limit=1 / limit,
            prompt=prompt / reading,
            prompt_limit=math.inf,
            bound="RAM" if self._waits_for_ram(shape, place) else "card",
        )

    def _decode_seconds(self, shape: Shape, place: Place, context: int, bandwidth: float = 1.0) -> float:
        """Of a token on the card: after the layers on the CPU, where there are some."""
        assert self._card is not None
        front, rest = shape.split(place.first)
        seconds = self._card.decode_seconds(rest, place.resident, context, bandwidth)
        if not place.first:
            return seconds
        return seconds + self._predictor.decode_seconds(front, context, bandwidth, threads=self.machine["threads"])

    def _waits_for_ram(self, shape: Shape, place: Place) -> bool:
        """Whether most of a token's time is the CPU's."""
        there = self._decode_seconds(shape, _all_there(shape), 0)
        return self._decode_seconds(shape, place, 0) > 2 * there

    def _elsewhere(
        self, shape: Shape, whole: Mapping[str, Any] | None, context: int, prompt: int
    ) -> dict[str, Prediction]:
        """The speeds of a model by where it lies."""
        places = {"CPU": Place("RAM")}
        if self._card and self._card.knows(shape):
            shares = {"experts in RAM": 0.0, "half of the experts in VRAM": 0.5} if shape.expert_layers else {}
            if whole:
                words = f"{shape.layers - whole['first']} of {shape.layers} layers as a whole on the card"
                places[words] = Place(words, tuple(whole["resident"]), whole["rows"], whole["first"], on_card=True)
            for words, share in (shares | {"all in VRAM": 1.0}).items():
                places[words] = Place(words, (share,) * shape.expert_layers, ROWS, on_card=True)
        return {words: self._predict(shape, place, context, prompt) for words, place in places.items()}

    # ------------------------------------------------------------ what would help

    def _change(self, shape: Shape, place: Place, context: int) -> Change | None:
        """The one that helps decode most."""
        if place.on_card:
            changes = self._card_changes(shape, place, context)
        else:
            now = self._predictor.decode_seconds(shape, context)
            changes = [self._memory(shape, context, now), self._cores(shape, context, now), self._types(shape, context, now)]
        best = max((change for change in changes if change), key=lambda change: change.factor, default=None)
        return best if best and best.factor >= LEAST_GAIN else None

    def _card_changes(self, shape: Shape, place: Place, context: int) -> list[Change | None]:
        """Room for all experts, and faster memory for those that have none."""
        if not place.first and sum(place.resident) == len(place.resident):
            return []
        front, rest = shape.split(place.first)
        now = self._decode_seconds(shape, place, context)
        missing = front.nbytes + (rest.expert_bytes * (1 - sum(place.resident) / len(place.resident)) if place.resident else 0)
        there = self._decode_seconds(shape, _all_there(shape), context)
        what, factor = self._faster_memory()
        faster = self._decode_seconds(shape, place, context, factor)
        return [Change(f"{missing / 1e9:.0f} GB more VRAM", now / there), Change(what, now / faster)]

    def _memory(self, shape: Shape, context: int, now: float) -> Change | None:
        what, factor = self._faster_memory()
        return Change(what, now / self._predictor.decode_seconds(shape, context, factor))

    def _faster_memory(self) -> tuple[str, float]:
        """What would make memory faster, and by what factor."""
        modules = self.system.modules
        if modules and (modules.channels or modules.count) > 1:
            return "memory that is twice as fast", 2.0
        return "a second memory channel" if modules else "a second memory channel, if only one is filled", SECOND_CHANNEL

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


def _all_there(shape: Shape) -> Place:
    """On a card with room for all."""
    return Place("", (1.0,) * shape.expert_layers, ROWS, on_card=True)


def plain(value: Any) -> Any:
    """Dataclasses as JSON values; infinity, which JSON cannot write, as None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
