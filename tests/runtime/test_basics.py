"""What emitters write for memory, by the text of their LLVM IR."""

from __future__ import annotations

import pytest
from llvmlite import ir

from runtime.kernels import isa
from runtime.kernels.basics import POINTER, Basics


@pytest.mark.parametrize("past_caches", [True, False])
def test_lines_are_asked_for_as_read_once_where_the_cpu_makes_use_of_it(
    past_caches: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isa, "reads_past_caches", lambda: past_caches)
    function = ir.Function(ir.Module(), ir.FunctionType(ir.VoidType(), [POINTER]), "asks")
    emitter = Basics(ir.IRBuilder(function.append_basic_block()))
    emitter.prefetch(function.args[0], 0, once=True)
    emitter.prefetch(function.args[0], 1)
    asked = [line for line in str(function).splitlines() if "call void" in line]
    assert [line.split("i32 ")[2][0] for line in asked] == ["0" if past_caches else "3", "3"]
