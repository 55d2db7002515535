"""The forward pass on torch, tested on its CPU device in float32: the same models, the same twins as the CPU kernels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import naive
import numpy as np
import pytest
import tiny_gguf
from stepping import Text, blocks_for
from tiny_gguf import Type

torch = pytest.importorskip("torch", reason="needs the extra cuda")

from runtime import models  # noqa: E402
from runtime.core import Batch  # noqa: E402
from runtime.execute import cuda  # noqa: E402
from runtime.weights import open_weights  # noqa: E402

Open = Callable[[Path], "cuda.TorchExecutor"]


def silent(phase: str, done: int, total: int) -> None:
    pass


@pytest.fixture
def opened() -> Iterator[Open]:
    """Opens models on torch's CPU device; all are closed when the test ends."""
    executors: list[cuda.TorchExecutor] = []

    def open_one(path: Path) -> cuda.TorchExecutor:
        weights = open_weights(path, silent)
        executors.append(cuda.TorchExecutor(weights, models.build(weights), torch.device("cpu"), 24, 128, silent))
        weights.close()
        return executors[-1]

    yield open_one
    for executor in executors:
        executor.close()


@pytest.mark.parametrize("architecture", ["llama", "mixtral", "qwen2", "qwen3", "qwen3moe"])
def test_logits_match_twin(architecture: str, tmp_path: Path, opened: Open) -> None:
    path = tiny_gguf.write(tmp_path / "m.gguf", tiny_gguf.variant(architecture, "F32"))
    tokens = np.random.default_rng(2).integers(0, 300, 70).tolist()
    text = Text(opened(path), blocks_for(128)[::-1])
    logits = np.concatenate([text.feed(tokens[:40]), *(text.feed([token]) for token in tokens[40:])])
    assert naive.nmse(logits, naive.Model(path, cache=np.float32).logits(tokens)) <= 1e-6


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_K", "Q5_K", "Q6_K", "F16", "BF16"])
def test_quantised_weights_with_float_activations(kind: str, tmp_path: Path, opened: Open) -> None:
    shape = dataclasses.replace(tiny_gguf.ARCHITECTURES["qwen3moe"], type=Type[kind])
    path = tiny_gguf.write(tmp_path / "m.gguf", shape)
    tokens = list(range(30))
    assert naive.nmse(Text(opened(path), blocks_for(64)).feed(tokens), naive.Model(path, cache=np.float32).logits(tokens)) <= 1e-5


def test_batch_of_several_sequences(demo_model: Path, opened: Open) -> None:
    executor = opened(demo_model)
    rng = np.random.default_rng(3)
    prompts = [rng.integers(0, 4000, n).tolist() for n in (5, 70, 33)]
    alone = [Text(executor, blocks_for(128, 1 + 2 * i)).feed(prompt)[-1] for i, prompt in enumerate(prompts)]
    lengths = [len(prompt) for prompt in prompts]
    batch = Batch(
        tokens=np.concatenate(prompts).astype(np.int32),
        positions=np.concatenate([np.arange(n) for n in lengths]).astype(np.int32),
        sequences=np.repeat(np.arange(3), lengths).astype(np.int32),
        tables=np.array([[9, 10], [11, 12], [13, 14]], np.int32),
        outputs=(np.cumsum(lengths) - 1).astype(np.int32),
    )
    assert naive.nmse(executor.forward(batch), np.array(alone)) <= 1e-9


def test_copied_blocks_continue_a_text(demo_model: Path, opened: Open) -> None:
    executor = opened(demo_model)
    text = Text(executor, [3, 4])
    text.feed(list(range(70)))
    expected = text.feed([8])
    executor.copy_blocks([(3, 11), (4, 12)])
    twin = Text(executor, [11, 12])
    twin.length = 70
    np.testing.assert_allclose(twin.feed([8]), expected, rtol=1e-5, atol=1e-5)


def test_load_without_a_card_falls_back(demo_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a card")
    options = {"num_ctx": 512, "num_parallel": 1, "num_batch": 64, "main_gpu": 0}
    assert cuda.load(demo_model, progress=silent, **options) is None
    assert "cannot be used" in caplog.text


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_on_a_card(demo_model: Path) -> None:
    executor = cuda.load(demo_model, num_ctx=512, num_parallel=1, num_batch=128, main_gpu=0, progress=silent)
    assert executor is not None
    assert executor.size_vram > 0
    tokens = list(range(100, 180))
    text = Text(executor, blocks_for(128))
    logits = np.concatenate([text.feed(tokens[:60]), *(text.feed([token]) for token in tokens[60:])])
    assert naive.nmse(logits, naive.Model(demo_model).logits(tokens)) <= 1e-3
    executor.close()
