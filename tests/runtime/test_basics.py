"""What emitters write for memory, by the text of their LLVM IR and of machine code."""

from __future__ import annotations

import itertools

import pytest
from llvmlite import ir

from runtime.kernels import isa
from runtime.kernels.basics import POINTER, Basics
from runtime.kernels.cache import KernelCache
from runtime.kernels.leaves import Leaves


def test_lines_are_asked_for_as_read_once() -> None:
    function = ir.Function(ir.Module(), ir.FunctionType(ir.VoidType(), [POINTER]), "asks")
    emitter = Basics(ir.IRBuilder(function.append_basic_block()))
    emitter.prefetch(function.args[0], 0, once=True)
    emitter.prefetch(function.args[0], 1)
    asked = [line for line in str(function).splitlines() if "call void" in line]
    assert [line.split("i32 ")[2][0] for line in asked] == ["0", "3"]


@pytest.mark.skipif(not Leaves().strip_rows, reason="strips are for AVX2 and AVX-512")
@pytest.mark.parametrize("past_caches", [True, False])
def test_one_column_asks_for_weights_as_read_once_where_the_cpu_makes_use_of_it(
    past_caches: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isa, "reads_past_caches", lambda: past_caches)
    single, several = (Leaves(KernelCache(None)).assembly(f"strip.Q8_0.{columns}") for columns in (1, 4))
    assert ("prefetchnta" in single, "prefetchnta" in several) == (past_caches, False)
    assert "prefetch" in single


@pytest.mark.skipif(not Leaves().strip_rows, reason="strips are for AVX2 and AVX-512")
@pytest.mark.parametrize("columns", [2, 8])
def test_lines_are_asked_for_all_along_a_long_block(columns: int) -> None:
    code = [line.split() for line in Leaves(KernelCache(None)).assembly(f"strip.Q5_K.{columns}").splitlines() if line.strip()]
    runs = [len(list(run)) for asks, run in itertools.groupby(line[0].startswith("prefetch") for line in code) if asks]
    assert max(runs) <= 6 < sum(runs), "LLVM has moved them together, where they wait for one another"


@pytest.mark.skipif(not Leaves().strip_rows, reason="strips are for AVX2 and AVX-512")
def test_a_long_block_jumps_where_nothing_is_asked_for() -> None:
    code = Leaves(KernelCache(None)).assembly("strip.unpacked16x16.8").split()
    assert code.count("jmp") >= 16, "one for each group, or the CPU decodes the block anew"
