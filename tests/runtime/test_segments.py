"""Attention that reaches over several segments of keys: the same bits however the work is divided."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import naive
import numpy as np
import pytest
import tiny_gguf
from stepping import Text, blocks_for

from runtime.core import Batch
from runtime.execute.cpu import CpuExecutor

LENGTHS = 1290, 40  # of two texts
MODELS = {
    "qwen3moe": "f16",
    "gpt-oss": "q8_0",  # sinks, and windows in every other block
    "gemma2": "q4_0",
    "deepseek2": "f16",  # one key head for all
}


def longer(architecture: str, kind: str) -> tiny_gguf.Shape:
    """A tiny model of longer texts."""
    return dataclasses.replace(tiny_gguf.variant(architecture, kind), context=1408)


def logits(executor: CpuExecutor) -> list[np.ndarray]:
    """Of the tokens that follow a long text, one by one, four in one step, and one beside a row of a short text."""
    rng = np.random.default_rng(1)
    texts = [Text(executor, blocks_for(1408)), Text(executor, blocks_for(64, first=30))]
    for text, length in zip(texts, LENGTHS, strict=True):
        tokens = rng.integers(0, 300, length).tolist()
        for start in range(0, length, 128):
            text.feed(tokens[start : start + 128])
    found = [texts[0].feed([token]) for token in (5, 6)]
    found.append(texts[0].feed([1, 2, 3, 4]))
    positions = np.array([text.length for text in texts], np.int32)
    tables = np.zeros((2, texts[0].table.shape[1]), np.int32)
    for table, text in zip(tables, texts, strict=True):
        table[: text.table.shape[1]] = text.table[0]
    both = np.arange(2, dtype=np.int32)
    found.append(executor.forward(Batch(np.array([7, 8], np.int32), positions, both, tables, both)).copy())
    return found


@pytest.mark.parametrize("architecture", MODELS)
def test_the_number_of_threads_does_not_show(
    executors: Callable[..., CpuExecutor], tmp_path: Path, architecture: str
) -> None:
    path = tiny_gguf.write(tmp_path / "model.gguf", longer(architecture, "MIX"))
    one, *others = (
        logits(executors(path, threads=threads, ctx=1408, kind=MODELS[architecture])) for threads in (1, 2, 5)
    )
    for other in others:
        for a, b in zip(one, other, strict=True):
            assert (a == b).all()


def test_segments_make_what_one_softmax_makes(executors: Callable[..., CpuExecutor], tmp_path: Path) -> None:
    path = tiny_gguf.write(tmp_path / "model.gguf", longer("qwen3", "F32"))
    tokens = np.random.default_rng(0).integers(0, 300, 1100).tolist()
    text = Text(executors(path, threads=3, ctx=1408), blocks_for(1408))
    for start in range(0, 1096, 128):
        text.feed(tokens[start : min(start + 128, 1096)])
    expected = naive.Model(path).logits(tokens)
    for i in range(1096, 1100):
        assert naive.nmse(text.feed(tokens[i : i + 1])[0], expected[i]) <= 1e-6


@pytest.mark.parametrize("architecture", ["qwen3", "gpt-oss", "gemma2", "deepseek2"])
def test_rows_together_and_alone_make_the_same_bits(
    executors: Callable[..., CpuExecutor], tmp_path: Path, architecture: str
) -> None:
    executor = executors(tiny_gguf.write(tmp_path / "model.gguf", longer(architecture, "F32")), threads=1, ctx=1408)
    tokens, found = np.random.default_rng(0).integers(0, 300, 700).tolist(), []
    for rows in (128, 1):
        text = Text(executor, blocks_for(1408))
        for start in range(0, 640, 128):
            text.feed(tokens[start : start + 128])
        found.append(np.concatenate([text.feed(tokens[start : start + rows]) for start in range(640, 700, rows)])[-1])
    np.testing.assert_array_equal(*found)
