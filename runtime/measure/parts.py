"""Which part of a token each row of a Program, and each kernel of a card, belongs to."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Iterable

PARTS = (
    ("attention", r"attention\.|delta\.|encode\.attention|.*\battn_(?!norm)|.*\bssm_"),
    ("router", r"router\.|.*\bffn_gate_inp"),
    ("CPU experts", r".*_exps"),
    ("feed-forward", r".*\bffn_"),
    ("output", r"output\.|token_embd"),
)
"""Name of a part, and what the labels of its rows begin with: names of GGUF tensors, or of kernels."""
REST = "norms and other"

CARD_PARTS = (
    ("attention", r"attend|rotate|rotary|delta"),
    ("router", r"choose"),
    ("hand-off", r"send|receive"),
    ("GPU experts", r"expert_|plan$|combine"),
    ("output", r"embed|gather"),
    ("PCIe", r"Memcpy (HtoD|DtoH)"),
)
"""The same of a card's kernels by their own names; those that multiply by a matrix belong where the matrix does."""
BETWEEN = "between kernels"  # the time of a token in which the card runs none, also before the first


@dataclasses.dataclass(frozen=True, slots=True)
class Kernel:
    """One that a card ran: its name, the tensor that it multiplied by (or nothing), and seconds."""

    name: str
    tensor: str
    seconds: float


def part_of(label: str) -> str:
    """The part that a row's label (see Recorder.labels) belongs to."""
    return next((name for name, pattern in PARTS if re.match(pattern, label)), REST)


def card_part_of(name: str, tensor: str) -> str:
    """The part that a kernel belongs to."""
    if tensor:
        return part_of(tensor)
    return next((part for part, pattern in CARD_PARTS if re.match(pattern, name)), REST)


def shares(rows: Iterable[tuple[str, float]]) -> dict[str, float]:
    """The sum of the rows' shares by part."""
    totals: defaultdict[str, float] = defaultdict(float)
    for label, share in rows:
        totals[part_of(label)] += share
    return dict(totals)


def of_card(
    kernels: Iterable[Kernel], whole: float, cpu_experts: float, front: Iterable[tuple[str, float]] = (), *, over_pcie: bool
) -> dict[str, float]:
    """Seconds of a token by part, which are `whole` together.

    `cpu_experts`: for how long the CPU computed. The card waits for it where it has nothing else to do, and what it waits longer
    than that, and longer than its own experts take, is the hand-off, as far as all else leaves it some of `whole`: threads that
    share their cores with the profiler's keep the card waiting longer than without it. `front`: rows of layers on the CPU,
    before the card's, with their seconds. `over_pcie`: the card's experts come over the bus.
    """
    totals: defaultdict[str, float] = defaultdict(float)
    for kernel in kernels:
        totals[card_part_of(kernel.name, kernel.tensor)] += kernel.seconds
    if cpu_experts:
        waited = min(totals["hand-off"], max(0.0, cpu_experts - totals["GPU experts"]))
        totals["CPU experts"] += waited
        totals["hand-off"] -= waited
    if over_pcie:  # what of them lies in VRAM takes a fiftieth of the time
        totals["PCIe"] += totals.pop("GPU experts", 0.0)
    for part, seconds in shares(front).items():
        totals[part] += seconds
    if cpu_experts:
        totals["hand-off"] -= min(totals["hand-off"], max(0.0, sum(totals.values()) - whole))
    return dict(totals) | {BETWEEN: max(0.0, whole - sum(totals.values()))}
