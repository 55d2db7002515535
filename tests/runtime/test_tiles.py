"""AMX without the CPU for it: leaves and probe with tiles in plain vectors, which any CPU with AVX-512 executes."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable

import leaf_twins as twins
import llvmlite.binding as llvm
import numpy as np
import pytest
from emulated_tiles import EmulatedTiles
from leaf_twins import BUDGETS, LEAF_TYPES, Array, Guarded

from runtime.kernels import isa, leaves, probe, tiers, tile_leaves
from runtime.kernels.basics import Builder
from runtime.kernels.emitter import Emitter, standalone
from runtime.kernels.vbmi import Avx512Bf16
from runtime.quants.strips import StripType
from runtime.quants.unpacked import UNPACKED

LANES, BELOW = 16, isa.TIERS.get("avx512bf16")
STRIPS = [kind for kind in LEAF_TYPES if isinstance(kind, StripType) and tile_leaves.pays(kind)]
Leaf = Callable[..., None]

pytestmark = pytest.mark.skipif(not BELOW or BELOW.name not in isa.probe(None), reason="the CPU has no AVX-512 with BF16")
at_either_end = pytest.mark.parametrize("at_end", [True, False], ids=["end", "start"])


@functools.cache
def leaf(kind: type[Emitter], name: str) -> Leaf:
    """A leaf of seven arguments by the primitives of `kind`, outside numba."""

    def body(builder: Builder) -> None:
        e = kind(builder)
        arguments = e.pointer(builder.function.args[0])
        leaves._emit(e, name, [e.load(arguments, 8 * place, e.I64) for place in range(7)])
        builder.ret_void()

    assert BELOW is not None
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()
    machine = llvm.Target.from_default_triple().create_target_machine(cpu=BELOW.cpu, features=BELOW.features, jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(standalone(body)), machine)
    engine.finalize_object()
    function = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)(engine.get_function_address("kernel"))

    def call(*arguments: int, _engine: object = engine) -> None:
        function(np.array(arguments, np.int64).ctypes.data, 0)

    return call


def in_tiles(name: str, weights: Guarded, stride: int, rows: int, packed: list[Guarded], blocks: int, *, at_end: bool) -> Array:
    """All columns at once, (columns, rows)."""
    outs = [Guarded.copy(np.full(rows, np.nan, np.float32), at_end=at_end) for _ in packed]
    places = [twins.pointers([each.array for each in some], tile_leaves.MOST) for some in (packed, outs)]
    tables = [Guarded.copy(place, at_end=at_end) for place in places]
    tiled = leaf(EmulatedTiles, f"strip.{name}.{tile_leaves.MOST}")
    tiled(weights.address, stride, rows, tables[0].address, tables[1].address, blocks, weights.address)
    return np.stack([out.array.view(np.float32) for out in outs])


def one_by_one(name: str, weights: Guarded, stride: int, rows: int, packed: list[Guarded], blocks: int) -> Array:
    """The same by the leaf without tiles for one column."""
    out = np.full((len(packed), rows), np.nan, np.float32)
    single = leaf(Avx512Bf16, f"strip.{name}.1")
    for x, line in zip(packed, out, strict=True):
        places = np.array([x.address, line.ctypes.data], np.int64)
        single(weights.address, stride, rows, places.ctypes.data, places[1:].ctypes.data, blocks, 0)
    return out


@pytest.mark.parametrize("kind", STRIPS, ids=lambda kind: kind.name)
@at_either_end
def test_tiles_give_the_bits_of_other_leaves(kind: StripType, at_end: bool) -> None:
    rng = np.random.default_rng(3)
    for blocks, strips, columns in ((1, 1, 9), (3, 2, 16), (tile_leaves.GATHERED + 1, 2, 33), (2 * tile_leaves.GATHERED, 1, 64)):
        rows = twins.random_blocks(kind, strips * LANES * blocks, rng).reshape(strips * LANES, -1)
        inputs = [twins.pack("q8_k", row) for row in rng.normal(0, 1, (columns, blocks * 256)).astype(np.float32)]
        packed = [Guarded.copy(x, at_end=at_end) for x in inputs]
        weights = Guarded.copy(np.ascontiguousarray(kind.interleave(rows, LANES)), at_end=at_end)
        arguments = kind.name, weights, rows.shape[1], len(rows), packed, blocks
        found = in_tiles(*arguments, at_end=at_end)
        expected, magnitude = twins.dot(kind, rows.reshape(-1, kind.block_bytes), len(rows), inputs, "q8_k")
        assert np.all(np.abs(found - expected) <= BUDGETS[kind.name] * magnitude)
        assert np.array_equal(found, one_by_one(*arguments))


@pytest.mark.parametrize("kind", STRIPS, ids=lambda kind: kind.name)
def test_blocks_at_their_limits_do_not_overflow(kind: StripType) -> None:
    blocks = 4
    limits = np.concatenate([np.repeat(block, blocks, axis=0) for block in twins.limit_blocks(kind)])
    rows = limits.reshape(-1, blocks * kind.block_bytes)
    rows = np.resize(rows, (-(-len(rows) // LANES) * LANES, rows.shape[1]))
    packed = [Guarded.copy(twins.pack("q8_k", row), at_end=True) for row in twins.limit_inputs(blocks * 256)]
    weights = Guarded.copy(np.ascontiguousarray(kind.interleave(rows, LANES)), at_end=True)
    arguments = kind.name, weights, rows.shape[1], len(rows), packed, blocks
    assert np.array_equal(in_tiles(*arguments, at_end=True), one_by_one(*arguments))


@pytest.mark.parametrize("form", list(UNPACKED))
def test_unpacked_rows_too(form: str) -> None:
    """Any bytes are weights, and scales up to 63."""
    kind, rng, blocks = UNPACKED[form], np.random.default_rng(4), 3
    strip = rng.integers(0, 2 * kind.offset, (blocks, kind.block_bytes, LANES), np.uint8)
    strip[:, 256:272] = rng.integers(-63, 64, strip[:, 256:272].shape).astype(np.int8).view(np.uint8)
    strip[:, 272:] = rng.normal(0, 1, (blocks, LANES)).astype("<f4").view(np.uint8).reshape(blocks, LANES, 4).transpose(0, 2, 1)
    woven = np.ascontiguousarray(strip.reshape(blocks, -1, 4, LANES).transpose(0, 1, 3, 2)).reshape(-1)
    packed = [twins.pack("q8_k", row) for row in rng.normal(0, 1, (20, blocks * 256)).astype(np.float32)]
    weights, inputs = Guarded.copy(woven, at_end=True), [Guarded.copy(x, at_end=True) for x in packed]
    arguments = form, weights, blocks * kind.block_bytes, LANES, inputs, blocks
    found = in_tiles(*arguments, at_end=True)
    assert np.all(np.isfinite(found))
    assert np.array_equal(found, one_by_one(*arguments))


def test_the_probe_knows_what_tiles_give(monkeypatch: pytest.MonkeyPatch) -> None:
    assert BELOW is not None
    monkeypatch.setitem(tiers._EMITTERS, "amx", EmulatedTiles)
    monkeypatch.setattr(probe, "permit_tiles", lambda: True)
    tier = isa.Tier("amx", BELOW.cpu, BELOW.features, tiles=True)
    assert probe.main(tier)
    monkeypatch.setattr(EmulatedTiles, "multiply_tiles", lambda *_, **__: None)
    assert not probe.main(tier)


def test_a_process_without_permission_takes_the_tier_below(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[str] = []
    monkeypatch.setattr(isa, "probe", lambda folder: ("portable", "avx512bf16", "amx"))
    monkeypatch.setattr(isa, "_configure", lambda tier: chosen.append(tier.name))
    monkeypatch.setattr(isa, "permit_tiles", lambda: False)
    assert isa.select(None, None).name == "avx512bf16"
    with pytest.raises(isa.IsaError, match="MOELLAMA_ISA=amx: the operating system lets this process have no tile registers"):
        isa.select("amx", None)
    monkeypatch.setattr(isa, "permit_tiles", lambda: True)
    assert isa.select(None, None).name == "amx"
    assert chosen == ["avx512bf16", "amx"]


def test_a_table_names_a_leaf_for_every_number_of_columns() -> None:
    found = leaves.Leaves(tier="amx").filled("Q4_K", "strip")
    assert found == {3: 4, 7: 8} | dict.fromkeys(range(9, 64), 64)
    assert leaves.Leaves(tier="amx").filled("Q8_0", "strip") == {3: 4, 7: 8}
    assert leaves.strip_columns("Q4_K", "amx") == (1, 2, 4, 8, tile_leaves.MOST)
