"""What every leaf of a tier has to hold. `test_leaves.py` runs this file in a child process for each tier."""

from __future__ import annotations

import ctypes
import os
import re

import leaf_twins as twins
import numpy as np
import pytest
from leaf_twins import BUDGETS, LEAF_TYPES, Array, Guarded
from llvmlite import ir

from runtime.kernels import jit, tiers
from runtime.kernels.cache import KernelCache
from runtime.kernels.leaves import COLUMNS, Leaves, activation_bytes
from runtime.quants.activations import ACTIVATIONS
from runtime.quants.base import LeafType
from runtime.quants.opened import OPENED, Opened
from runtime.quants.signed_block import SignedBlockType
from runtime.quants.strips import StripType
from runtime.quants.unpacked import form_of, unpack

THREE = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 3)
FOUR = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)
FIVE = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 5)
SEVEN = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 7)

every_type = pytest.mark.parametrize("kind", LEAF_TYPES, ids=lambda kind: kind.name)
STRIPS = [kind for kind in LEAF_TYPES if isinstance(kind, StripType)]
STRIPS_OF_BLOCKS = [kind for kind in STRIPS if kind.block_size > 1]
every_strip = pytest.mark.parametrize("kind", STRIPS, ids=lambda kind: kind.name)
at_either_end = pytest.mark.parametrize("at_end", [True, False], ids=["end", "start"])


@pytest.fixture(scope="module")
def leaves() -> Leaves:
    return Leaves()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(1)


def form(kind: LeafType) -> str:
    """The format of what the weights are multiplied with."""
    return tiers.activation_of(kind, jit.TIER.name)


def run_dot(leaves: Leaves, kind: LeafType, weights: Array, stride: int, rows: int, packed: list[Array], columns: int) -> Array:
    """All of `packed` through the leaf for `columns`, (len(packed), rows)."""
    out = np.full((len(packed), rows), np.nan, np.float32)
    leaf = SEVEN(leaves.dot(kind.name, columns))
    blocks = packed[0].nbytes // activation_bytes(form(kind), max(kind.block_size, 1))
    for first in range(0, len(packed), columns):
        inputs, outputs = twins.addresses(packed[first : first + columns]), twins.addresses(list(out[first : first + columns]))
        leaf(weights.ctypes.data, stride, rows, inputs.ctypes.data, outputs.ctypes.data, blocks, 0)
    return out


def widths(kind: LeafType) -> tuple[int, ...]:
    """Blocks a row."""
    return (1, 3, 15, 16, 17, 31, 64, 65, 127, 333, 1024) if kind.block_size == 1 else (1, 2, 3, 4, 7, 8)


def packed_inputs(kind: LeafType, count: int, width: int, rng: np.random.Generator) -> list[Array]:
    return [twins.pack(form(kind), row) for row in rng.normal(0, 1, (count, width)).astype(np.float32)]


def test_the_tier_is_the_one_asked_for() -> None:
    assert jit.TIER.name == os.environ["MOELLAMA_ISA"]


@every_type
def test_dot_is_the_twin_and_the_same_for_any_columns(leaves: Leaves, kind: LeafType, rng: np.random.Generator) -> None:
    for blocks in widths(kind):
        for rows in (1, 3):
            weights = twins.random_blocks(kind, rows * blocks, rng)
            packed = packed_inputs(kind, 8, blocks * kind.block_size, rng)
            expected, magnitude = twins.dot(kind, weights, rows, packed, form(kind))
            stride = blocks * kind.block_bytes
            results = [run_dot(leaves, kind, weights, stride, rows, packed, columns) for columns in COLUMNS]
            assert np.all(np.abs(results[0] - expected) <= BUDGETS[kind.name] * magnitude), (blocks, rows)
            for other in results[1:]:
                assert np.array_equal(results[0], other), (blocks, rows)


@pytest.mark.parametrize("kind", [kind for kind in LEAF_TYPES if kind.block_size > 1], ids=lambda kind: kind.name)
def test_blocks_at_their_limits(leaves: Leaves, kind: LeafType) -> None:
    blocks = 4
    inputs = twins.limit_inputs(blocks * kind.block_size)
    packed = [twins.pack(form(kind), row) for row in inputs]
    weights = np.concatenate([np.repeat(block, blocks, axis=0) for block in twins.limit_blocks(kind)])
    rows = len(weights) // blocks
    expected, magnitude = twins.dot(kind, weights, rows, packed, form(kind))
    for columns in (1, 2):
        out = run_dot(leaves, kind, weights, blocks * kind.block_bytes, rows, packed, columns)
        assert np.all(np.abs(out - expected) <= BUDGETS[kind.name] * magnitude)


@every_type
def test_rows_are_found_by_their_stride(leaves: Leaves, kind: LeafType, rng: np.random.Generator) -> None:
    rows, blocks, gap = 3, 2 if kind.block_size > 1 else 70, 52
    weights = twins.random_blocks(kind, rows * blocks, rng)
    spaced = np.full((rows, blocks * kind.block_bytes + gap), 0xFF, np.uint8)
    spaced[:, :-gap] = weights.reshape(rows, -1)
    packed = packed_inputs(kind, 2, blocks * kind.block_size, rng)
    dense = run_dot(leaves, kind, weights, blocks * kind.block_bytes, rows, packed, 2)
    assert np.array_equal(dense, run_dot(leaves, kind, spaced, spaced.shape[1], rows, packed, 2))


@every_type
def test_dequantize_row_is_the_reference(leaves: Leaves, kind: LeafType, rng: np.random.Generator) -> None:
    leaf = THREE(leaves.dequantize_row(kind.name))
    for blocks in (*widths(kind), 256):
        weights = rng.integers(0, 256, (blocks, kind.block_bytes), np.uint8)  # infinities and NaNs among them
        weights[:, 0] = np.arange(blocks)  # every exponent of the types that start with one
        out = np.zeros(blocks * kind.block_size, np.float32)
        leaf(weights.ctypes.data, out.ctypes.data, blocks)
        with np.errstate(all="ignore"):
            assert np.array_equal(out, kind.dequantize(weights).reshape(-1), equal_nan=True)


def test_half_precision_is_exact(leaves: Leaves) -> None:
    every = np.arange(1 << 16, dtype="<u2").view(np.uint8).reshape(-1, 2)
    out = np.zeros(1 << 16, np.float32)
    THREE(leaves.dequantize_row("F16"))(every.ctypes.data, out.ctypes.data, len(every))
    expected = every.view("<f2").reshape(-1).astype(np.float32)
    assert np.array_equal(out, expected, equal_nan=True)
    assert np.array_equal(np.signbit(out), np.signbit(expected))


def awkward_rows(activation: str, rng: np.random.Generator) -> Array:
    """Rows of one block each, or of values without blocks: ordinary, halfway cases, huge, tiny, empty, one spike."""
    n = ACTIVATIONS[activation].block_size
    n = n if n > 1 else 70
    ties = np.concatenate([[127.0], np.resize([0.5, 1.5, 2.5, -0.5, -1.5, 126.5], n - 1)])
    ordinary, spike = rng.normal(0, 1, n), np.zeros(n)
    spike[n // 2] = -3.25
    halves = 1 + np.arange(n) / 256  # every other one between two of bfloat16
    rows = [ordinary, ties, halves, ordinary * 1e38 / 4, ordinary * 1e-30, ordinary * 1e-42, np.zeros(n), -np.zeros(n), spike]
    return np.stack(rows).astype(np.float32)


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_quantize_is_the_twin(leaves: Leaves, activation: str, rng: np.random.Generator) -> None:
    x = awkward_rows(activation, rng).reshape(-1)
    packed = np.zeros(activation_bytes(activation, len(x)), np.uint8)
    THREE(leaves.quantize(activation))(x.ctypes.data, packed.ctypes.data, len(x))
    assert np.array_equal(packed, twins.pack(activation, x))


@every_type
@at_either_end
def test_dot_stays_in_its_buffers(leaves: Leaves, kind: LeafType, at_end: bool, rng: np.random.Generator) -> None:
    for rows, blocks in ((1, 1), (3, 2), (1, 37)):
        weights = twins.random_blocks(kind, rows * blocks, rng)
        packed = packed_inputs(kind, 8, blocks * kind.block_size, rng)
        expected = run_dot(leaves, kind, weights, blocks * kind.block_bytes, rows, packed, 1)
        w, xs = Guarded.copy(weights, at_end=at_end), [Guarded.copy(x, at_end=at_end) for x in packed]
        outs = [Guarded(4 * rows, at_end=at_end) for _ in packed]
        for columns in COLUMNS:
            inputs = Guarded.copy(twins.addresses([x.array for x in xs[:columns]]), at_end=at_end)
            outputs = Guarded.copy(twins.addresses([out.array for out in outs[:columns]]), at_end=at_end)
            leaf = SEVEN(leaves.dot(kind.name, columns))
            leaf(w.address, blocks * kind.block_bytes, rows, inputs.address, outputs.address, blocks, 0)
            for out, wanted in zip(outs[:columns], expected, strict=False):
                assert np.array_equal(out.array.view(np.float32), wanted)
                out.array[:] = 0


@every_type
@at_either_end
def test_dequantize_row_stays_in_its_buffers(leaves: Leaves, kind: LeafType, at_end: bool, rng: np.random.Generator) -> None:
    for blocks in (1, 3, 37):
        w = Guarded.copy(twins.random_blocks(kind, blocks, rng), at_end=at_end)
        out = Guarded(4 * blocks * kind.block_size, at_end=at_end)
        THREE(leaves.dequantize_row(kind.name))(w.address, out.address, blocks)
        assert np.any(out.array)


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@at_either_end
def test_quantize_stays_in_its_buffers(leaves: Leaves, activation: str, at_end: bool, rng: np.random.Generator) -> None:
    for blocks in (1, 3):
        n = blocks * ACTIVATIONS[activation].block_size
        x = Guarded.copy(rng.normal(0, 1, n).astype(np.float32), at_end=at_end)
        out = Guarded(activation_bytes(activation, n), at_end=at_end)
        THREE(leaves.quantize(activation))(x.address, out.address, n)
        assert np.any(out.array)


# ------------------------------------------------------------ strips


@pytest.fixture(scope="module")
def lanes(leaves: Leaves) -> int:
    if not leaves.strip_rows:
        pytest.skip("the tier has no strips")
    return leaves.strip_rows


def strip_sizes(kind: StripType) -> tuple[tuple[int, int], ...]:
    """Blocks a row, and strips: some steps of a leaf and a rest, several strips together and a rest."""
    if kind.block_size > 1:
        return (1, 1), (2, 3), (5, 1)
    return tuple((kind.strip_blocks * times, strips) for times, strips in ((1, 1), (35, 7), (64, 4), (333, 2)))


def run_strips(leaves: Leaves, kind: StripType, rows: Array, packed: list[Array], columns: int) -> Array:
    """Like `run_dot`; `rows` as in a file."""
    out = np.full((len(packed), len(rows)), np.nan, np.float32)
    weights = np.ascontiguousarray(kind.interleave(rows, leaves.strip_rows))
    leaf = SEVEN(leaves.strip(kind.name, columns))
    for first in range(0, len(packed), columns):
        inputs, outputs = (twins.pointers(list(some[first : first + columns]), columns) for some in (packed, out))
        blocks = rows.shape[1] // kind.block_bytes
        leaf(weights.ctypes.data, rows.shape[1], len(rows), inputs.ctypes.data, outputs.ctypes.data, blocks, 0)
    return out


@every_strip
def test_a_strip_is_the_twin_and_the_same_for_any_columns(
    leaves: Leaves, lanes: int, kind: StripType, rng: np.random.Generator
) -> None:
    for blocks, strips in strip_sizes(kind):
        rows = twins.random_blocks(kind, strips * lanes * blocks, rng).reshape(strips * lanes, -1)
        packed = packed_inputs(kind, 8, blocks * kind.block_size, rng)
        expected, magnitude = twins.dot(kind, rows.reshape(-1, kind.block_bytes), len(rows), packed, form(kind))
        results = [run_strips(leaves, kind, rows, packed, columns) for columns in leaves.columns(kind.name, "strip")]
        assert np.all(np.abs(results[0] - expected) <= BUDGETS[kind.name] * magnitude)
        for other in results[1:]:
            assert np.array_equal(results[0], other)


@pytest.mark.parametrize("kind", STRIPS_OF_BLOCKS, ids=lambda kind: kind.name)
def test_strips_of_blocks_at_their_limits(leaves: Leaves, lanes: int, kind: StripType) -> None:
    blocks = 4
    packed = [twins.pack(form(kind), row) for row in twins.limit_inputs(blocks * kind.block_size)]
    limits = np.concatenate([np.repeat(block, blocks, axis=0) for block in twins.limit_blocks(kind)])
    rows = limits.reshape(len(limits) // blocks, -1)
    rows = np.resize(rows, (-(-len(rows) // lanes) * lanes, rows.shape[1]))
    expected, magnitude = twins.dot(kind, rows.reshape(-1, kind.block_bytes), len(rows), packed, form(kind))
    for columns in {1, 2, *leaves.columns(kind.name, "strip")} - {4, 8}:  # of inputs there is an even number
        out = run_strips(leaves, kind, rows, packed, columns)
        assert np.all(np.abs(out - expected) <= BUDGETS[kind.name] * magnitude)


@every_strip
@at_either_end
def test_strips_stay_in_their_buffers(
    leaves: Leaves, lanes: int, kind: StripType, at_end: bool, rng: np.random.Generator
) -> None:
    for blocks, strips in strip_sizes(kind)[:2]:
        rows = twins.random_blocks(kind, strips * lanes * blocks, rng).reshape(strips * lanes, -1)
        packed = packed_inputs(kind, 8, blocks * kind.block_size, rng)
        expected = run_strips(leaves, kind, rows, packed, 1)
        w = Guarded.copy(np.ascontiguousarray(kind.interleave(rows, lanes)), at_end=at_end)
        xs = [Guarded.copy(x, at_end=at_end) for x in packed]
        outs = [Guarded(4 * len(rows), at_end=at_end) for _ in packed]
        for columns in leaves.columns(kind.name, "strip"):
            inputs = Guarded.copy(twins.pointers([x.array for x in xs[:columns]], columns), at_end=at_end)
            outputs = Guarded.copy(twins.pointers([out.array for out in outs[:columns]], columns), at_end=at_end)
            leaf = SEVEN(leaves.strip(kind.name, columns))
            leaf(w.address, rows.shape[1], len(rows), inputs.address, outputs.address, blocks, 0)
            for out, wanted in zip(outs[:columns], expected, strict=False):
                assert np.array_equal(out.array.view(np.float32), wanted)
                out.array[:] = 0


@every_strip
@at_either_end
def test_rows_become_a_strip_and_come_back(
    leaves: Leaves, lanes: int, kind: StripType, at_end: bool, rng: np.random.Generator
) -> None:
    for blocks in (kind.strip_blocks, 3 * kind.strip_blocks):
        rows = rng.integers(0, 256, (lanes, blocks * kind.block_bytes), np.uint8)
        source, strip = Guarded.copy(rows, at_end=at_end), Guarded(rows.nbytes, at_end=at_end)
        FOUR(leaves.interleave(kind.name))(source.address, rows.shape[1], strip.address, blocks)
        assert np.array_equal(strip.array, kind.interleave(rows, lanes).reshape(-1))
        out = Guarded(rows.shape[1], at_end=at_end)
        for number, row in enumerate(rows):
            FOUR(leaves.row(kind.name))(strip.address, number, out.address, blocks)
            assert np.array_equal(out.array, row)


# ------------------------------------------------------------ unpacked rows

every_unpacked = pytest.mark.parametrize("kind", [kind for kind in LEAF_TYPES if form_of(kind)], ids=lambda kind: kind.name)


def unpacked(kind: SignedBlockType, rows: Array) -> Array:
    """Rows as in a file, as the twin unpacks them to strips."""
    form, lanes = form_of(kind), tiers.strip_rows(jit.TIER.name)
    assert form is not None
    blocks = unpack(kind, form, rows.reshape(-1, kind.block_bytes))
    blocks = blocks.reshape(len(rows) // lanes, lanes, -1, form.block_bytes // 4, 4)
    return np.ascontiguousarray(blocks.transpose(0, 2, 3, 1, 4)).reshape(-1)


@every_unpacked
@at_either_end
def test_rows_are_unpacked_as_by_the_twin(
    leaves: Leaves, lanes: int, kind: SignedBlockType, at_end: bool, rng: np.random.Generator
) -> None:
    for blocks, strips in ((1, 1), (3, 1), (2, 3)):
        rows = twins.random_blocks(kind, strips * lanes * blocks, rng).reshape(strips * lanes, -1)
        expected = unpacked(kind, rows)
        source, made = Guarded.copy(rows, at_end=at_end), Guarded(expected.nbytes, at_end=at_end)
        FIVE(leaves.unpack(kind.name))(source.address, rows.shape[1], len(rows), made.address, blocks)
        assert np.array_equal(made.array, expected)


@every_unpacked
@at_either_end
def test_unpacked_rows_give_the_bits_of_packed_ones(
    leaves: Leaves, lanes: int, kind: SignedBlockType, at_end: bool, rng: np.random.Generator
) -> None:
    form = form_of(kind)
    assert form is not None
    limits = np.concatenate([np.repeat(block, 4, axis=0) for block in twins.limit_blocks(kind)]).reshape(-1, 4 * kind.block_bytes)
    ordinary = twins.random_blocks(kind, lanes * 5, rng).reshape(lanes, -1)
    for rows in (ordinary, *(np.resize(limits[first:], (lanes, limits.shape[1])) for first in range(0, len(limits), lanes))):
        blocks = rows.shape[1] // kind.block_bytes
        inputs = [*twins.limit_inputs(blocks * 256), *rng.normal(0, 1, (2, blocks * 256)).astype(np.float32)]
        packed = [twins.pack("q8_k", row) for row in inputs]
        expected = run_dot(leaves, kind, rows, rows.shape[1], lanes, packed, 1)
        w, xs = Guarded.copy(unpacked(kind, rows), at_end=at_end), [Guarded.copy(x, at_end=at_end) for x in packed]
        outs = [Guarded(4 * lanes, at_end=at_end) for _ in packed]
        for columns in leaves.columns(form.name, "strip"):
            inputs, outputs = (twins.pointers([guarded.array for guarded in some[:columns]], columns) for some in (xs, outs))
            leaf = SEVEN(leaves.strip(form.name, columns))
            leaf(w.address, blocks * form.block_bytes, lanes, inputs.ctypes.data, outputs.ctypes.data, blocks, 0)
            for out, wanted in zip(outs[:columns], expected, strict=False):
                assert np.array_equal(out.array.view(np.float32), wanted)
                out.array[:] = 0


@pytest.mark.parametrize("form", OPENED.values(), ids=lambda form: form.name)
@at_either_end
def test_opened_strips_give_the_bits_of_closed_ones(
    leaves: Leaves, lanes: int, form: Opened, at_end: bool, rng: np.random.Generator
) -> None:
    kind = form.kind
    limits = np.concatenate([np.repeat(block, 4, axis=0) for block in twins.limit_blocks(kind)]).reshape(-1, 4 * kind.block_bytes)
    limits = np.resize(limits, (-(-len(limits) // lanes) * lanes, limits.shape[1]))
    for rows in (twins.random_blocks(kind, 3 * lanes * 5, rng).reshape(3 * lanes, -1), limits):
        blocks = rows.shape[1] // kind.block_bytes
        inputs = [*twins.limit_inputs(blocks * 256), *rng.normal(0, 1, (8, blocks * 256)).astype(np.float32)][-8:]
        packed = [twins.pack("q8_k", row) for row in inputs]
        expected = run_strips(leaves, kind, rows, packed, 1)
        closed = Guarded.copy(np.ascontiguousarray(kind.interleave(rows, lanes)), at_end=at_end)
        opened = Guarded(len(rows) * blocks * form.block_bytes, at_end=at_end)
        FIVE(leaves.unpack(kind.name))(closed.address, rows.shape[1], len(rows), opened.address, blocks)
        xs, outs = ([Guarded.copy(x, at_end=at_end) for x in packed], [Guarded(4 * len(rows), at_end=at_end) for _ in packed])
        inputs, outputs = (twins.pointers([guarded.array for guarded in some], 8) for some in (xs, outs))
        leaf = SEVEN(leaves.strip(form.name, 8))
        leaf(opened.address, blocks * form.block_bytes, len(rows), inputs.ctypes.data, outputs.ctypes.data, blocks, 0)
        for out, wanted in zip(outs, expected, strict=True):
            assert np.array_equal(out.array.view(np.float32), wanted)


def test_no_rows_and_no_blocks(leaves: Leaves, rng: np.random.Generator) -> None:
    out, nothing = np.full(2, 7.0, np.float32), np.zeros(1, np.uint8)
    inputs, outputs = twins.addresses([nothing]), twins.addresses([out])
    leaf = SEVEN(leaves.dot("Q4_K", 1))
    leaf(nothing.ctypes.data, 0, 0, inputs.ctypes.data, outputs.ctypes.data, 1, 0)
    assert out.tolist() == [7.0, 7.0]
    leaf(nothing.ctypes.data, 0, 2, inputs.ctypes.data, outputs.ctypes.data, 0, 0)
    assert out.tolist() == [0.0, 0.0]


WIDE = r"%zmm|%[xy]mm(1[6-9]|2\d|3[01])\b|%k[0-7]\b"
FORBIDDEN = {"portable": r"%[yz]mm|\bv[a-z]+ps\b", "avx2": rf"{WIDE}|vpdpbusd", "avxvnni": WIDE}
NEVER = r"extrq|insertq"
PRODUCTS = {"portable": r"pmaddwd", "avx2": r"vpmaddubsw.*%ymm", "avxvnni": r"vpdpbusd.*%ymm"}
OF_AVX512 = r"vpdpbusd.*%zmm"
VBMI = {"dot.IQ2_XXS.1": r"(?s)vpermt2b.*vpmultishiftqb.*%zmm", "dot.IQ3_XXS.2": r"vgf2p8affineqb"}
BF16 = {**VBMI, "strip.BF16.8": r"vdpbf16ps.*%zmm"}
TILES = {"strip.Q4_K.64": r"(?s)tdpbsud.*tilerelease", "strip.Q6_K.64": r"tdpbssd"}
REQUIRED = {"avx512vbmi": VBMI, "avx512bf16": BF16, "amx": BF16 | TILES}


LOOKED_AT = ("dot.Q4_K.1", "dot.Q6_K.4", "dot.Q8_0.8", "dot.F16.4", "strip.Q4_K.1", "strip.Q6_K.4", "strip.BF16.8", "strip.F16.1")
LOOKED_AT += ("dot.IQ2_XXS.1", "dot.IQ3_XXS.2", "quantize.q8_k", "row.Q4_0", *TILES)


@pytest.mark.parametrize("name", LOOKED_AT)
def test_machine_code_is_the_tiers(name: str) -> None:
    tier = jit.TIER.name
    if name.startswith(("strip.", "row.")) and tier == "portable":
        pytest.skip("the tier has no strips")
    if name in TILES and tier != "amx":
        pytest.skip("the tier has no tiles")
    assembly = Leaves(KernelCache(None)).assembly(name)
    forbidden = [NEVER, *(FORBIDDEN[tier] for _ in range(tier in FORBIDDEN))]
    assert not (found := re.search("|".join(forbidden), assembly)), found
    if "_K." in name and name.startswith(("dot", "strip")) and name not in TILES:
        assert re.search(PRODUCTS.get(tier, OF_AVX512), assembly)
    if name in (wanted := REQUIRED.get(tier, {})):
        assert re.search(wanted[name], assembly)


@every_strip
def test_lines_are_asked_for_between_the_loads(kind: StripType) -> None:
    """Where LLVM would gather them at the end of a block, which costs up to a third of the speed from memory."""
    tier = jit.TIER.name
    if tier == "portable" or not kind.pinned(tiers.emitter(tier, ir.IRBuilder())):
        pytest.skip("LLVM leaves them where they are, or there are no strips")
    code = Leaves(KernelCache(None)).assembly(f"strip.{kind.name}.1").splitlines()
    lines = "".join("p" if "prefetch" in line else "." for line in code if line.startswith("\t") and not line.startswith("\t."))
    assert "p" in lines
    assert "pppp" not in lines
