"""How fast kernels are that take rows of activations one by one: norms, packing, gates, sums, and what experts need beside their
matrices.

A row is a piece of work that a thread claims, and a value of it costs more where a step's rows do not fit the cores' caches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from runtime.execute.recorder import Recorder
from runtime.execute.step import view
from runtime.kernels import router
from runtime.layers.ops import Routing
from runtime.measure.products import activations
from runtime.measure.stage import Record, Stage
from runtime.quants import BY_NAME

WIDE, NARROW = 2048, 256  # values of a row
FEW, MANY = 64, 512  # rows of a step: wide ones of few are as many values as narrow ones of many
EXPERTS, CHOSEN = 64, 4  # of a router: answers of so many are FEW * WIDE and MANY * WIDE values too
KERNELS = {"norm": "rows.rms_norm", "pack": "rows.pack", "gate": "rows.gated", "add": "rows.add"}
COMBINE, CHOOSE = "router.combine", "router.choose"


@dataclasses.dataclass(frozen=True, slots=True)
class VectorRate:
    """One kernel, in seconds, all threads together."""

    line: float  # a row beside its values
    near: float  # a value, where the rows of a step are FEW * WIDE values
    far: float  # where they are MANY * WIDE


def vectors(stage: Stage, usual: str, seconds: float) -> dict[str, VectorRate]:
    """Those of KERNELS, of `combine`, whose values are those of the experts' answers, and of `choose`, whose values are the
    experts as often as one is chosen. `usual`: the type of weights that activations are packed for."""
    sizes = (WIDE, FEW), (NARROW, MANY), (WIDE, MANY)
    few, long, many = (_taken(stage, _alone(usual, width), rows, seconds) for width, rows in sizes)
    rates = {name: _rate(*(taken.get(label, 0.0) for taken in (few, long, many))) for name, label in KERNELS.items()}
    line = rates["add"].line
    few, many = (_taken(stage, _routed, rows, seconds) for rows in (FEW, MANY))
    near, far = (max(0.0, taken[COMBINE] - line) / (CHOSEN * router.COMBINED) for taken in (few, many))
    choice = max(0.0, few[CHOOSE] - line) / (EXPERTS * CHOSEN)
    return rates | {"combine": VectorRate(line, near, far), "choose": VectorRate(line, choice, choice)}


def _taken(stage: Stage, record: Record, rows: int, seconds: float) -> Mapping[str, float]:
    """Seconds of a row of activations by kernel."""
    return {label: taken / rows for label, taken in stage.parts(record, rows, seconds).items()}


def _rate(few: float, long: float, many: float) -> VectorRate:
    """From the seconds of a row: wide ones of few, narrow ones of many, and wide ones of many."""
    near = max(0.0, few - long) / (WIDE - NARROW)
    line = max(0.0, long - NARROW * near)
    return VectorRate(line, near, max(near, (many - line) / WIDE))


def _alone(usual: str, width: int) -> Record:
    def record(recorder: Recorder) -> None:
        x, weight = activations(recorder, width), np.ones(width, np.float32)
        normed, gate = recorder.rms_norm(x, weight, 1e-6), recorder.rms_norm(x, weight, 1e-6)
        recorder._packed(normed, BY_NAME[usual].activation)
        recorder.gated(gate, x, "silu")  # in place: of what each run makes anew
        recorder.add(normed, x)

    return record


def _routed(recorder: Recorder) -> None:
    """What is combined is written once, since pages that nobody has written to are one and the same. Logits are overwritten, so
    each run makes them anew."""
    x = activations(recorder, router.COMBINED)
    logits = recorder.rms_norm(activations(recorder, EXPERTS), np.ones(EXPERTS, np.float32), 1e-6)
    ids, weights = recorder.chosen(logits, Routing(CHOSEN, True, 1.0))
    answers, out = recorder._pairs(x, CHOSEN, x.width), recorder._like(x, x.width)
    view(answers, answers.limit)[:] = 1.0
    recorder._row(router.combine, x.count, answers.address, ids.address, weights.address, out.address, out.width, CHOSEN)
