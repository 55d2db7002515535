"""The CUDA sources compile for every generation of cards; the compiler needs no card."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the extra cuda")

from runtime.cuda import nvrtc
from runtime.cuda.module import source
from runtime.execute.cuda_attention import kernels
from runtime.kernels.kept import KINDS
from runtime.layers.ops import Heads
from runtime.quants import BY_NAME

HEADS = Heads(8, 2, 128, 128, False, 0.1)

PROBE = """
template <class Q> __device__ void ints(const u8* b, int p, Ints* o) { if constexpr (Q::INTS) Q::ints(b, p, *o); }
extern "C" __global__ void probe(int type, const u8* b, int p, float* w, Ints* o) {
    with_type(type, [&](auto q) { q.unpack8(b, p, w), ints<decltype(q)>(b, p, o); });
}
"""


@pytest.fixture(scope="module")
def compiler() -> nvrtc.Nvrtc:
    try:
        return nvrtc.Nvrtc()
    except nvrtc.CudaError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("capability", [(7, 5), (8, 6), (9, 0)])
def test_compiles_for_old_and_new_cards(capability: tuple[int, int], compiler: nvrtc.Nvrtc) -> None:
    made = [line for kept in KINDS.values() for line in kernels([HEADS], kept)]
    assert compiler.compile(source(["F32", "Q4_K", "Q6_K"], made), capability)[:4] == b"\x7fELF"


def test_every_kernel_first_waits_for_the_one_before() -> None:
    """Else its reads could come before the other's writes, where a graph starts it early."""
    text = source(["F32"], kernels([HEADS], KINDS["q8_0"]))
    first_words = re.findall(r'extern "C" __global__[^{;]*\{[\s\\]*(\w+)', text)
    assert len(first_words) == text.count("__global__")
    assert set(first_words) == {"after_previous"}


def test_every_type_with_cuda_code_compiles(compiler: nvrtc.Nvrtc) -> None:
    text = source([name for name, kind in BY_NAME.items() if kind.cuda])
    head = text[: text.index("// Rows of x in int8, with the values")]  # the types; the rest is slow to compile
    assert compiler.compile(head + PROBE, (8, 6))


def test_errors_carry_the_log(compiler: nvrtc.Nvrtc) -> None:
    with pytest.raises(nvrtc.CudaError, match="nonsense"):
        compiler.compile("nonsense", (8, 6))


def test_compiled_once(tmp_path: Path, compiler: nvrtc.Nvrtc, monkeypatch: pytest.MonkeyPatch) -> None:
    first = nvrtc.machine_code('extern "C" __global__ void f() {}', (8, 6), tmp_path)
    monkeypatch.setattr(nvrtc.Nvrtc, "compile", lambda *_: pytest.fail("compiled again"))
    assert nvrtc.machine_code('extern "C" __global__ void f() {}', (8, 6), tmp_path) == first
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_cannot_be_written(tmp_path: Path, compiler: nvrtc.Nvrtc, caplog: pytest.LogCaptureFixture) -> None:
    assert nvrtc.machine_code('extern "C" __global__ void f() {}', (8, 6), tmp_path / "missing")
    assert "not kept" in caplog.text
