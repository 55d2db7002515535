"""The demo model against llama.cpp on the same file: perplexity, divergence, greedy text (bounds of docs/performance.md)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from stepping import Text, blocks_for, open_model

from runtime.execute.cpu import CpuExecutor

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    return dict(np.load(GOLDEN / "demo-moe.npz"))


@pytest.fixture(scope="module")
def logprobs(golden: dict[str, np.ndarray], demo_model: Path) -> np.ndarray:
    """Our log probabilities (tokens, vocabulary) of the golden text, in the golden's windows."""
    executor = open_model(demo_model, rows=512, ctx=512)
    window, tokens = int(golden["window"]), golden["tokens"].tolist()
    parts = []
    for start in range(0, len(tokens), window):
        text, part = Text(executor, blocks_for(window)), tokens[start : start + window]
        parts += [text.feed(part[i : i + executor.max_outputs]) for i in range(0, len(part), executor.max_outputs)]
    executor.close()
    return _log_softmax(np.concatenate(parts))


def _log_softmax(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    x -= x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def test_perplexity_is_within_two_permille(golden: dict[str, np.ndarray], logprobs: np.ndarray) -> None:
    tokens = golden["tokens"]
    assert len(tokens) > 5000
    ours = logprobs[np.arange(len(tokens) - 1), tokens[1:]].mean()
    assert abs(np.exp(golden["target"][:-1].mean() - ours) - 1) <= 0.002


def test_divergence(golden: dict[str, np.ndarray], logprobs: np.ndarray) -> None:
    """KL over llama.cpp's 16 best tokens and all others as one: a lower bound of the whole that misses almost nothing."""
    theirs = golden["logprobs"].astype(np.float64)
    ours = np.take_along_axis(logprobs, golden["ids"].astype(np.int64), 1)
    rest, our_rest = 1 - np.exp(theirs).sum(1), 1 - np.exp(ours).sum(1)
    kl = (np.exp(theirs) * (theirs - ours)).sum(1) + rest * np.log(rest / our_rest)
    assert kl.mean() <= 1e-3


def test_best_token_agrees_where_it_is_clear(golden: dict[str, np.ndarray], logprobs: np.ndarray) -> None:
    clear = golden["logprobs"][:, 0] - golden["logprobs"][:, 1] > 0.2
    assert (logprobs.argmax(1) == golden["ids"][:, 0])[clear].mean() >= 0.999


def test_greedy_text(demo_model: Path, executors: Callable[..., CpuExecutor]) -> None:
    """64 tokens from each prompt: most texts equal, every first difference where llama.cpp hardly knew."""
    golden = np.load(GOLDEN / "demo-moe.greedy.npz")
    executor = executors(demo_model)
    prompts = np.split(golden["prompts"], np.cumsum(golden["lengths"])[:-1])
    equal = 0
    for prompt, answer, gaps in zip(prompts, golden["answers"], golden["gaps"], strict=True):
        text = Text(executor, blocks_for(256))
        token = int(text.feed(prompt.tolist())[-1].argmax())
        for step, expected in enumerate(answer):
            if token != expected:
                assert gaps[step] <= 0.25
                break
            token = int(text.feed([token])[0].argmax())
        else:
            equal += 1
    assert equal >= 0.6 * len(prompts)
