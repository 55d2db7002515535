"""The report as one HTML file that needs nothing else: styles and plots are in it."""

from __future__ import annotations

import dataclasses
import importlib.resources
import math
from typing import Any

import jinja2

from ollama_compat.compare.report import Comparison, Report, document

TEMPLATE = "report.html"


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """Of a plot, in pixels: labels stand before the bars, or above them where that leaves too little room."""

    name: str
    width: int
    row: int
    label: int  # before the bars; 0: above
    number: int  # behind them


MARGIN = 0.04  # of the scale at both its ends, so that no point or mark lies on the edge
MOST_MARKS, HALF_MARK = 8, 14  # on the scale; pixels of half the text at one
LAYOUTS = Layout("wide", 720, 30, 250, 130), Layout("narrow", 370, 46, 0, 60)


def render(report: Report) -> str:
    """The page."""
    text = (importlib.resources.files("ollama_compat") / "data" / TEMPLATE).read_text("utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"figure": figure, "times": times}
    plots = [[plot(comparison, layout) for layout in LAYOUTS] for comparison in report.comparisons]
    return environment.from_string(text).render(report=document(report), plots=plots)


def figure(value: float) -> str:
    """A number with three digits or so."""
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:.{min(digits, 4)}f}"


def times(value: float) -> str:
    """A ratio: with two digits behind the point, or three in all."""
    return figure(value) if value >= 1 else f"{value:.2f}"


def plot(comparison: Comparison, layout: Layout) -> dict[str, Any]:
    """Where the bars and whiskers of the ratios lie, on a scale of logarithms with 1 in sight."""
    lines = comparison.lines
    ends = [end for line in lines for end in (line.ratio.low, line.ratio.high)]
    low, high = min([0.8, *ends]), max([1.25, *ends])
    margin = (high / low) ** MARGIN
    low, high = low / margin, high * margin
    scale = (layout.width - layout.label - layout.number) / math.log(high / low)

    def x(value: float) -> float:
        return round(layout.label + scale * math.log(value / low), 1)

    marks = [2.0**power for power in range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)]
    if len(marks) > MOST_MARKS:
        marks = [mark for mark in marks if math.log2(mark) % 2 == 0]
    above = 0 if layout.label else 16
    rows = [
        {
            "y": layout.row * number + 34 + above,
            "label_y": layout.row * number + 38 - above // 2,
            "label": f"{line.metric}{f', {line.cell}' if line.cell else ''}",
            "x": x(line.ratio.value),
            "low": x(line.ratio.low),
            "high": x(line.ratio.high),
            "text": f"{times(line.ratio.value)}x",
            "kind": line.verdict.split()[0],
        }
        for number, line in enumerate(lines)
    ]
    return {
        "name": layout.name,
        "width": layout.width,
        "height": layout.row * len(rows) + 44,
        "one": x(1.0),
        "marks": [{"x": x(mark), "text_x": max(x(mark), HALF_MARK), "text": f"{mark:g}x"} for mark in marks],
        "rows": rows,
    }
