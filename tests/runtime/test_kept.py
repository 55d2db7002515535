"""Quantised keys and values in whole models: against the plain twin, and wherever blocks are moved, shared or added."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable
from pathlib import Path

import naive
import numpy as np
import pytest
import tiny_gguf
from stepping import Text, answer, blocks_for

from ollama_compat.settings import KV_CACHE_TYPES
from runtime.engine import Engine
from runtime.execute.cpu import CpuExecutor
from runtime.frames import Generate, Grow, Grown, Load, Sampling
from runtime.kernels.kept import F16, KINDS, chosen
from runtime.loader import open_model

Open = Callable[..., CpuExecutor]
QUANTISED = [name for name in KINDS if name != "f16"]


@pytest.mark.parametrize("kind", QUANTISED)
@pytest.mark.parametrize("head", [64, 96])
def test_logits_match_the_twin(kind: str, head: int, tmp_path: Path, executors: Open) -> None:
    shape = dataclasses.replace(tiny_gguf.ARCHITECTURES["qwen3moe"], head=head)
    path = tiny_gguf.write(tmp_path / "m.gguf", shape)
    tokens = np.random.default_rng(2).integers(0, 300, 150).tolist()
    text = Text(executors(path, kind=kind), blocks_for(192)[::-1])
    logits = np.concatenate([text.feed(part) for part in (tokens[:100], tokens[100:149], tokens[149:])])
    twin = naive.Model(path, cache=functools.partial(naive.kept, bits=KINDS[kind].bits))
    # a value that lies between two levels may fall to the other one, for a difference in its last bit: of these, none does
    assert naive.nmse(logits, twin.logits(tokens)) <= 1e-6
    assert naive.nmse(logits, naive.Model(path).logits(tokens)) <= (5e-3 if kind == "q8_0" else 0.3)


@pytest.mark.parametrize("kind", QUANTISED)
def test_decode_is_prefill_and_a_row_is_the_same_in_any_batch(kind: str, demo_model: Path, executors: Open) -> None:
    executor = executors(demo_model, kind=kind)
    tokens = np.random.default_rng(4).integers(0, 4000, 100).tolist()
    at_once, text = Text(executor, blocks_for(128)).feed(tokens), Text(executor, [9, 5])
    one_by_one = np.concatenate([text.feed([token]) for token in tokens])
    np.testing.assert_array_equal(one_by_one, at_once)


@pytest.mark.parametrize("kind", KINDS)
def test_copied_blocks_continue_a_text(kind: str, demo_model: Path, executors: Open) -> None:
    executor = executors(demo_model, kind=kind)
    text = Text(executor, [3, 4])
    text.feed(list(range(70)))
    expected = text.feed([8])
    executor.copy_blocks([(3, 11), (4, 12)])
    twin = Text(executor, [11, 12])
    twin.length = 70
    np.testing.assert_array_equal(twin.feed([8]), expected)


def test_quantised_blocks_are_smaller_and_counted(demo_model: Path, executors: Open) -> None:
    sizes = {kind: executors(demo_model, kind=kind, parallel=1).size for kind in KINDS}
    config_bytes = {kind: KINDS[kind].head_bytes(64) for kind in KINDS}
    assert [config_bytes[kind] for kind in KINDS] == [8448, 4352, 2304]
    saved = [(sizes["f16"] - sizes[kind]) / (config_bytes["f16"] - config_bytes[kind]) for kind in QUANTISED]
    assert saved[0] == saved[1] > 0


def test_the_same_memory_holds_a_longer_context(demo_model: Path) -> None:
    blocks = {}
    for kind in KINDS:
        model = open_model(Load(str(demo_model), num_ctx=2048, num_parallel=64, memory=40 << 20, kv_cache_type=kind), ignore)
        assert isinstance(model.executor, CpuExecutor)
        blocks[kind] = model.executor.n_blocks
        model.executor.close()
    assert 1.8 < blocks["q8_0"] / blocks["f16"] < 1.95
    assert 3.4 < blocks["q4_0"] / blocks["f16"] < 3.7


def test_heads_that_do_not_fit_are_kept_in_f16(caplog: pytest.LogCaptureFixture) -> None:
    assert chosen("q8_0", 64, 128).name == "q8_0"
    with caplog.at_level(logging.WARNING):
        assert chosen("q8_0", 64, 80) is F16
    assert "kept in f16: q8_0 has groups of 32" in caplog.text
    assert set(KINDS) == set(KV_CACHE_TYPES)


@pytest.mark.parametrize("kind", QUANTISED)
def test_prefixes_shifts_and_growth(kind: str, demo_model: Path) -> None:
    """A prompt read a second time is found in the cache, a text that outgrows a short context slides, a longer context adds
    blocks: the same text each time as in a cache of the same kind that was long from the start."""
    prompt = "Once upon a time there was a fox. " * 20
    asked = Generate(1, prompt, sampling=Sampling(temperature=0), num_predict=40)
    loads = [Load(str(demo_model), num_ctx=n, num_batch=128, memory=2 << 30, kv_cache_type=kind) for n in (2048, 64)]
    opened = [open_model(load, ignore) for load in loads]
    long, short = (Engine(model.executor, model.tokenizer, load.num_ctx) for model, load in zip(opened, loads, strict=True))
    expected, first = answer(long, asked)
    again, second = answer(long, asked)
    assert again == expected
    assert (first.cached_tokens, second.cached_tokens) == (0, second.prompt_tokens - 1)
    slid, done = answer(short, Generate(2, "Tell me a story", sampling=Sampling(temperature=0), num_predict=100))
    assert (done.eval_tokens, bool(slid)) == (100, True) or done.reason == "stop"
    assert isinstance(short.grow(Grow(3, 2048, 2 << 30)), Grown)
    assert answer(short, asked)[0] == expected
    for model in opened:
        model.executor.close()


def ignore(phase: str, completed: int, total: int) -> None:
    """No one is interested."""
