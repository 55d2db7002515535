"""What is measured on a card, as far as it needs none: its arithmetic, the slices, and where a model would lie."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ollama_compat.doctor import card
from ollama_compat.doctor.shape import of_file
from runtime import models
from runtime.execute import cpu, needs, shares
from runtime.execute.budget import DEFAULT_CONTEXT
from runtime.frames import Load
from runtime.gguf_file import open_gguf
from runtime.measure import card_plan, slices
from runtime.measure.batches import Texts
from runtime.measure.parts import BETWEEN, Kernel, card_part_of, of_card
from runtime.measure.slices import Slice
from runtime.weights import open_weights

SMALL = Slice(2, width=256, heads=4, heads_kv=2, head=64, experts=8, used=2, inner=256, vocabulary=512)
GIB = 1 << 30


@pytest.mark.parametrize(
    ("name", "tensor", "part"),
    [
        ("matvec_1", "blk.0.attn_q.weight", "attention"),
        ("matvec_1", "blk.0.ffn_gate_inp.weight", "router"),
        ("matvec_1", "output.weight", "output"),
        ("matmul", "blk.0.ffn_down.weight", "feed-forward"),
        ("attend_16_4_16_1_1", "", "attention"),
        ("choose", "", "router"),
        ("send", "", "hand-off"),
        ("expert_hidden", "", "GPU experts"),
        ("Memcpy HtoD", "", "PCIe"),
        ("rms_norm", "", "norms and other"),
    ],
)
def test_parts_by_the_names_of_kernels_and_of_their_tensors(name: str, tensor: str, part: str) -> None:
    assert card_part_of(name, tensor) == part


def test_a_card_that_waits_for_the_cpu() -> None:
    """It waits 7 ms. The CPU computes 5, during 1 of which the card has its own experts; so 4 of the 7 are the CPU's."""
    kernels = [Kernel("send", "", 0.5e-3), Kernel("expert_down", "", 1e-3), Kernel("receive", "", 6.5e-3)]
    found = of_card(kernels, 10e-3, 5e-3, over_pcie=False)
    assert found == pytest.approx({"hand-off": 3e-3, "GPU experts": 1e-3, "CPU experts": 4e-3, BETWEEN: 2e-3})
    assert sum(found.values()) == pytest.approx(10e-3)


def test_a_profiled_card_that_waits_longer_than_a_token_takes() -> None:
    kernels = [Kernel("expert_down", "", 1e-3), Kernel("receive", "", 12e-3)]
    found = of_card(kernels, 10e-3, 7e-3, over_pcie=False)
    assert found == pytest.approx({"GPU experts": 1e-3, "hand-off": 3e-3, "CPU experts": 6e-3, BETWEEN: 0.0})


def test_layers_on_the_cpu_before_those_of_the_card() -> None:
    rows = [("blk.0.attn_q.weight", 1e-3), ("blk.0.ffn_up_exps.weight", 2e-3)]
    found = of_card([Kernel("attend_16_4_16_1_1", "", 1e-3)], 5e-3, 0.0, rows, over_pcie=False)
    assert found == pytest.approx({"attention": 2e-3, "CPU experts": 2e-3, BETWEEN: 1e-3})


def test_experts_that_the_card_reads_over_the_bus() -> None:
    found = of_card([Kernel("expert_down", "", 3e-3), Kernel("Memcpy DtoH", "", 1e-3)], 4e-3, 0.0, over_pcie=True)
    assert found == pytest.approx({"PCIe": 4e-3, BETWEEN: 0.0})


def test_kernels_get_the_tensors_of_their_launches() -> None:
    card_parts = pytest.importorskip("runtime.measure.card_parts", reason="needs the extra cuda")
    launches = [("matvec", "a"), ("norm", ""), ("matvec", "b")]
    step = [("copy", 1.0), ("matvec", 2.0), ("norm", 4.0), ("matvec", 6.0)]
    found = card_parts.named(step * 2, launches, 2)
    assert found[:4] == [Kernel("copy", "", 0.5), Kernel("matvec", "a", 1.0), Kernel("norm", "", 2.0), Kernel("matvec", "b", 3.0)]
    assert found[4:] == found[:4]
    lost = card_parts.named(step[:-1], launches, 1)
    assert [kernel.tensor for kernel in lost] == ["", "", ""]


def test_layers_and_what_is_beside_them() -> None:
    card_rates = pytest.importorskip("runtime.measure.card_rates", reason="needs the extra cuda")
    alone = card_rates.Times(3.0, 3.0, (10.0, 20.0, 30.0))
    there = card_rates.Times(9.0, 10.0, (40.0, 80.0, 120.0))
    handed = card_rates.Times(21.0, 21.0, (80.0, 100.0, 120.0))
    parts = card_rates.Parts(4.0, 0.5)
    narrow = card_rates.narrow(slices.narrow(Slice(4)), alone, there, parts)
    assert (narrow["layer"], narrow["steps"][0]["layer"]) == (1.0, 10.0)
    assert narrow["layer_bytes"] < Slice(4).layer_bytes / 3
    found = card_rates.combined(Slice(4), alone, there, handed, parts)
    assert (found["head"], found["layer"], found["experts"], found["handed"]) == (1.0, 1.0, 1.0, 5.0)
    assert found["output"] == 0.5
    assert found["position"] == pytest.approx(1.0 / (4 * (card_rates.LONG - card_rates.SHORT) * 32 * 256))
    assert found["steps"][0] == {"rows": 64, "head": 0.0, "layer": 10.0, "streamed": 17.5}


def test_doctor_knows_what_the_executor_asks_of_reads_over_the_bus() -> None:
    assert card.PCIE_GAIN == shares.GAIN
    hybrid = pytest.importorskip("runtime.execute.hybrid", reason="needs the extra cuda")
    assert card.MOST_OVER_PCIE + 1 == hybrid.MOST_PARTS


@pytest.mark.parametrize("types", [("Q4_K", "Q6_K"), ("MXFP4", "MXFP4"), ("IQ4_XS", "Q5_K"), ("F16", "F16")])
def test_a_slice_is_a_model_that_runs(types: tuple[str, str], tmp_path: Path) -> None:
    path, shape = tmp_path / "slice.gguf", dataclasses.replace(SMALL, usual=types[0], better=types[1])
    slices.write(shape, path)
    with open_gguf(path) as file:
        layers = [info for info in file.tensors.values() if info.name.startswith("blk.")]
        stacks = [info for info in layers if len(info.shape) == 3]
        assert sum(info.nbytes for info in stacks) == 2 * shape.stack_bytes
        assert sum(info.nbytes for info in layers) == 2 * (shape.stack_bytes + shape.layer_bytes)
        assert {info.type_name for info in stacks} == set(types)
        assert file.tensors["token_embd.weight"].nbytes == shape.output_bytes
        matrices = sum(np.prod(info.shape) for info in layers if len(info.shape) == 2)
    assert matrices == shape.operations[0]
    assert shape.operations[1] == 2 * 3 * 2 * 256 * 256
    executor = cpu.load(
        path, num_ctx=128, num_parallel=1, num_batch=64, num_thread=1, kv_cache_type="f16", progress=lambda *_: None
    )
    try:
        expected = shape.output_bytes + 2 * (shape.layer_bytes + sum(shape.expert_types.values()))
        assert executor.bytes_per_token == pytest.approx(expected, rel=0.01)
        texts = Texts(executor, 1, 128)
        texts.read(0, 64)
        logits = executor.forward(texts.next(64))
        assert np.isfinite(logits).all()
        assert logits.std() > 0
    finally:
        executor.close()


def test_layers_that_no_cache_holds() -> None:
    shape = Slice(1)
    each = shape.stack_bytes
    assert slices.layers_beyond(0, shape, 100 * each) == 5
    assert slices.layers_beyond(2 * each, shape, 100 * each) == 7
    assert slices.layers_beyond(20 * each, shape, 10 * each) == 9
    assert slices.layers_beyond(20 * each, shape, 11 * each) == 11


def numbers(**fields: Any) -> dict[str, Any]:
    return {
        "layers": 4,
        "expert_layers": 4,
        "embedding_length": 1024,
        "hidden_width": 4096,
        "head_count": 16,
        "query_width": 4096,
        "cache_bytes": 1024,
        "expert_count": 8,
        "expert_used_count": 2,
        "context_length": 4096,
        "dense_bytes": GIB // 2,
        "table_bytes": GIB // 16,
        "output_bytes": GIB // 16,
        "expert_bytes": 8 * GIB,
        "n_vocab": 1000,
    } | fields


def test_where_a_model_would_lie() -> None:
    assert placed(80 * GIB)["resident"] == [1.0] * 4
    assert placed(80 * GIB)["whole"] is None
    assert placed(80 * GIB, num_cpu_moe=1)["resident"] == [0.0, 1.0, 1.0, 1.0]
    part = placed(8 * GIB)
    assert all(0 < share < 1 for share in part["resident"])
    assert (part["first"], part["rows"]) == (0, 2048)
    assert part["whole"]["resident"] == [1.0] * (4 - part["whole"]["first"])
    dense = placed(10 * GIB, expert_layers=0, expert_count=0, expert_bytes=0)
    assert (dense["resident"], dense["whole"]) == ([], None)
    assert "more are needed" in placed(GIB // 2)["refused"]
    assert "small" in placed(80 * GIB, dense_bytes=1000, expert_bytes=1000)["refused"]


def placed(vram: int, num_cpu_moe: int = 0, num_gpu: int = -1, **fields: int) -> dict[str, Any]:
    asked = Load("", num_parallel=0, num_batch=0, num_gpu=num_gpu, num_cpu_moe=num_cpu_moe)
    return card_plan.placed(numbers(**fields), vram, asked)


def test_a_small_card_gets_the_last_layers() -> None:
    """A dense model of 4 layers, 2 GiB each: what else it needs is less than a GiB."""
    dense = {"dense_bytes": 8 * GIB + GIB // 8, "expert_layers": 0, "expert_count": 0, "expert_bytes": 0}
    assert [placed(GIB * room, **dense)["first"] for room in (10, 7, 5, 3)] == [0, 1, 2, 3]
    assert "refused" in placed(2 * GIB, **dense)
    assert placed(10 * GIB, num_gpu=3, **dense)["first"] == 2  # the output counts as the last one


MOE_67B = {  # 28 layers of Qwen3-235B-A22B's shape in Q4_K_M, which ran on an H100 with its memory capped (docs/performance.md)
    "layers": 28,
    "expert_layers": 28,
    "embedding_length": 4096,
    "hidden_width": 12288,
    "head_count": 64,
    "query_width": 16384,
    "cache_bytes": 57344,
    "table_bytes": 350060544,
    "expert_count": 128,
    "expert_used_count": 8,
    "context_length": 40960,
    "dense_bytes": 2050842624,
    "output_bytes": 510504960,
    "expert_bytes": 40957378560,
    "n_vocab": 151936,
}


@pytest.mark.parametrize(("card", "with_output"), [(24, 17), (12, 8), (8, 5)])
def test_as_many_whole_layers_fit_as_did_on_a_card(card: int, with_output: int) -> None:
    found = placed(card * GIB, **MOE_67B)
    assert found["first"] == 0
    assert MOE_67B["layers"] - found["whole"]["first"] + 1 == with_output


def test_layers_that_are_left_have_the_dense_ones_first() -> None:
    shape = numbers(expert_layers=3)
    assert len(card_plan.needs_of(shape, 1, 1, 512).experts) == 3
    assert len(card_plan.needs_of(shape, 2, 1, 512).experts) == 2
    whole, less = card_plan.needs_of(shape, 0, 1, 512), card_plan.needs_of(shape, 2, 1, 512)
    assert whole.dense == GIB // 2
    assert less.dense == (GIB // 2 - GIB // 8) // 2 + GIB // 16  # half of the layers, and the output


@pytest.mark.parametrize("first", [0, 1])
def test_needs_by_the_shape_are_those_by_the_tensors(first: int, tmp_path: Path) -> None:
    path = tmp_path / "slice.gguf"
    slices.write(dataclasses.replace(SMALL, better=SMALL.usual), path)  # experts of all layers alike
    weights = open_weights(path, lambda *_: None)
    try:
        found = card_plan.needs_of(of_file(path, "m").numbers, first, 2, 512)
        expected = needs.needs_of(weights, models.build(weights), found.blocks, 512, DEFAULT_CONTEXT, first)
    finally:
        weights.close()
    assert found == dataclasses.replace(expected, step=found.step, dense=found.dense)
    assert (found.step, found.dense) == pytest.approx((expected.step, expected.dense), rel=0.02)
