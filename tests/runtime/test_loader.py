"""runtime.loader: what opens, and what the server is told when a file does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from stepping import answer

import ollama_compat
from runtime.engine import Engine
from runtime.execute.cpu import CpuExecutor
from runtime.frames import Done, Generate, Grow, Grown, Load, Sampling
from runtime.loader import LoadError, open_model, stays_in_file

DEMO = Path(ollama_compat.__file__).parent / "data" / "demo-moe-Q4_K_M.gguf"


def ignore(phase: str, completed: int, total: int) -> None:
    """No one is interested."""


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"nothing\.gguf") as caught:
        open_model(Load(str(tmp_path / "nothing.gguf")), ignore)
    assert caught.value.kind == "bad_model"


@pytest.mark.parametrize("content", [b"", b"GGUF", b"no model at all, but longer than a header would be"])
def test_a_file_that_is_no_model(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(LoadError) as caught:
        open_model(Load(str(path)), ignore)
    assert caught.value.kind == "bad_model"


def test_the_demo_model_answers_and_reuses_what_it_has_read() -> None:
    phases: set[str] = set()
    model = open_model(Load(str(DEMO), num_ctx=512), lambda phase, completed, total: phases.add(phase))
    assert phases
    engine = Engine(model.executor, model.tokenizer, 512)
    loaded = model.loaded(engine.num_ctx, 1)
    assert (loaded.architecture, loaded.num_ctx, loaded.n_vocab) == ("qwen3moe", 512, model.tokenizer.n_vocab)
    assert loaded.eos_token in loaded.control_tokens
    prompt = "<|im_start|>user\nTell me a story<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    answers = [answer(engine, Generate(n, prompt, sampling=Sampling(temperature=0), num_predict=40)) for n in (1, 2)]
    model.executor.close()
    (first, done), (second, again) = answers
    assert first == second
    assert len(first.split()) > 5
    assert (done.cached_tokens, again.cached_tokens) == (0, done.prompt_tokens - 1)


def test_threads_that_could_not_run_together_are_not_started(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "runtime.loader")
    cpus = len(os.sched_getaffinity(0))
    model = open_model(Load(str(DEMO), num_ctx=64, num_thread=cpus + 2), ignore)
    model.executor.close()
    assert isinstance(model.executor, CpuExecutor)
    assert model.executor.threads <= cpus
    assert f"num_thread is {cpus + 2}" in caplog.text


def test_a_model_larger_than_the_memory_answers_from_its_file(caplog: pytest.LogCaptureFixture) -> None:
    size = DEMO.stat().st_size
    model = open_model(Load(str(DEMO), num_ctx=512, memory=size), ignore)
    assert "read from the file as they are used" in model.executor.placement
    assert "more than the memory that is free" in caplog.text
    engine = Engine(model.executor, model.tokenizer, 512)
    text, _ = answer(engine, Generate(1, "Once upon a time", sampling=Sampling(temperature=0), num_predict=20))
    model.executor.close()
    assert len(text.split()) > 5


def test_a_model_larger_than_the_memory_is_refused_where_the_file_may_not_be_used() -> None:
    size = DEMO.stat().st_size
    with pytest.raises(
        LoadError, match=rf"requires more system memory .* is available .*: {size - 95} bytes are missing"
    ) as caught:
        open_model(Load(str(DEMO), memory=100, use_mmap=False), ignore)
    assert caught.value.kind == "out_of_memory"


@pytest.mark.parametrize("memory", [0, 2 * DEMO.stat().st_size])
def test_memory_that_is_enough_or_unknown_is_read_into(memory: int) -> None:
    assert not stays_in_file(Load("m", memory=memory, use_mmap=False), DEMO.stat().st_size)


def test_a_context_grows_without_another_load() -> None:
    prompt = "Once upon a time there was a fox. " * 40
    request = Generate(1, prompt, sampling=Sampling(temperature=0), num_predict=40)
    expected, _ = grown_answer(2048, request)
    text, done = grown_answer(64, request)
    assert text == expected
    assert done.prompt_tokens > 64


def grown_answer(num_ctx: int, request: Generate) -> tuple[str, Done]:
    """The answer of a model that was loaded with so much context and then grew to its longest."""
    model = open_model(Load(str(DEMO), num_ctx=num_ctx, num_batch=128, memory=2 << 30), ignore)
    try:
        engine = model.engine(num_ctx)
        assert isinstance(engine, Engine)
        assert engine.num_ctx == num_ctx
        grown = engine.grow(Grow(7, 1 << 20, 2 << 30))
        assert isinstance(grown, Grown)
        assert grown.num_ctx == 2048
        return answer(engine, request)
    finally:
        model.executor.close()


def test_a_context_that_nobody_names_follows_the_memory() -> None:
    for memory, num_ctx in ((0, 2048), (4 << 30, 2048)):
        model = open_model(Load(str(DEMO), num_ctx=0, num_parallel=0, num_batch=0, memory=memory), ignore)
        assert model.engine(0).num_ctx == num_ctx
        model.executor.close()


def test_a_tier_that_there_is_not(demo_model: Path) -> None:
    """In a process of its own, since a process compiles for one tier."""
    code = f"""
from runtime import loader
from runtime.frames import Load
try:
    loader.open_model(Load({str(demo_model)!r}), lambda *progress: None)
except loader.LoadError as error:
    print(error.kind, error)
"""
    environ = os.environ | {"MOELLAMA_ISA": "mmx"}
    root = Path(__file__).resolve().parents[2]
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root, env=environ)
    assert run.stdout.startswith("unsupported MOELLAMA_ISA=mmx: no such tier")
