"""The server as a whole: cold and warm start, many streams at once, memory, and what it does when nobody asks.

    python benchmarks/serve.py [--streams 100] [--users 4] [--tokens 30] [--idle 10] [--model demo-moe]

Everything runs in folders of its own: an empty store, an empty home, and for the cold start an empty cache of kernels.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from machine import heading

from ollama_compat.compare import asking, processes, sides
from ollama_compat.compare.sides import Side
from ollama_compat.settings import Address

TURNS = 15  # questions of each user
PROMPT = "Tell me a short story about a fox and a lantern."


@contextlib.contextmanager
def server(folder: Path, model: str) -> Iterator[Side]:
    """Ours, with its store and its kernels under `folder`."""
    side = Side("Moellama", "ollama", Address(port=processes.free_port()), model)
    with sides.started(sides.OURS, side, folder, {"XDG_CACHE_HOME": str(folder / "cache")}) as running:
        yield running


def first_answer(folder: Path, model: str) -> tuple[float, float, float]:
    """Seconds from the start of the process until it listens, until the first text, and of a second request's first text."""
    begin = time.perf_counter()
    with server(folder, model) as side:
        listening = time.perf_counter() - begin
        answer = asking.chat(side, PROMPT, {"num_predict": 10, "temperature": 0})
        again = asking.chat(side, PROMPT, {"num_predict": 10, "temperature": 0})
        return listening, listening + answer.first, again.first


def streams(side: Side, count: int, tokens: int) -> tuple[float, int]:
    """Seconds until all have ended, and the tokens that came."""
    options = {"num_predict": tokens, "temperature": 0}
    begin = time.perf_counter()
    with ThreadPoolExecutor(count) as users:
        answers = list(users.map(lambda number: asking.chat(side, f"{number}. {PROMPT}", options), range(count)))
    return time.perf_counter() - begin, sum(answer.tokens for answer in answers)


def first_texts(side: Side, users: int, tokens: int) -> list[float]:
    """Milliseconds until the first text, rising: each user asks again as soon as the answer has ended."""
    options = {"num_predict": tokens, "temperature": 0}

    def user(number: int) -> list[float]:
        return [asking.chat(side, f"{number}.{turn}. {PROMPT}", options).first * 1e3 for turn in range(TURNS)]

    with ThreadPoolExecutor(users) as all_users:
        return sorted(first for times in all_users.map(user, range(users)) for first in times)


def memory(root: int) -> str:
    """MB of the server, and of all that it started."""
    children = processes.tree(root) - {root}
    rest = sum(map(processes.resident, children))
    return f"server {processes.resident(root) / 1e6:.0f} MB, its {len(children)} children {rest / 1e6:.0f} MB"


def cpu_seconds(root: int) -> float:
    """That a process and its descendants have used."""
    total = 0.0
    for pid in processes.tree(root):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo-moe", help="embedded: the store is empty")
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--users", type=int, default=4, help="who ask again and again")
    parser.add_argument("--tokens", type=int, default=30)
    parser.add_argument("--idle", type=float, default=10.0, help="seconds")
    arguments = parser.parse_args()
    print(heading(), flush=True)
    with tempfile.TemporaryDirectory(prefix="moellama-serve-") as name:
        folder = Path(name)
        for start in ("cold", "warm"):
            listening, first, again = first_answer(folder, arguments.model)
            print(
                f"{start} start: listens after {listening:.2f} s, first text after {first:.2f} s, then {again * 1e3:.0f} ms",
                flush=True,
            )
        with server(folder, arguments.model) as side:
            assert side.pid is not None
            print(f"no model loaded: {memory(side.pid)}", flush=True)
            asking.chat(side, PROMPT, {"num_predict": 5})
            print(f"idle with a model: {memory(side.pid)}", flush=True)
            for users in (1, arguments.users):
                times = first_texts(side, users, arguments.tokens)
                middle = statistics.median(times)
                print(f"{users} users: first text after {middle:.0f} ms, at the most {times[-1]:.0f} ms", flush=True)
            seconds, tokens = streams(side, arguments.streams, arguments.tokens)
            print(f"{arguments.streams} streams: {tokens} tokens in {seconds:.2f} s; {memory(side.pid)}", flush=True)
            before = cpu_seconds(side.pid)
            time.sleep(arguments.idle)
            print(f"CPU in {arguments.idle:g} idle s: {cpu_seconds(side.pid) - before:.2f} s")


if __name__ == "__main__":
    main()
