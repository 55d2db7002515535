"""runtime.worker as a process, with a toy model behind it (tests/toy_model.py)."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import toy_model
from toy_model import BOS, alone, chaos

from runtime import frames
from runtime.engine import NO_VECTORS
from runtime.frames import Cancel, Done, Failed, Frame, Generate, Load, Loaded, LoadProgress, Reply, Sampling, Stats, Token
from runtime.room import NO_ROOM, TOO_LONG

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, toy_model.__file__]
SECONDS = 30  # after which a child that hangs is killed


class Child:
    """The process, and what it said so far."""

    def __init__(self, path: str | None = "toy") -> None:
        pipe = subprocess.PIPE
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(COMMAND, stdin=pipe, stdout=pipe, stderr=pipe, env=environment)
        self._watchdog = threading.Timer(SECONDS, self.process.kill)
        self._watchdog.start()
        if path is not None:
            self.send(Load(path, num_ctx=1024))
            self.first = self.until(Loaded, Failed)

    def send(self, *requests: Frame) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"".join(map(frames.encode, requests)))
        self.process.stdin.flush()

    def read(self) -> Reply | None:
        """The next frame, None at the end."""
        assert self.process.stdout is not None
        prefix = self.process.stdout.read(frames.PREFIX_BYTES)
        if not prefix:
            return None
        return frames.decode(self.process.stdout.read(frames.body_length(prefix)))  # type: ignore[return-value]

    def until(self, *kinds: type, id: int | None = None) -> list[Reply]:
        """Frames up to one of a kind (and of a request)."""
        found: list[Reply] = []
        while True:
            frame = self.read()
            assert frame is not None, self.log()
            found.append(frame)
            if isinstance(frame, kinds) and getattr(frame, "id", None) == id:
                return found

    def rest(self) -> list[Reply]:
        return list(iter(self.read, None))

    def log(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    def end(self) -> int:
        """The exit status."""
        return self.process.wait()

    def close_stdin(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def kill(self) -> None:
        self._watchdog.cancel()
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


@pytest.fixture
def start() -> Iterator[Callable[..., Child]]:
    children: list[Child] = []

    def start_one(path: str | None = "toy") -> Child:
        children.append(Child(path))
        return children[-1]

    yield start_one
    for child in children:
        child.kill()


@pytest.fixture
def child(start: Callable[..., Child]) -> Child:
    return start()


def ask(number: int, prompt: str = "hello", count: int = 20, **fields: object) -> Generate:
    return Generate(number, prompt, sampling=Sampling(temperature=0), num_predict=count, **fields)  # type: ignore[arg-type]


def ids(replies: list[Reply], number: int) -> list[int]:
    return [token for frame in replies if isinstance(frame, Token) and frame.id == number for token in frame.tokens]


def test_load(child: Child) -> None:
    assert child.first[:2] == [LoadProgress("reading weights", 0, 2), LoadProgress("reading weights", 2, 2)]
    loaded = child.first[2]
    assert isinstance(loaded, Loaded)
    assert (loaded.architecture, loaded.num_ctx, loaded.n_ctx_train, loaded.n_vocab) == ("toy", 1024, 4096, toy_model.N_VOCAB)
    assert (loaded.bos_token, loaded.eos_token, loaded.add_bos) == ("<bos>", "<eos>", True)
    assert loaded.control_tokens == ["<bos>", "<eos>", "<call>"]
    assert (loaded.size, loaded.placement) == (1234, "nowhere")
    assert loaded.load_ns > 0


def test_what_others_print_goes_to_the_log(child: Child) -> None:
    child.close_stdin()
    assert child.end() == 0
    assert child.rest() == []
    assert "a stray print" in child.log()


def test_generate(child: Child) -> None:
    child.send(ask(1), ask(2, "other", 30))
    expected = alone(chaos, [BOS, 261, ord("o")], 20)
    replies = child.until(Done, id=1)
    replies += child.until(Done, id=2)
    assert ids(replies, 1) == expected
    assert ids(replies, 2) == alone(chaos, [BOS, *b"other"[:2], 259, ord("r")], 30)


@pytest.mark.parametrize(("path", "kind"), [("broken", "bad_model"), ("huge", "out_of_memory"), ("bug", "internal")])
def test_a_load_that_fails(start: Callable[..., Child], path: str, kind: str) -> None:
    child = start(path)
    failed = child.first[-1]
    assert isinstance(failed, Failed)
    assert (failed.id, failed.kind) == (None, kind)
    assert child.rest() == []
    assert child.end() == 1


def test_a_first_frame_that_is_no_load(start: Callable[..., Child]) -> None:
    child = start(None)
    child.send(Cancel(1))
    assert child.end() == 1
    assert "not Load" in child.log()


def test_an_end_before_the_load(start: Callable[..., Child]) -> None:
    child = start(None)
    child.close_stdin()
    assert (child.end(), child.rest()) == (0, [])


def test_the_end_of_stdin_ends_a_busy_runner(child: Child) -> None:
    child.send(ask(1, count=-1))
    child.until(Token, id=1)
    child.close_stdin()
    child.rest()
    assert child.end() == 0


def test_a_parent_that_reads_no_more_ends_it(child: Child) -> None:
    child.send(ask(1, count=-1))
    assert child.process.stdout is not None
    child.process.stdout.close()
    assert child.end() == 0


def test_cancel(child: Child) -> None:
    child.send(ask(1, count=-1), ask(2, count=-1))
    child.until(Token, id=2)
    child.send(Cancel(1))
    done = child.until(Done, id=1)[-1]
    assert isinstance(done, Done)
    assert done.reason == "cancelled"
    child.until(Token, id=2)
    child.send(Cancel(2))
    child.until(Done, id=2)
    child.send(frames.GetStats(3))
    stats = child.until(Stats, id=3)[-1]
    assert isinstance(stats, Stats)
    assert (stats.running, stats.waiting, stats.blocks_free + stats.blocks_cached) == (0, 0, 256)


@pytest.mark.parametrize(
    ("text", "fields", "message"),
    [
        ("hello hello", {}, NO_VECTORS),
        ("hello", {"num_ctx": 4}, NO_VECTORS),
        ("hello" * 50, {"num_ctx": 4, "truncate": True}, NO_VECTORS),
        ("hello" * 50, {"num_ctx": 4}, TOO_LONG),
        ("hello", {"num_ctx": 1, "truncate": True}, NO_ROOM),
    ],
)
def test_how_vectors_of_a_model_that_makes_text_are_refused(
    text: str, fields: dict[str, Any], message: str, child: Child
) -> None:
    """Ollama looks at the length first."""
    child.send(frames.Embed(1, ["a", text], **({"truncate": False} | fields)))
    failed = child.until(Failed, id=1)[-1]
    assert isinstance(failed, Failed)
    assert (failed.kind, failed.message) == ("unsupported" if message == NO_VECTORS else "context_length", message)


def test_small_questions_while_busy(child: Child) -> None:
    child.send(ask(1, count=-1))
    child.until(Token, id=1)
    child.send(frames.GetStats(2), frames.Tokenize(3, "hello<call>"), frames.Tokenize(4, "<call>", False, False))
    child.send(frames.Detokenize(5, [261, ord("o")]), frames.Detokenize(6, [99999]), frames.Embed(7, ["x"]))
    replies = child.until(Failed, id=7)
    stats, hello, plain, text, bad, embed = (frame for frame in replies if getattr(frame, "id", None) != 1)
    assert isinstance(stats, Stats)
    assert (stats.id, stats.running, stats.size) == (2, 1, 1234)
    assert stats.steps > 0
    assert hello == frames.Tokens(3, [BOS, 261, ord("o"), 258])
    assert plain == frames.Tokens(4, [ord("<"), ord("c"), ord("a"), 260, ord(">")])
    assert text == frames.Text(5, "hello")
    assert isinstance(bad, Failed)
    assert (bad.id, bad.kind) == (6, "bad_request")
    assert isinstance(embed, Failed)
    assert (embed.id, embed.kind) == (7, "unsupported")
    child.until(Token, id=1)


def test_a_bad_request_fails_alone(child: Child) -> None:
    child.send(ask(1, count=-1))
    child.until(Token, id=1)
    child.send(ask(2, tokens=[5000]), ask(3, "x" * 1024), ask(4, images=["aGk="]), ask(5, tokens=["a"]), ask(6))
    failures = {frame.id: frame.kind for frame in child.until(Done, id=6) if isinstance(frame, Failed)}
    assert failures == {2: "bad_request", 3: "context_length", 4: "unsupported", 5: "internal"}
    child.until(Token, id=1)


def test_nobody_waits_for_a_grammar_that_takes_long_to_compile(child: Child) -> None:
    patterns = [{"pattern": f"a.{{{number}}}b"} for number in range(1, 20)]  # together 0.7 s, and 2.4 times that for each more
    child.send(ask(1, grammar=json.dumps({"type": "string", "allOf": patterns})), ask(2), frames.GetStats(3))
    early = child.until(Failed, id=1)
    assert [frame.id for frame in early if isinstance(frame, Stats)] == [3]
    assert any(isinstance(frame, Done) and frame.id == 2 for frame in early)


def test_a_step_that_fails_ends_all_requests_and_the_process(start: Callable[..., Child]) -> None:
    child = start("poison")
    child.send(ask(1, "a", 1000), ask(2, "bb", 1000))
    failures = [frame for frame in child.rest() if isinstance(frame, Failed)]
    assert [(failed.id, failed.kind) for failed in failures] == [(1, "internal"), (2, "internal")]
    assert "kernel failed" in failures[0].message
    assert child.end() == 1
    assert "Traceback" in child.log()


def test_a_step_that_hangs_ends_all_requests_and_the_process(start: Callable[..., Child]) -> None:
    child = start("hanging")
    child.send(ask(1, "a", 1000), ask(2, "bb", 1000))
    failures = [frame for frame in child.rest() if isinstance(frame, Failed)]
    assert [(failed.id, failed.kind) for failed in failures] == [(1, "internal"), (2, "internal")]
    assert failures[0].message == "a step hangs: nobody answers"
    assert child.end() == 1


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff\xff", b"\x02\0\0\0{}", b"\x05\0\0\0hello"])
def test_a_broken_protocol_ends_it(child: Child, garbage: bytes) -> None:
    assert child.process.stdin is not None
    child.process.stdin.write(garbage)
    child.process.stdin.flush()
    assert child.end() == 1
    assert "protocol" in child.log()


def test_half_a_frame_is_an_end(child: Child) -> None:
    assert child.process.stdin is not None
    child.process.stdin.write(frames.encode(ask(1))[:20])
    child.close_stdin()
    assert child.end() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_quietly(child: Child, number: signal.Signals) -> None:
    child.send(ask(1, count=-1))
    child.until(Token, id=1)
    child.process.send_signal(number)
    child.rest()
    assert child.end() == -number
    assert "Traceback" not in child.log()


def test_an_idle_runner_does_nothing(child: Child) -> None:
    child.send(ask(1))
    child.until(Done, id=1)
    process = psutil.Process(child.process.pid)
    before = sum(process.cpu_times()[:2])
    time.sleep(0.4)
    assert sum(process.cpu_times()[:2]) - before < 0.1
    child.send(ask(2))
    child.until(Done, id=2)


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_it_dies_with_its_parent() -> None:
    """Even when somebody else holds its stdin open."""
    parent = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen({COMMAND!r}, stdout=subprocess.PIPE)\n"
        "child.stdout.read(1); print(child.pid, flush=True); time.sleep(60)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", parent], stdin=-1, stdout=-1, stderr=-3, env=environment)
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(frames.encode(Load("toy")))
        process.stdin.flush()
        worker = psutil.Process(int(process.stdout.readline()))
        process.kill()
        gone, alive = psutil.wait_procs([worker], timeout=SECONDS)
        for each in alive:
            each.kill()
        assert gone == [worker]


def test_a_hundred_streams(child: Child) -> None:
    child.send(*(ask(number, f"number {number}", 1 + number % 30) for number in range(100)))
    replies: list[Reply] = []
    while sum(isinstance(reply, Done) for reply in replies) < 100:
        reply = child.read()
        assert reply is not None
        replies.append(reply)
    tokenizer = toy_model.make_tokenizer()
    for number in range(100):
        assert ids(replies, number) == alone(chaos, tokenizer.encode(f"number {number}"), 1 + number % 30)


def test_a_context_grows_while_a_request_runs(start: Callable[..., Child]) -> None:
    child = start("growing")
    child.send(ask(1, count=500), frames.Grow(2, 2048))
    grown = child.until(frames.Grown, id=2)[-1]
    assert isinstance(grown, frames.Grown)
    assert grown.num_ctx == 2048
    replies = child.until(Done, id=1)
    assert isinstance(replies[-1], Done)
    assert replies[-1].eval_tokens == 500


def test_a_cache_that_cannot_grow(child: Child) -> None:
    child.send(frames.Grow(2, 2048))
    assert child.until(Failed, id=2)[-1] == Failed(2, "unsupported", "this model's cache cannot grow")
