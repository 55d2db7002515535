"""What users do to a server that runs for long: a killed runner under 100 streams, clients that leave, memory over 1,000
requests, idle connections, a full disk. Starts a server of its own on a free port and prints one line a trial.

    python benchmarks/soak.py [--small-disk DIR]

DIR: an empty folder on a file system of 128 MB or less, for the trial of the full disk (`mount -t tmpfs -o size=64m tmpfs DIR`).
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import hashlib
import json
import os
import platform
import random
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from serving import Server  # noqa: E402

MODEL = "demo-moe"
DEFAULT = ["killed_runner", "stopped_runner", "storm", "isolation", "streams", "growth", "idle"]
GREEDY = {"temperature": 0, "seed": 1}


class Trials:
    """A running server, and what is done to it."""

    def __init__(self, server: Server, session: aiohttp.ClientSession) -> None:
        self.server, self.session = server, session

    async def ask(self, prompt: str = "Hello", tokens: int = 16) -> tuple[int, str]:
        """Status, and the answer or the error."""
        async with self.session.post("/api/generate", json=body(prompt, tokens, stream=False)) as response:
            answer = await response.json()
            return response.status, answer.get("response", "") or answer.get("error", "")

    async def stream(self, prompt: str, tokens: int) -> str:
        """How a stream ended: `done`, the text of its error line, or `cut`."""
        last: dict[str, object] = {}
        try:
            async with self.session.post("/api/generate", json=body(prompt, tokens)) as response:
                async for line in response.content:
                    last = json.loads(line)
        except aiohttp.ClientError:
            return "cut"
        return "done" if last.get("done") else str(last.get("error", "cut"))

    async def metric(self, name: str) -> float:
        """The sum of a metric's samples."""
        async with self.session.get("/metrics") as response:
            lines = (await response.text()).splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

    def runners(self) -> list[int]:
        """Process ids of the server's runners."""
        children = Path(f"/proc/{self.server.process.pid}/task/{self.server.process.pid}/children").read_text().split()
        return [int(pid) for pid in children if b"runtime.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def memory(self) -> tuple[float, float]:
        """Resident MB of the server and of its runners."""
        return rss(self.server.process.pid), sum(map(rss, self.runners()))

    async def killed_runner(self, streams: int = 100, rounds: int = 3) -> str:
        ends: collections.Counter[str] = collections.Counter()
        again: list[float] = []
        for number in range(rounds):
            await self.ask()
            tasks = [asyncio.create_task(self.stream(f"Story {number} {n}", 400)) for n in range(streams)]
            await asyncio.sleep(0.4)
            os.kill(self.runners()[0], signal.SIGKILL)
            ends.update(await asyncio.gather(*tasks))
            began = time.perf_counter()
            status, text = await self.ask()
            assert status == 200, text
            again.append(time.perf_counter() - began)
        told = "; ".join(f"{count} x {end[:90]}" for end, count in ends.most_common())
        return f"{rounds} x SIGKILL under {streams} streams: {told}; next answer after {max(again):.1f} s at most"

    async def stopped_runner(self, rounds: int = 3) -> str:
        """A runner that is there and does nothing any more, in the middle of an answer."""
        ends: collections.Counter[str] = collections.Counter()
        told, again = [], []
        for _ in range(rounds):
            await self.ask()
            tasks = [asyncio.create_task(self.stream(f"Story {n}", 2000)) for n in range(8)]
            await asyncio.sleep(0.4)
            began = time.perf_counter()
            os.kill(self.runners()[0], signal.SIGSTOP)
            ends.update(await asyncio.gather(*tasks))
            told.append(time.perf_counter() - began)
            status, text = await self.ask()
            assert status == 200, text
            again.append(time.perf_counter() - began - told[-1])
        ended = "; ".join(f"{count} x {end[:90]}" for end, count in ends.most_common())
        times = f"after {max(told):.1f} s at most, next answer {max(again):.1f} s later"
        return f"{rounds} x SIGSTOP under 8 streams: {ended}; {times}"

    async def storm(self, clients: int = 300) -> str:
        await self.ask()
        before = self.memory()

        async def leave(number: int) -> None:
            with contextlib.suppress(asyncio.TimeoutError, aiohttp.ClientError):
                async with asyncio.timeout(random.uniform(0.01, 0.6)):
                    await self.stream(f"Tell me about {number}", 500)

        for _ in range(3):
            await asyncio.gather(*(leave(number) for number in range(clients)))
        began = time.perf_counter()
        while await self.metric("moellama_sequences"):  # noqa: ASYNC110  (another process tells it)
            await asyncio.sleep(0.05)
        quiet = time.perf_counter() - began
        status, _ = await self.ask()
        held = await self.metric('moellama_cache_blocks{model="demo-moe:latest",state="held"}')
        after = self.memory()
        return (
            f"{3 * clients} clients that leave within 0.6 s: all sequences gone {quiet:.2f} s later, {held:.0f} blocks held, "
            f"next answer {status}; server {before[0]:.0f} -> {after[0]:.0f} MB, runner {before[1]:.0f} -> {after[1]:.0f} MB"
        )

    async def growth(self, requests: int = 1000, at_once: int = 8) -> str:
        numbers = iter(range(requests))
        sizes = {}

        async def work() -> None:
            for number in numbers:
                if number in (requests // 10, requests // 2):
                    sizes[number] = self.memory()
                words = " ".join(random.choices(("fox", "owl", "tree", "river", "stone"), k=random.randint(1, 120)))
                status, text = await self.ask(f"{number} {words}", 8)
                assert status == 200, text

        await asyncio.gather(*(work() for _ in range(at_once)))
        sizes[requests] = self.memory()
        told = ", ".join(f"{server:.0f} + {runner:.0f} MB after {number}" for number, (server, runner) in sorted(sizes.items()))
        return f"{requests} requests, {at_once} at a time: server + runner {told}"

    async def streams(self, count: int = 500) -> str:
        """Many streams at once, each to its end."""
        await self.ask()
        began = time.perf_counter()
        lag = asyncio.create_task(self._longest_silence())
        running = (self.stream(f"Story {n}", random.randint(1, 40)) for n in range(count))
        ends = collections.Counter(await asyncio.gather(*running))
        lag.cancel()
        seconds = time.perf_counter() - began
        answers = f"/api/version meanwhile within {self._silence * 1000:.0f} ms"
        return f"{count} streams at once: {dict(ends)} in {seconds:.1f} s; {answers}"

    async def _longest_silence(self) -> None:
        self._silence = 0.0
        while True:
            began = time.perf_counter()
            async with self.session.get("/api/version") as response:
                await response.read()
            self._silence = max(self._silence, time.perf_counter() - began)
            await asyncio.sleep(0.05)

    async def idle(self, connections: int = 100) -> str:
        port = self.server.port
        opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(connections)]
        for reader, writer in opened:
            writer.write(b"GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await reader.readuntil(b"}")
        began = time.perf_counter()
        for _ in range(20):
            await self.ask(tokens=1)
        busy = (time.perf_counter() - began) / 20
        before = cpu_seconds(self.server.process.pid)
        await asyncio.sleep(5)
        used = cpu_seconds(self.server.process.pid) - before
        alive = 0
        for reader, writer in opened:
            writer.write(b"GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n")
            alive += b"version" in await reader.readuntil(b"}")
            writer.close()
        return (
            f"{connections} idle keep-alive connections: {alive} answer again; a request beside them {busy * 1000:.0f} ms; "
            f"{used:.2f} s of CPU in 5 s"
        )

    async def isolation(self, rounds: int = 12, prompts: int = 60) -> str:
        """Every prompt has a name of its own; what others say must neither show up in an answer nor change it."""
        names = [f"Zq{chr(97 + n % 26)}{chr(97 + n // 26)}x" for n in range(prompts)]
        alone = {name: (await self.ask(f"{name} and the fox. Tell me about {name}.", 24))[1] for name in names}
        leaks = same = asked = left = 0

        async def one(name: str) -> None:
            nonlocal leaks, same, asked, left
            try:
                async with asyncio.timeout(random.choice((0.2, 60, 60))):
                    _, text = await self.ask(f"{name} and the fox. Tell me about {name}.", 24)
            except TimeoutError:
                left += 1
                return
            asked += 1
            same += text == alone[name]
            leaks += any(other in text for other in names if other != name and other not in alone[name])

        for _ in range(rounds):
            await asyncio.gather(*(one(name) for name in names))
        return (
            f"{rounds} x {prompts} prompts at a time, a third of the clients impatient: {asked} answers, {left} left; "
            f"{leaks} with words of another, {same} the same as alone"
        )

    async def thrash(self, requests: int = 150) -> str:
        """Two models where there is room for one, each request with another keep_alive."""
        gguf = (ROOT / "tests/fixtures/stories260Ktok512.gguf").read_bytes()
        digest = f"sha256:{hashlib.sha256(gguf).hexdigest()}"
        async with self.session.post(f"/api/blobs/{digest}", data=gguf) as response:
            assert response.status == 201
        create = {"model": "small", "files": {"small.gguf": digest}, "stream": False}
        async with self.session.post("/api/create", json=create) as response:
            assert response.status == 200, await response.text()
        statuses: collections.Counter[int] = collections.Counter()
        waits: list[float] = []

        async def one() -> None:
            request = body("A fox", 8, stream=False, keep_alive=random.choice((0, -1, "1s", "5m")))
            request["model"] = random.choice((MODEL, "small"))
            del request["think"]
            began = time.perf_counter()
            async with self.session.post("/api/generate", json=request) as response:
                statuses[response.status] += 1
                await response.read()
            waits.append(time.perf_counter() - began)

        for _ in range(requests // 10):
            await asyncio.gather(*(one() for _ in range(10)))
        return (
            f"{requests} requests to two models where one has room, 10 at a time: {dict(statuses)}; the longest took "
            f"{max(waits):.1f} s, the median {sorted(waits)[len(waits) // 2]:.1f} s; {len(self.runners())} runner at the end"
        )

    async def full_disk(self) -> str:
        """Uploads until the disk is full, then a create and a copy; afterwards what was there still works."""
        await self.ask()  # puts the model there
        statuses: collections.Counter[int] = collections.Counter()
        errors: set[str] = set()
        for number in range(40):
            data = number.to_bytes(4) * (1 << 20)
            digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
            async with self.session.post(f"/api/blobs/{digest}", data=data) as response:
                statuses[response.status] += 1
                if response.status >= 400:
                    errors.add((await response.json())["error"])
        models = Path(self.server.environ["OLLAMA_MODELS"])
        fill(models)
        async with self.session.post("/api/create", json={"model": "m", "from": MODEL, "system": "x" * 100_000}) as response:
            created = (await response.text()).strip().splitlines()[-1]
        async with self.session.post("/api/copy", json={"source": MODEL, "destination": "copy"}) as response:
            copied = f"{response.status} {(await response.text()).strip()}"
        wrong = broken_blobs(models)
        status, _ = await self.ask()
        return (
            f"a disk that fills: uploads {dict(statuses)} {errors}; create: {created[:120]}; "
            f"copy: {copied[:120]}; broken or unfinished files left: {len(wrong)}; next answer {status}"
        )


def body(prompt: str, tokens: int, **more: object) -> dict[str, object]:
    return {"model": MODEL, "prompt": prompt, "think": False, "options": {"num_predict": tokens, **GREEDY}, **more}


def fill(folder: Path) -> None:
    """Takes the last bytes of the disk."""
    with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def broken_blobs(models: Path) -> list[Path]:
    """Files among the blobs that have not the content that their name says."""
    blobs = [path for path in (models / "blobs").rglob("*") if path.is_file()]
    return [path for path in blobs if path.name != f"sha256-{hashlib.sha256(path.read_bytes()).hexdigest()}"]


def rss(pid: int) -> float:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    return 0.0


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.asynccontextmanager
async def trials(folder: Path, **environ: str) -> AsyncIterator[Trials]:
    server = Server(folder, MOELLAMA_REPEAT_LIMIT="0", **environ)  # a stream without a last line is a fault here
    connector = aiohttp.TCPConnector(limit=0)
    try:
        async with aiohttp.ClientSession(server.host, connector=connector) as session:
            yield Trials(server, session)
    finally:
        print(f"  (server ended with status {server.stop()})")


async def main(names: list[str], small_disk: Path | None) -> None:
    print(f"{platform.node()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as folder:
        async with trials(Path(folder)) as running:
            for name in names:
                print(f"- {await getattr(running, name)()}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        async with trials(Path(folder), OLLAMA_MAX_LOADED_MODELS="1") as running:
            print(f"- {await running.thrash()}", flush=True)
    if small_disk is not None:
        with tempfile.TemporaryDirectory() as folder:
            async with trials(Path(folder), OLLAMA_MODELS=str(small_disk)) as running:
                print(f"- {await running.full_disk()}", flush=True)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("trials", nargs="*", default=DEFAULT)
    arguments.add_argument("--small-disk", type=Path)
    given = arguments.parse_args()
    asyncio.run(main(given.trials, given.small_disk))
