"""How fast a model will be, wherever it lies: in RAM, on a card, on both, or partly left on the disk."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ollama_compat.doctor.card import CardPredictor
from ollama_compat.doctor.predict import STEP, Prediction, Predictor
from ollama_compat.doctor.shape import Shape
from ollama_compat.doctor.system import System

RUNNER_BYTES = 400 << 20  # of a runner beside weights and cache
CONTEXT = 4096  # tokens that have to fit
ROWS = 2048  # of a step on a card with room
RAM = "RAM"


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where a model lies: on a card from layer `first` on, with that part of each such layer's experts in VRAM; or not. Prompts
    are read in steps of `rows`, which the layers before `first` get as a whole too. `on_disk`: the part of all else that memory
    has no room for."""

    words: str
    resident: Sequence[float] = ()
    rows: int = STEP
    first: int = 0
    on_card: bool = False
    on_disk: float = 0.0

    @property
    def share(self) -> float:
        """Of the experts of the card's layers, in VRAM."""
        return sum(self.resident) / len(self.resident) if self.resident else 1.0

    @property
    def whole(self) -> bool:
        """Whether all is on the card."""
        return self.on_card and not self.first and self.share == 1.0


def all_there(shape: Shape) -> Place:
    """On a card with room for all."""
    return Place("", (1.0,) * shape.expert_layers, ROWS, on_card=True)


class Speeds:
    """`machine`: the result of the job `machine`."""

    def __init__(self, system: System, machine: Mapping[str, Any]) -> None:
        self.machine = machine
        self.cpu = Predictor(machine, system.cache_bytes, system.quota)
        card = machine.get("gpu")
        self._card = CardPredictor(machine) if card and card.get("rates") else None
        self._memory = system.memory_available

    # ------------------------------------------------------------ where

    def needed(self, shape: Shape) -> int:
        """Bytes of RAM for a model that is on no card."""
        cache = shape.cache_bytes * min(CONTEXT, shape.context_length or CONTEXT)
        return shape.nbytes + RUNNER_BYTES + int(cache * self.machine["kept_share"])

    def place(self, shape: Shape, placement: Mapping[str, Any] | None) -> Place:
        """Where a server puts it. `placement`: of the job, on a card."""
        if placement is None or "refused" in placement or not self._takes(shape):
            return self._spilled(shape, Place(RAM))
        place = Place("", tuple(placement["resident"]), placement["rows"], placement["first"], on_card=True)
        words = "card" if place.share == 1 else f"card, {1 - place.share:.0%} of the experts in RAM"
        words = words if place.share else "card, experts in RAM"
        if place.first:
            words = f"card, the first {place.first} of {shape.layers} layers on the CPU"
        return self._spilled(shape, dataclasses.replace(place, words=words))

    def elsewhere(self, shape: Shape, whole: Mapping[str, Any] | None) -> list[Place]:
        """Where else it could lie, if there were room. `whole`: of the job's placement."""
        places = [Place("CPU")]
        if self._takes(shape):
            shares = {"experts in RAM": 0.0, "half of the experts in VRAM": 0.5} if shape.expert_layers else {}
            if whole:
                words = f"{shape.layers - whole['first']} of {shape.layers} layers as a whole on the card"
                places.append(Place(words, tuple(whole["resident"]), whole["rows"], whole["first"], on_card=True))
            for words, share in (shares | {"all in VRAM": 1.0}).items():
                places.append(Place(words, (share,) * shape.expert_layers, ROWS, on_card=True))
        return places

    def _takes(self, shape: Shape) -> bool:
        """Whether a card would have it, and its speed there is known."""
        return self._card is not None and not shape.makes_vectors and self._card.knows(shape)

    def _spilled(self, shape: Shape, place: Place) -> Place:
        """With what memory has no room for left in the file, which the system then reads as it is used."""
        held = self.in_ram(shape, place)
        room = max(0.0, self._memory - (self.needed(shape) - shape.nbytes))
        if held <= room:
            return place
        share = 1 - room / held
        return dataclasses.replace(place, words=f"{place.words}, {share:.0%} of that on the disk", on_disk=share)

    def in_ram(self, shape: Shape, place: Place) -> float:
        """Bytes that are not on the card."""
        if not place.on_card:
            return shape.nbytes
        front, rest = shape.split(place.first)
        return front.nbytes + rest.expert_bytes * (1 - place.share)

    # ------------------------------------------------------------ how fast

    def predict(self, shape: Shape, place: Place, context: int, prompt: int) -> Prediction:
        """Decode at `context` tokens, and a prompt."""
        if not place.on_card:
            found = self.cpu.predict(shape, context, prompt)
            return self._from_disk(shape, place, found, prompt) if place.on_disk else found
        assert self._card is not None
        front, rest = shape.split(place.first)
        limit = front.bytes_a_token / self.machine["read_all"] + self._card.limit_seconds(rest, place.resident)
        reading = self._card.prompt_seconds(rest, place.resident, prompt, place.rows)
        if place.first:
            reading += self.cpu.prompt_seconds(front, prompt, self.machine["threads"], place.rows)
        found = Prediction(
            decode=1 / self.decode_seconds(shape, dataclasses.replace(place, on_disk=0.0), context),
            decode_limit=1 / limit,
            prompt=prompt / reading,
            prompt_limit=math.inf,
            bound="RAM" if self._waits_for_ram(shape, place) else "card",
        )
        return self._from_disk(shape, place, found, prompt) if place.on_disk else found

    def decode_seconds(self, shape: Shape, place: Place, context: int, bandwidth: float = 1.0) -> float:
        """Of a token. `bandwidth`: see Predictor.predict."""
        if not place.on_card:
            return self.cpu.decode_seconds(shape, context, bandwidth) + self._disk_seconds(shape, place)
        assert self._card is not None
        front, rest = shape.split(place.first)
        seconds = self._card.decode_seconds(rest, place.resident, context, bandwidth)
        if place.first:  # one after the other
            seconds += self.cpu.decode_seconds(front, context, bandwidth, threads=self.machine["threads"])
        return seconds + self._disk_seconds(shape, place)

    def _waits_for_ram(self, shape: Shape, place: Place) -> bool:
        """Whether most of a token's time is the CPU's."""
        return self.decode_seconds(shape, place, 0) > 2 * self.decode_seconds(shape, all_there(shape), 0)

    def _from_disk(self, shape: Shape, place: Place, found: Prediction, prompt: int) -> Prediction:
        """What is left of speeds when a part has to come from the disk: again for every token, and for every step of a prompt."""
        token = self._disk_seconds(shape, place)
        steps = -(-prompt // place.rows)
        step = place.on_disk * self.in_ram(shape, place) / (self.machine["disk"] or math.nan)
        return dataclasses.replace(
            found,
            decode=_slower(found.decode, token),
            decode_limit=_slower(found.decode_limit, token) or 0.0,
            prompt=_slower(found.prompt, steps * step / prompt),
            bound="disk",
        )

    def _disk_seconds(self, shape: Shape, place: Place) -> float:
        """Of a token, to read what memory has no room for; not a number where nobody knows the disk."""
        if not place.on_disk:
            return 0.0
        front, rest = shape.split(place.first) if place.on_card else (shape, shape)
        experts = sum(part.bytes_a_token for part in rest.weights if part.share < 1) * (1 - place.share)
        read = front.bytes_a_token + (experts if place.on_card else 0.0)
        return float(place.on_disk * read / (self.machine["disk"] or math.nan))


def _slower(speed: float | None, seconds: float) -> float | None:
    """Tokens a second with so many more seconds a token."""
    return None if speed is None or math.isnan(seconds) else 1 / (1 / speed + seconds)
