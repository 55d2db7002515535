"""Which part of a token each row of a Program belongs to."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

PARTS = (
    ("attention", r"attention\.|encode\.attention|.*\battn_(?!norm)|.*\bssm_"),
    ("router", r"router\.|.*\bffn_gate_inp"),
    ("CPU experts", r".*_exps"),
    ("feed-forward", r".*\bffn_"),
    ("output", r"output\.|token_embd"),
)
"""Name of a part, and what the labels of its rows begin with: names of GGUF tensors, or of kernels."""
REST = "norms and other"


def part_of(label: str) -> str:
    """The part that a row's label (see Recorder.labels) belongs to."""
    return next((name for name, pattern in PARTS if re.match(pattern, label)), REST)


def shares(rows: Iterable[tuple[str, float]]) -> dict[str, float]:
    """The sum of the rows' shares by part."""
    totals: defaultdict[str, float] = defaultdict(float)
    for label, share in rows:
        totals[part_of(label)] += share
    return dict(totals)
