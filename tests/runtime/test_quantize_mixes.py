"""The types that each mix gives the tensors of seven real models, against llama.cpp's own record of them, and what an importance
matrix changes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_gguf

from runtime.quantize import mixes
from runtime.quantize.mixes import MIXES, Chooser, Model, Shape

FOLDER = Path(__file__).parents[1] / "golden/quantize"
RECORD: dict[str, Any] = json.loads((FOLDER / "mixes.json").read_text())
WEIGHED: dict[str, Any] = json.loads((FOLDER / "weighed_mixes.json").read_text())
KEPT = "F32"  # what tensors have that are not to be quantised


def layers(text: str) -> Iterator[int]:
    """Numbers written as 0-3,7; -1 for a tensor of no layer."""
    for part in text.split(","):
        first, _, last = part.partition("-")
        yield from range(int(first or -1), int(last or first or -1) + 1)


def name(suffix: str, layer: int) -> str:
    return suffix if layer < 0 else f"blk.{layer}.{suffix}"


def tensors(record: dict[str, Any]) -> list[Shape]:
    found = []
    for suffix, (row, where, rank) in record["tensors"].items():
        found += [Shape(name(suffix, layer), (row, 64, 64)[:rank], KEPT) for layer in layers(where)]
    return mixes.ordered(found)


def expected(record: dict[str, Any], mix: str) -> dict[str, str]:
    """Those tensors that do not get the mix's own type."""
    found = {}
    for suffix, kinds in record["mixes"][mix].items():
        if suffix != "default":
            found |= {name(suffix, layer): kind for kind, where in kinds.items() for layer in layers(where)}
    return found


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("label", RECORD)
def test_record(label: str, mix: str) -> None:
    record = RECORD[label]
    model = Model(
        record["architecture"], record["n_layer"], record["n_expert"], record["group"], label.startswith("meta-llama-3.1-70b")
    )
    shapes = tensors(record)
    chooser = Chooser(MIXES[mix], model, shapes)
    plain = record["mixes"][mix]["default"]
    found = {shape.name: chooser.type_of(shape) for shape in shapes}
    kept = {n for n, kind in found.items() if kind == KEPT}
    assert MIXES[mix].plain == plain
    if mix != "F32":
        assert all(n.endswith((".bias", "norm.weight", "_inp.weight", "conv1d.weight", "_inp_shexp.weight")) for n in kept)
    assert {n: kind for n, kind in found.items() if kind != plain and n not in kept} == expected(record, mix)


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("label", tiny_gguf.DEEP)
def test_what_an_importance_matrix_changes(label: str, mix: str) -> None:
    shape = tiny_gguf.DEEP[label]
    shapes = mixes.ordered(Shape(name, rows[::-1], "F16") for name, rows in tiny_gguf.tensors(shape).items())
    plain, weighed = (
        Model(shape.architecture, shape.layers, shape.experts, shape.heads // shape.kv_heads, has_matrix=given)
        for given in (False, True)
    )
    before, after = (
        [chooser.type_of(s) for s in shapes] for chooser in (Chooser(MIXES[mix], m, shapes) for m in (plain, weighed))
    )
    changed = {s.name: new for s, old, new in zip(shapes, before, after, strict=True) if old != new}
    assert changed == WEIGHED[label].get(mix, {})
