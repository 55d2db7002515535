"""The outcome as data: every metric with both sides' spreads and the ratio, sameness in sentences, and where we lose."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from ollama_compat.compare.figures import Ratio, Spread, ratio, spread
from ollama_compat.compare.sameness import Sameness
from ollama_compat.compare.turns import COUNTED, HERE, Record, Samples
from ollama_compat.compare.workload import Plan

PEAKS_ALIKE = 1.05  # times: what differs by less is no difference
METRICS = {
    "load": ("load", "s", True),
    "first": ("time to first token", "s", True),
    "prefill": ("prefill", "tokens/s", False),
    "decode": ("decode", "tokens/s", False),
    "total": ("all users together", "tokens/s", False),
    "ram": ("peak RAM", "MB", True),
    "vram": ("peak VRAM", "MB", True),
}
"""By key: name, unit, whether less is better."""


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """One metric of one cell; `ratio` is how many times as good ours is."""

    cell: str
    metric: str
    unit: str
    mine: Spread
    theirs: Spread
    ratio: Ratio
    peak: bool = False  # the largest of all rounds

    @property
    def once(self) -> bool:
        """Whether a side was measured only once, so that nobody can say how sure the ratio is."""
        return min(self.mine.count, self.theirs.count) < 2

    @property
    def verdict(self) -> str:
        """In a word."""
        if self.once and not self.peak:
            return "measured once"
        alike = max(self.ratio.value, 1 / self.ratio.value) < PEAKS_ALIKE if self.peak else not self.ratio.clear
        if alike:
            return "no clear difference"
        return "better" if self.ratio.value > 1 else "worse"


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """Ours against one other side."""

    name: str
    lines: list[Line]
    sameness: Sameness
    doubtful: tuple[list[str], list[str]]  # of ours and theirs, see Record
    by_our_clock: list[str]  # what a side told no times of, so that both are by the clock here
    failed: tuple[dict[str, str], dict[str, str]]  # the same


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """All of it."""

    model: str
    machine: str
    versions: dict[str, str]  # by side
    settings: dict[str, str]  # by side: what was set for it
    plan: Plan
    comparisons: list[Comparison]
    notes: list[str]


def compare(mine: Record, theirs: Record, sameness: Sameness) -> Comparison:
    """Every metric that both have."""
    lines = [line for line in _lines(mine, theirs) if line is not None]
    untold = [name for name in COUNTED if any(_here(name, samples, theirs.cells[cell]) for cell, samples in mine.cells.items())]
    doubtful = mine.doubtful, theirs.doubtful
    return Comparison(theirs.side.name, lines, sameness, doubtful, untold, (mine.failed, theirs.failed))


def _lines(mine: Record, theirs: Record) -> Iterator[Line | None]:
    if theirs.side.dialect == "ollama":  # the others have their model loaded from the start
        yield _line("", "load", mine.load, theirs.load)
    for cell, samples in mine.cells.items():
        if cell in mine.failed or cell in theirs.failed:
            continue
        yield from _cell(cell, samples, theirs.cells[cell])
    for metric in ("ram", "vram"):
        one, other = getattr(mine, metric), getattr(theirs, metric)
        yield _peak(metric, one / 1e6, other / 1e6) if one and other else None


def _cell(cell: str, mine: Samples, theirs: Samples) -> Iterator[Line | None]:
    for metric in METRICS:
        name = metric + HERE if _here(metric, mine, theirs) else metric
        if mine.get(name) and theirs.get(name):
            yield _line(cell, metric, mine[name], theirs[name])


def _here(metric: str, mine: Samples, theirs: Samples) -> bool:
    """Whether a side told no times of its own, so that only one clock is the same for both."""
    return metric in COUNTED and not (mine.get(metric) and theirs.get(metric)) and bool(theirs.get(metric + HERE))


def _line(cell: str, key: str, mine: Sequence[float], theirs: Sequence[float]) -> Line | None:
    if not mine or not theirs or min(*mine, *theirs) <= 0:
        return None
    name, unit, less = METRICS[key]
    return Line(cell, name, unit, spread(mine), spread(theirs), ratio(mine, theirs, smaller_is_better=less))


def _peak(key: str, mine: float, theirs: float) -> Line:
    name, unit, less = METRICS[key]
    return Line("", name, unit, spread([mine]), spread([theirs]), ratio([mine], [theirs], smaller_is_better=less), peak=True)


def sentences(found: Sameness) -> list[str]:
    """What is the same and what is not, as plainly as the one as the other."""
    lines = []
    if found.prompts:
        lines.append(f"prompts rendered alike: {sum(found.prompts)} of {len(found.prompts)}")
    if found.texts:
        equal = sum(text.equal for text in found.texts)
        lines.append(f"greedy texts alike: {equal} of {len(found.texts)}")
        lines += [_difference(number, text) for number, text in enumerate(found.texts, 1) if not text.equal]
    if found.tool_calls is not None:
        lines.append("tool calls alike: " + ("yes" if found.tool_calls else "NO"))
    if found.cosines:
        lines.append(f"embeddings: smallest cosine {min(found.cosines):.6f}")
    return lines + found.notes


def _difference(number: int, text: Any) -> str:
    told = [f"{gap:.2f}" for gap in text.gaps if gap is not None]
    where = f"  text {number} parts after {text.same} of {text.tokens} tokens"
    if not told:
        return f"{where}: no log probabilities tell whether that is a near-tie"
    kind = "a near-tie, which rounding decides" if text.near_tie else "NOT explained by a near-tie"
    return f"{where}: the two tokens lie {' and '.join(told)} nats apart there; {kind}"


def losses(comparison: Comparison) -> list[str]:
    """Where we are worse or differ."""
    worse = [
        f"{line.metric}{f' ({line.cell})' if line.cell else ''}: {line.ratio.value:.2f}x of {comparison.name}"
        for line in comparison.lines
        if line.verdict == "worse"
    ]
    worse += [f"{cell}: ours answered with an error" for cell in comparison.failed[0]]
    found = comparison.sameness
    different = ["prompts are rendered differently"] if not all(found.prompts) else []
    parted = [text for text in found.texts if not text.equal and not text.near_tie]
    different += ["greedy texts part where rounding does not explain it"] * any(text.told for text in parted)
    different += ["greedy texts part where no log probabilities tell why"] * any(not text.told for text in parted)
    different += ["tool calls differ"] * (found.tool_calls is False)
    different += ["embeddings differ"] * (bool(found.cosines) and min(found.cosines) < 0.999)
    return worse + different


def document(report: Report) -> dict[str, Any]:
    """As JSON."""
    data = dataclasses.asdict(report)
    for entry, comparison in zip(data["comparisons"], report.comparisons, strict=True):
        entry["losses"] = losses(comparison)
        entry["sentences"] = sentences(comparison.sameness)
        for line, source in zip(entry["lines"], comparison.lines, strict=True):
            line["verdict"], line["once"] = source.verdict, source.once
    return data
