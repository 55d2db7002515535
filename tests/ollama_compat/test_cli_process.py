"""The command as a process: what it imports, its streams, its signals, and its progress on a terminal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from fake_ollama import FakeOllama, Reply, lines, stream
from terminal import Terminal

from ollama_compat.cli.commands import COMMANDS
from ollama_compat.cli.root import target

COMMAND = [sys.executable, "-m", "ollama_compat"]


@pytest.fixture
def server() -> Iterator[FakeOllama]:
    with FakeOllama() as running:
        yield running


def environ(server: FakeOllama) -> dict[str, str]:
    return os.environ | {"OLLAMA_HOST": server.host}


def test_every_command_has_its_function() -> None:
    for command in COMMANDS:
        assert not command.target or callable(target(command))


@pytest.mark.parametrize("args", [["list"], ["run", "m", "hi"], ["show", "m"], ["--help"]])
def test_client_commands_start_light(server: FakeOllama, args: list[str]) -> None:
    code = f"""
import sys
from ollama_compat.cli.root import main
assert main({args!r}) == 0
heavy = {{"aiohttp", "asyncio", "jinja2", "numba", "numpy", "orjson", "ollama_compat.store", "runtime"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run(
        [sys.executable, "-c", code], check=True, env=environ(server), stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    )


def test_the_name_that_it_was_called_by() -> None:
    code = "import sys; sys.argv = ['/usr/bin/ollama', '--help']; from ollama_compat.cli.root import main; main()"
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "\n  ollama [command]\n" in shown
    shown = subprocess.run([*COMMAND, "--help"], check=True, capture_output=True, text=True).stdout
    assert "\n  moellama [command]\n" in shown


def test_output_that_nobody_reads(server: FakeOllama) -> None:
    server.endless["POST /api/generate"] = (lines({"response": "word " * 100}), threading.Event())
    script = f"{sys.executable} -m ollama_compat run m hi | head -c 4; echo ${{PIPESTATUS[0]}}"
    ended = subprocess.run(
        ["bash", "-c", script], env=environ(server), capture_output=True, text=True, stdin=subprocess.DEVNULL, check=True
    )
    assert (ended.stdout, ended.stderr) == ("word141\n", "")


def test_closed_streams_and_full_disks(server: FakeOllama) -> None:
    script = f"{sys.executable} -m ollama_compat"
    closed = subprocess.run(["sh", "-c", f"{script} run m hi <&- >&-"], env=environ(server), capture_output=True, check=False)
    assert (closed.returncode, closed.stderr) == (0, b"")
    full = subprocess.run(["sh", "-c", f"{script} list >/dev/full"], env=environ(server), capture_output=True, check=False)
    assert (full.returncode, full.stderr) == (1, b"Error: no space left on device\n")


@pytest.mark.parametrize(
    ("args", "path", "status"), [(["run", "m", "hi"], "generate", 0), (["pull", "m"], "pull", -signal.SIGINT)]
)
def test_interrupted(server: FakeOllama, args: list[str], path: str, status: int) -> None:
    gone = threading.Event()
    server.endless[f"POST /api/{path}"] = (lines({"response": "word ", "status": "working"}), gone)
    process = subprocess.Popen(
        [*COMMAND, *args], env=environ(server), stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    with process:
        while not any(request[1] == f"/api/{path}" for request in server.requests):
            assert process.poll() is None
        assert process.stdout is not None
        if path == "generate":
            process.stdout.read(5)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == status
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()
    assert gone.wait(10)


def test_bars_on_a_terminal(server: FakeOllama) -> None:
    size = {"digest": "sha256:0123456789abcdef", "total": 2_000_000_000}
    steps = [
        {"status": "pulling manifest"},
        {**size, "completed": 500_000_000},
        {**size, "completed": 2_000_000_000},
        {"status": "success"},
    ]
    server.script({"POST /api/pull": stream(*steps)})
    terminal = Terminal(["pull", "m"], columns=70, OLLAMA_HOST=server.host)
    assert terminal.end() == 0
    last = terminal.raw.replace("\r", "").split("\x1b[?2026h")[-1]
    shown = terminal.text.split("pulling manifest")[-1]
    assert f"pulling 0123456789ab: 100% ▕{'█' * 8}▏   2 GB" in shown
    assert last.endswith("success \x1b[K\x1b[?25h\x1b[?2026l\n")
    terminal.close()


def test_wrapped_progress_is_drawn_over_itself(server: FakeOllama) -> None:
    gone = threading.Event()
    server.endless["POST /api/pull"] = (lines({"status": "a status that is longer than the terminal"}), gone)
    terminal = Terminal(["pull", "m"], columns=20, OLLAMA_HOST=server.host)
    for _ in range(3):
        terminal.expect("terminal")
    terminal.interrupt()
    assert terminal.end() == -signal.SIGINT
    assert "\x1b[A\x1b[A\x1b[1Ga status" in terminal.raw
    assert terminal.raw.endswith("\x1b[?2026l\r\n")
    terminal.close()


def test_one_shot_on_a_terminal_is_coloured_and_wrapped(server: FakeOllama) -> None:
    text = "one two three four five six seven eight nine"
    server.script({"POST /api/generate": stream({"thinking": "hm"}, *({"response": char} for char in text), {"done": True})})
    terminal = Terminal(["run", "m", "hi"], columns=40, OLLAMA_HOST=server.host)
    assert terminal.end() == 0
    shown = terminal.raw.replace("\r\n", "\n")
    grey = "\x1b[38;5;245m"
    assert f"{grey}\x1b[1mThinking...\n\x1b[0m{grey}hm\n{grey}\x1b[1m...done thinking.\n\n\x1b[0mone two" in shown
    assert shown.endswith("seven e\x1b[1D\x1b[K\neight nine\n\n")
    terminal.close()


def test_serving_where_somebody_serves(server: FakeOllama) -> None:
    ended = subprocess.run([*COMMAND, "serve"], env=environ(server), capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 1
    assert f"Error: listen tcp {server.host}: bind: address already in use\n" in ended.stderr


def test_a_reply_that_is_no_model(server: FakeOllama) -> None:
    server.script({"GET /api/tags": Reply([1])})
    assert subprocess.run([*COMMAND, "list"], env=environ(server), capture_output=True, check=False).returncode == 0
