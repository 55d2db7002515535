"""`python -m runtime.kernels.probe TIER`: execute a small kernel of the tier; exit status 0 when its numbers are right.

It uses every instruction family that leaves of the tier use. A CPU without them kills the process by a signal.
"""

from __future__ import annotations

import array
import ctypes
import functools
import sys

import llvmlite.binding as llvm

from runtime.kernels.amx import LINE, TILE_BYTES, TILE_ROWS, Amx
from runtime.kernels.basics import Value
from runtime.kernels.emitter import Emitter, standalone
from runtime.kernels.isa import TIERS, Tier, permit_tiles
from runtime.kernels.tiers import emitter
from runtime.kernels.vbmi import Avx512Vbmi

UNSIGNED = [(7 * i + 3) % 64 for i in range(128)]
SIGNED = [(37 * i + 11) % 255 - 127 for i in range(128)]
SCALES = [(5 + 7 * i) * (1 - 2 * (i % 2)) for i in range(16)]
ORDER = [9, 2, 15, 4, 3, 3, 0, 8] * 2
HALF = 0x3E00  # 1.5; as bf16 0.125
GRID = [[(row + place) % 3 for place in range(8)] for row in range(128)]
FIELDS = (0, 7, 14, 21, 32, 39, 46, 53)


def main(tier: Tier) -> bool:
    if tier.tiles and not permit_tiles():
        return False
    data = bytes(UNSIGNED) + bytes(x & 255 for x in SIGNED + SCALES) + HALF.to_bytes(2, "little") * 32
    source, result = array.array("B", data), array.array("f", [0.0])
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(cpu=tier.cpu, features=tier.features, jit=True)
    module = llvm.parse_assembly(standalone(lambda builder: _body(emitter(tier.name, builder), *builder.function.args)))
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    kernel = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)(engine.get_function_address("kernel"))
    kernel(source.buffer_info()[0], result.buffer_info()[0])
    return result[0] == _expected(emitter(tier.name, None))


def _body(e: Emitter, source: Value, result: Value) -> None:
    memory = e.pointer(source)
    unsigned, signed = ([e.load(memory, start + part, e.bytes(64)) for part in (0, 64)] for start in (0, 128))
    packed = e.load(memory, 256, e.bytes(16))
    scales = e.lane_scales(packed, ORDER, signed=True)[0]
    (total,) = e.dot_scaled([e.zero(e.vector(e.I32, e.lanes))], unsigned, [signed], scales)
    wide = e.sext(packed, e.I16)
    total = e.add(total, e.to_lanes(e.madd16(wide, wide)))
    halves = e.half(e.load(memory, 272, e.vector(e.I16, e.lanes)))
    floats = e.float(total)
    found = e.sum(e.fma(floats, halves, floats))
    if isinstance(e, Avx512Vbmi):
        found = e.add(found, e.float(_codebooks(e, memory)))
    if e.multiplies_brains:
        pairs = e.load(memory, 272, e.vector(e.I32, e.lanes))
        found = e.add(found, e.sum(e.dot_brains(e.zero(e.floats(e.lanes)), pairs, pairs)))
    if isinstance(e, Amx):
        found = e.add(found, e.float(_tiles(e, memory)))
    e.store(found, e.pointer(result), 0)
    e.builder.ret_void()


def _codebooks(e: Emitter, memory: Value) -> Value:
    """The sum of entries of a codebook and of sign bits, i32."""
    entries = list(e.entries("probe", GRID, (e.load(memory, 0, e.bytes(64)),), None))
    signs = e.even_signs(e.fields(e.load(memory, 0, e.vector(e.I64, 4)), FIELDS, 7))
    total = e.sum(e.zext(signs, e.I32))
    for part in entries:
        total = e.add(total, e.sum(e.zext(part, e.I32)))
    return total


def _tiles(e: Amx, memory: Value) -> Value:
    """The sum of a tile's products: all lines of either are the same 64 bytes, signed by unsigned and signed by signed."""
    out = e.scratch(TILE_BYTES)
    e.configure_tiles()
    e.zero_tile(0)
    for tile, offset in ((1, 128), (2, 0), (3, 128)):
        e.load_tile(tile, e.at(memory, offset), 0)
    e.multiply_tiles(0, 1, 2, signed=False)
    e.multiply_tiles(0, 1, 3, signed=True)
    e.store_tile(0, out)
    e.release_tiles()
    return functools.reduce(e.add, [e.sum(e.load(out, line, e.vector(e.I32, e.lanes))) for line in range(0, TILE_BYTES, LINE)])


def _tile_sum() -> int:
    """What `_tiles` gives: line k of the weights' tile meets inputs 4 k to 4 k + 3, and holds 16 times four weights."""
    weights = [UNSIGNED[i] + SIGNED[i] for i in range(LINE)]
    return TILE_ROWS * sum(SIGNED[i] * sum(weights[i % 4 :: 4]) for i in range(LINE))


def _expected(e: Emitter) -> float:
    dots = [sum(UNSIGNED[i] * SIGNED[i] for i in range(16 * k, 16 * k + 16)) for k in range(8)]
    words = [int.from_bytes(bytes(UNSIGNED[start : start + 8]), "little") for start in range(0, 32, 8)]
    sevens = [word >> first & 127 for word in words for first in FIELDS]
    codebooks = sum(sum(GRID[index]) for index in UNSIGNED[:64]) + sum(s | s.bit_count() % 2 << 7 for s in sevens)
    scaled = sum(SCALES[group] * dot for group, dot in zip(ORDER, dots, strict=False)) + sum(s * s for s in SCALES)
    tiles = isinstance(e, Amx) and _tile_sum()
    return tiles + 0.5 * e.multiplies_brains + codebooks * isinstance(e, Avx512Vbmi) + 2.5 * scaled


if __name__ == "__main__":
    sys.exit(0 if main(TIERS[sys.argv[1]]) else 1)
