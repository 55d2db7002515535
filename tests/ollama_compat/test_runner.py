from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from ollama_compat.errors import ApiError, RunnerDied
from ollama_compat.runner import Runner
from runtime.frames import Done, Generate, Load, Token

FAKE = str(Path(__file__).with_name("fake_worker.py"))


@contextlib.asynccontextmanager
async def running(*arguments: str) -> AsyncIterator[Runner]:
    runner = await Runner.spawn((sys.executable, FAKE, *arguments))
    try:
        yield runner
    finally:
        await runner.close()


@contextlib.asynccontextmanager
async def loaded() -> AsyncIterator[Runner]:
    async with running() as runner:
        await runner.load(Load("model"))
        yield runner


def prompt(text: str, **fields: object) -> Callable[[int], Generate]:
    return lambda number: Generate(number, text, **fields)  # type: ignore[arg-type]


async def collect(runner: Runner, text: str) -> tuple[str, Done]:
    said, done = "", None
    async for reply in runner.generate(prompt(text)):
        if isinstance(reply, Token):
            said += reply.text
        else:
            done = reply
    assert done is not None
    return said, done


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def test_load_tells_its_progress_and_its_result() -> None:
    seen = []
    async with running("--train=512") as runner:
        result = await runner.load(Load("model", num_ctx=4096), progress=seen.append)
    assert [(p.phase, p.completed, p.total) for p in seen] == [("reading weights", 1, 2)]
    assert (result.num_ctx, result.n_ctx_train) == (512, 512)


async def test_load_that_fails_names_the_cause() -> None:
    async with running("--fail=bad_model") as runner:
        with pytest.raises(ApiError, match="the load failed") as caught:
            await runner.load(Load("model"))
    assert caught.value.status == 500


async def test_load_that_dies_says_how() -> None:
    async with running("--die") as runner:
        with pytest.raises(ApiError, match="model runner process has terminated: exit status 0"):
            await runner.load(Load("model"))


async def test_load_that_stalls_is_given_up() -> None:
    async with running("--hang") as runner:
        with pytest.raises(ApiError, match="timed out waiting for the model runner"):
            await runner.load(Load("model"), stall_timeout=0.05)


async def test_answers_of_concurrent_requests_do_not_mix() -> None:
    async with loaded() as runner:
        answers = await asyncio.gather(*(collect(runner, f"say(one {n} two {n})") for n in range(20)))
    assert [said for said, _ in answers] == [f"one {n} two {n}" for n in range(20)]


async def test_tokens_go_to_text_and_back() -> None:
    async with loaded() as runner:
        tokens = await runner.tokenize("a b c")
        assert await runner.detokenize(tokens) == "a b c"


async def test_a_failed_request_is_an_error_in_llama_servers_words() -> None:
    async with loaded() as runner:
        with pytest.raises(ApiError) as caught:
            await collect(runner, "word " * 3000)
    assert caught.value.status == 400
    assert caught.value.message == (
        '{"error":{"code":400,"message":"request (3001 tokens) exceeds the available context size (2048 tokens), '
        'try increasing it","type":"exceed_context_size_error","n_prompt_tokens":3001,"n_ctx":2048}}'
    )


async def test_leaving_a_stream_cancels_it_in_the_runner() -> None:
    async with loaded() as runner:
        async with contextlib.aclosing(runner.generate(prompt("slow()"))) as replies:
            async for reply in replies:
                assert isinstance(reply, Token)
                break
        assert (await runner.stats()).running == 0


async def test_cancelling_the_reader_cancels_the_request() -> None:
    async with loaded() as runner:
        task = asyncio.create_task(collect(runner, "hang()"))
        await asyncio.sleep(0)  # the request is sent; what is asked after it is answered after it
        assert (await runner.stats()).running == 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (await runner.stats()).running == 0


async def test_every_request_of_a_runner_that_dies_gets_the_typed_error() -> None:
    async with loaded() as runner:
        waiting = [asyncio.create_task(collect(runner, "hang()")) for _ in range(3)]
        await runner.stats()
        os.kill(runner.pid, signal.SIGKILL)
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [RunnerDied] * 3
        assert str(results[0]) == (
            "model runner has unexpectedly stopped, this may be due to resource limitations or an internal error, "
            "check ollama server logs for details"
        )
        await runner.dead.wait()
        with pytest.raises(RunnerDied):
            await runner.tokenize("later")


async def test_a_death_in_the_middle_of_an_answer_ends_it_with_an_error() -> None:
    said: list[Token | Done] = []

    async def read(runner: Runner) -> None:
        async for reply in runner.generate(prompt("die()")):
            said.append(reply)

    async with loaded() as runner:
        with pytest.raises(RunnerDied):
            await read(runner)
    assert [reply.text for reply in said if isinstance(reply, Token)] == ["last words"]


async def test_a_runner_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ollama_compat.pulse.BEAT", 0.2)
    async with loaded() as runner:
        waiting = asyncio.create_task(collect(runner, "hang()"))
        await asyncio.sleep(0.9)
        assert not waiting.done()  # silent, but it answers
        os.kill(runner.pid, signal.SIGSTOP)
        with pytest.raises(RunnerDied):
            await waiting


async def test_a_runner_that_hangs_before_it_is_asked_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ollama_compat.pulse.BEAT", 0.05)
    async with loaded() as runner:
        os.kill(runner.pid, signal.SIGSTOP)
        assert not await runner.alive()
        await runner.dead.wait()


async def test_a_runner_that_is_busy_may_be_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ollama_compat.pulse.BEAT", 0.2)
    async with loaded() as runner:
        said, _ = await collect(runner, "busy() say(done)")  # for many beats
    assert said == "done"


async def test_a_runner_that_is_busy_for_ever_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ollama_compat.pulse.BEAT", 0.1)
    monkeypatch.setattr("ollama_compat.pulse.LONGEST", 4)
    async with loaded() as runner:
        with pytest.raises(RunnerDied):
            await collect(runner, "busy() say(done)")


async def test_a_runner_knows_whether_it_lives() -> None:
    async with loaded() as runner:
        assert await runner.alive()
        os.kill(runner.pid, signal.SIGKILL)
        assert not await runner.alive()


async def test_close_ends_the_process() -> None:
    async with loaded() as runner:
        pid = runner.pid
    assert gone(pid)


async def test_close_kills_a_process_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ollama_compat.runner._CLOSE_SECONDS", 0.1)
    deaf = "import time, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    runner = await Runner.spawn((sys.executable, "-c", deaf))
    await runner.close()
    assert gone(runner.pid)


async def test_bytes_that_are_no_frame_end_the_runner() -> None:
    runner = await Runner.spawn((sys.executable, "-c", "print('what is this', flush=True); import time; time.sleep(600)"))
    with pytest.raises(ApiError, match="terminated: signal: killed"):
        await runner.load(Load("model"))
    await runner.close()
