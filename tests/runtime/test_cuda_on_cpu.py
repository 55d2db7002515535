"""The card's forward pass against llama.cpp's logits, its kernels compiled for the CPU: what test_hybrid.py holds on a card."""

from __future__ import annotations

import ctypes
import dataclasses
from contextlib import closing
from pathlib import Path
from typing import Any

import naive
import numpy as np
import numpy.typing as npt
import pytest
import tiny_gguf
from stepping import Text, blocks_for, open_model

torch = pytest.importorskip("torch", reason="needs the extra cuda")

import cuda_on_cpu  # noqa: E402

from runtime.execute.cuda_attention import kernels  # noqa: E402
from runtime.execute.cuda_core import CHUNK, CHUNK_BYTES  # noqa: E402
from runtime.execute.cuda_structs import Groups, Matrix, Packing, Rows  # noqa: E402
from runtime.execute.cuda_values import FORMATS  # noqa: E402
from runtime.execute.shortlist import LIST, LIST_GROUPS, Shortlist  # noqa: E402
from runtime.kernels.kept import F16, KINDS, Kept  # noqa: E402
from runtime.layers.ops import Attending, Heads  # noqa: E402
from runtime.quants import BY_NAME  # noqa: E402

Array = npt.NDArray[Any]
GOLDEN = Path(__file__).parents[1] / "golden"
PARTS = (20, 12, 5, 1, 1)  # many rows on tensor cores, few rows of one text, single ones

pytestmark = pytest.mark.skipif(not cuda_on_cpu.AVAILABLE, reason="needs g++ on x86-64")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of compiled kernels."""
    return tmp_path_factory.mktemp("kernels")


@pytest.mark.parametrize("name", ["qwen3moe", "gpt-oss", "gemma3", "deepseek2", "glm4moe", "qwen3next", "qwen35"])
def test_float_weights(name: str, tmp_path: Path, folder: Path) -> None:
    golden = np.load(GOLDEN / f"tiny-{name}-F32.npz")
    path = tiny_gguf.write(tmp_path / "m.gguf", tiny_gguf.variant(name, "F32"))
    logits = cuda_on_cpu.logits(path, golden["tokens"].tolist(), PARTS, folder)
    assert naive.nmse(logits, golden["logits"][: len(logits)]) <= 1e-5


def test_quantised_weights(tmp_path: Path, folder: Path) -> None:
    """Against the same weights in float: rows in int8 are as far from them as the CPU's."""
    path = tiny_gguf.write(tmp_path / "m.gguf", tiny_gguf.variant("qwen3moe", "MIX"))
    tokens = np.random.default_rng(3).integers(0, 300, sum(PARTS)).tolist()
    assert naive.nmse(cuda_on_cpu.logits(path, tokens, PARTS, folder), naive.Model(path).logits(tokens)) <= 5e-3


INTS = ("Q4_K", "Q6_K", "Q3_K", "Q4_1", "IQ4_XS", "MXFP4")


@pytest.mark.parametrize(("kind", "width"), [*((kind, 512) for kind in INTS), ("MXFP4", 352)])
def test_many_rows_in_int8(kind: str, width: int, folder: Path) -> None:
    """Not even a rounding differs from the twin's: what is left is that of sums."""
    module, quant, rng = cuda_on_cpu.CpuModule(INTS, folder), BY_NAME[kind], np.random.default_rng(1)
    values = rng.standard_normal((150, width)).astype(np.float32)
    raw = tiny_gguf.encode(values, tiny_gguf.Type[kind], rng).view(np.uint8).reshape(150, -1)
    values = quant.dequantize(raw.reshape(-1, quant.block_bytes)).reshape(150, width).astype(np.float64)
    x, chunks = rng.standard_normal((70, width)).astype(np.float32), -(-width // CHUNK)
    count, w, dx = torch.tensor([70], dtype=torch.int32), torch.from_numpy(raw.copy()), torch.from_numpy(x)
    parts = [torch.full((70 * chunks * CHUNK_BYTES,), 77, dtype=torch.uint8) for _ in FORMATS]
    pointers = (ctypes.c_void_p * len(FORMATS))(*(part.data_ptr() for part in parts))
    module.launch("pack_rows", (1, 70), 256, dx, Packing(pointers), width, count, 1)
    out = torch.zeros((70, 150))
    matrix = Matrix(w.data_ptr(), None, out.data_ptr(), raw.shape[1], 150, quant.type_id)
    module.launch("matmul_ints", (2, 2), 256, matrix, None, Groups(share=1), Rows(dx.data_ptr(), pointers, width), count)
    expected = naive.rounded(x, naive.ACTIVATION_BLOCK[kind]).astype(np.float64) @ values.T
    assert naive.nmse(out.numpy(), expected) <= 1e-9


@pytest.mark.parametrize("kind", ["Q4_K", "F16"])
def test_a_prompt_is_that_of_the_twin(kind: str, tmp_path: Path, folder: Path) -> None:
    """And so is what follows, up to the first value that falls to another side of a rounding, which comes late in this text. All
    experts are chosen: no tie of a router decides."""
    path = tiny_gguf.write(tmp_path / "m.gguf", dataclasses.replace(tiny_gguf.variant("qwen3moe", kind), experts=4, used=4))
    tokens = np.random.default_rng(5).integers(0, 300, sum(PARTS)).tolist()
    expected = naive.Model(path, packed=True).logits(tokens)
    apart = [naive.nmse(*row) for row in zip(cuda_on_cpu.logits(path, tokens, PARTS, folder), expected, strict=True)]
    assert np.median(apart) <= (1e-9 if BY_NAME[kind].cuda_ints else 1e-5)  # floats are rounded to f16 for tensor cores


HEADS = [
    Heads(8, 2, 64, 64, False, 0.1),
    Heads(3, 3, 100, 36, False, 0.1),
    Heads(2, 1, 128, 128, False, 0.1, window=40),
    Heads(4, 2, 256, 256, False, 0.1, softcap=3.0),
    Heads(4, 1, 576, 512, False, 0.05),
    Heads(2, 2, 640, 640, False, 0.05, window=70),
]
STEPS = (70, 1, 45, 20)  # rows of one text: many together, and single ones


def fits(heads: Heads, kind: str) -> bool:
    return KINDS[kind].fits(heads.key_length) and KINDS[kind].fits(heads.value_length)


@pytest.mark.parametrize(("kind", "heads"), [(kind, heads) for kind in KINDS for heads in HEADS if fits(heads, kind)])
def test_attention(kind: str, heads: Heads, folder: Path) -> None:
    """Against plain NumPy, with sinks, on what the cache makes of keys and values."""
    kept = KINDS[kind]
    rng, n = np.random.default_rng(heads.key_length), sum(STEPS)
    widths = heads.head_count * heads.key_length, heads.head_count_kv * heads.key_length, heads.head_count_kv * heads.value_length
    rows = [rng.standard_normal((n, width)).astype(np.float32) for width in widths]
    sinks = rng.standard_normal(heads.head_count).astype(np.float32)
    module = cuda_on_cpu.CpuModule({"F32"}, folder, kernels([each for each in HEADS if fits(each, kind)], kept))
    found = cuda_on_cpu.attention(module, rows, STEPS, Attending(0, heads, None, None, sinks), kept)
    assert naive.nmse(found, plain_attention(*rows, heads, sinks, kept)) <= (1e-6 if kind == "f16" else 1e-4)


def plain_attention(q: Array, k: Array, v: Array, heads: Heads, sinks: Array, kept: Kept) -> Array:
    """(rows, heads * value) in float64."""
    n, group = len(q), heads.head_count // heads.head_count_kv
    sizes = heads.key_length, heads.key_length, heads.value_length
    q, k, v = (x.reshape(n, -1, size).astype(np.float64) for x, size in zip((q, k, v), sizes, strict=True))
    k, v = (x.astype(np.float16).astype(np.float64) if kept is F16 else naive.kept(x, kept.bits) for x in (k, v))
    scores = np.einsum("qhd,khd->hqk", q, k.repeat(group, 1)) * heads.scale
    if heads.softcap:
        scores = heads.softcap * np.tanh(scores / heads.softcap)
    apart = np.arange(n)[:, None] - np.arange(n)
    scores[:, (apart < 0) | (apart >= (heads.window or n))] = -np.inf
    weights = np.exp(scores)
    weights /= weights.sum(-1, keepdims=True) + np.exp(sinks)[:, None, None]
    result: Array = np.einsum("hqk,khd->qhd", weights, v.repeat(group, 1)).reshape(n, -1)
    return result


@pytest.mark.parametrize("kind", ["q8_0", "q4_0"])
@pytest.mark.parametrize("name", ["qwen3moe", "gpt-oss"])
def test_quantised_keys_and_values(name: str, kind: str, tmp_path: Path, folder: Path) -> None:
    """As the CPU has them. A value between two levels may fall to the other one, for a difference in its last bit."""
    path = tiny_gguf.write(tmp_path / "m.gguf", tiny_gguf.variant(name, "F32"))
    tokens = np.random.default_rng(2).integers(0, 300, sum(PARTS)).tolist()
    with closing(open_model(path, kind=kind)) as executor:
        expected = Text(executor, blocks_for(64)).feed(tokens)
    logits = cuda_on_cpu.logits(path, tokens, PARTS, folder, KINDS[kind])
    apart = [naive.nmse(*row) for row in zip(logits, expected, strict=True)]
    assert np.median(apart) <= (1e-5 if kind == "q8_0" else 1e-4)


@pytest.mark.parametrize("vocab", [65, 1025, 5000])
def test_likeliest_tokens(vocab: int, folder: Path) -> None:
    module, rng = cuda_on_cpu.CpuModule({"F32"}, folder), np.random.default_rng(vocab)
    logits = rng.standard_normal((2, vocab)).astype(np.float32)
    logits[1] = np.round(logits[1] * 20) / 20  # with ties: the lower number first
    best, count = Shortlist(2, pinned=False), torch.tensor([2], dtype=torch.int32)
    x, maxima = torch.from_numpy(logits), torch.zeros((2, LIST_GROUPS), dtype=torch.int32)
    module.launch("group_maxima", (LIST_GROUPS // 8, 2), 256, x, maxima, vocab, count)
    module.launch("shortlist", (2,), LIST_GROUPS, x, maxima, vocab, best.ids, best.logits, best.counts, count)
    for row in range(2):
        found, order = best.row(row), np.lexsort((np.arange(vocab), -logits[row]))[:LIST]
        assert found is not None
        assert found[0].tolist() == order.tolist()
        assert found[1].tolist() == logits[row][order].tolist()
