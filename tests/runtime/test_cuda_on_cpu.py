"""The card's forward pass against llama.cpp's logits, its kernels compiled for the CPU: what test_hybrid.py holds on a card."""

from __future__ import annotations

from pathlib import Path

import naive
import numpy as np
import pytest
import tiny_gguf

torch = pytest.importorskip("torch", reason="needs the extra cuda")

import cuda_on_cpu  # noqa: E402

from runtime.execute.shortlist import LIST, LIST_GROUPS, Shortlist  # noqa: E402

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
