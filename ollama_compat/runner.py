"""A runner process seen from the server: spawned, spoken to in frames, killed for certain."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import runtime
from ollama_compat import pulse
from ollama_compat.errors import ApiError, BadRequest, InternalError, RunnerDied
from ollama_compat.failures import Unsupported, embed_failure, failure
from ollama_compat.pulse import Pulse
from runtime import frames
from runtime.frames import Cut, Done, Failed, Generate, GivenBack, Grown, Load, Loaded, LoadProgress, Reply, Token

_LOG = logging.getLogger(__name__)

COMMAND = (sys.executable, "-m", "runtime.worker")
_ROOT = Path(runtime.__file__).resolve().parent.parent  # where `-m` finds our packages, whatever the server's directory
_CLOSE_SECONDS = 5.0  # what a runner is given to end by itself
_PING = frames.GetStats(0)  # no request has this number: its answer only shows that the runner lives
_STDERR_LINE = 1 << 16
_EMBED_INPUTS = 1024  # in one frame; their vectors have to fit one too

Progress = Callable[[LoadProgress], None]


class Runner:
    """One runner process with its model. Every method raises an ApiError when the runner fails or dies."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self._stdin = process.stdin
        self._stdout = process.stdout
        self._ids = itertools.count(1)
        self._waiting: dict[int | None, asyncio.Queue[Reply | ApiError]] = {}  # by request; None: the load
        self._closing = False
        self._heard = False  # whether a frame came in this beat
        self._asked = asyncio.Event()  # somebody waits, and not for the load
        self._tasks = (asyncio.create_task(self._read()), asyncio.create_task(self._log(process.stderr)))
        self._watcher = asyncio.create_task(self._watch())
        self.dead = asyncio.Event()

    @classmethod
    async def spawn(cls, command: Sequence[str] = COMMAND) -> Runner:
        """Starts the process, in a session of its own so that a terminal's Ctrl+C reaches only the server."""
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=pipe, stdout=pipe, stderr=pipe, cwd=_ROOT, start_new_session=True, limit=_STDERR_LINE
            )
        except OSError as error:
            raise InternalError(f"error starting model runner: {error.strerror}") from error
        return cls(process)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    async def load(self, request: Load, *, stall_timeout: float = math.inf, progress: Progress | None = None) -> Loaded:
        """Loads the model. `stall_timeout`: seconds without progress after which the load has failed."""
        async with self._answers(None) as answers:
            self._send(request)
            while True:
                try:
                    async with asyncio.timeout(None if math.isinf(stall_timeout) else stall_timeout):
                        reply = await self._next(answers)
                except TimeoutError:
                    raise InternalError("timed out waiting for the model runner to start - no progress was made") from None
                except RunnerDied:
                    raise InternalError(f"model runner process has terminated: {self._end()}") from None
                if isinstance(reply, Loaded):
                    return reply
                if progress is not None and isinstance(reply, LoadProgress):
                    progress(reply)

    async def generate(self, make: Callable[[int], Generate]) -> AsyncIterator[Cut | Token | Done]:
        """Runs the request that `make` builds for a fresh id: Cut if the prompt was too long, tokens as they come, then one Done.

        Leaving the iteration early, by cancellation too, cancels the request in the runner.
        """
        request = make(next(self._ids))
        async with self._answers(request.id) as answers:
            finished = False
            try:
                self._send(request)
                while not finished:
                    reply = await self._next(answers)
                    assert isinstance(reply, (Cut, Token, Done))
                    finished = isinstance(reply, Done)
                    yield reply
            except ApiError:
                finished = True
                raise
            finally:
                if not finished:
                    self._send(frames.Cancel(request.id))

    async def tokenize(self, text: str, *, parse_special: bool = True, add_special: bool = False) -> list[int]:
        """Token ids of a text."""
        reply = await self._ask(lambda i: frames.Tokenize(i, text, parse_special, add_special))
        assert isinstance(reply, frames.Tokens)
        return reply.tokens

    async def detokenize(self, tokens: list[int]) -> str:
        """The text of token ids."""
        reply = await self._ask(lambda i: frames.Detokenize(i, tokens))
        assert isinstance(reply, frames.Text)
        return reply.text

    async def embed(
        self,
        inputs: list[str],
        *,
        truncate: bool,
        normalize: bool = True,
        num_ctx: int = 0,
        dimensions: int = 0,
        query: str | None = None,
    ) -> frames.Embeddings:
        """A vector for each input. The fields of frames.Embed; inputs without number go in several frames."""
        vectors: list[list[float]] = []
        tokens = 0
        for first in range(0, len(inputs), _EMBED_INPUTS):
            request = frames.Embed(
                next(self._ids), inputs[first : first + _EMBED_INPUTS], truncate, normalize, num_ctx, query, dimensions
            )
            part = await self._embed(request)
            vectors += part.embeddings
            tokens += part.prompt_tokens
        return frames.Embeddings(0, vectors, tokens)

    async def _embed(self, request: frames.Embed) -> frames.Embeddings:
        """One frame of it. Whoever is cancelled cancels the request in the runner."""
        async with self._answers(request.id) as answers:
            try:
                self._send(request)
                reply = await self._next(answers, embed_failure)
            except asyncio.CancelledError:
                self._send(frames.Cancel(request.id))
                raise
        assert isinstance(reply, frames.Embeddings)
        return reply

    async def stats(self) -> frames.Stats:
        """Counters of the engine."""
        reply = await self._ask(frames.GetStats)
        assert isinstance(reply, frames.Stats)
        return reply

    async def grow(self, num_ctx: int, memory: int) -> Grown | None:
        """Has the runner hold longer contexts, within `memory` free bytes (0: unknown); None when it cannot."""
        try:
            reply = await self._ask(lambda i: frames.Grow(i, num_ctx, memory))
        except Unsupported:
            return None
        assert isinstance(reply, Grown)
        return reply

    async def give_back(self, nbytes: int, models: int, main_gpu: int | None) -> GivenBack:
        """Has the runner leave so many bytes of the card to another one of `models` models, if that, which is to be loaded for
        `main_gpu`, will come there."""
        reply = await self._ask(lambda i: frames.GiveBack(i, nbytes, models, main_gpu))
        assert isinstance(reply, GivenBack)
        return reply

    def memory(self) -> int:
        """Bytes that the process has in memory; 0 where the system does not say."""
        try:
            lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        except OSError:
            return 0
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")), 0)

    async def alive(self) -> bool:
        """Whether the process answers. One that hangs is killed meanwhile, see `_watch`."""
        try:
            await self.stats()
        except RunnerDied:
            return False
        return True

    async def close(self) -> None:
        """Ends the process: by closing its pipe, else by SIGKILL. Whoever still waits gets RunnerDied."""
        self._closing = True
        self._stdin.close()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._process.wait()
        except TimeoutError:
            _LOG.warning("model runner %d does not end, killing it", self.pid)
        finally:
            self.kill()
            await asyncio.gather(*self._tasks)
            await asyncio.gather(self._watcher, return_exceptions=True)
            await self._process.wait()

    def kill(self) -> None:
        """Ends the process, and whatever it started, at once."""
        with contextlib.suppress(ProcessLookupError):
            if os.name == "posix":
                os.killpg(self.pid, signal.SIGKILL)
            else:
                self._process.kill()

    def _end(self) -> str:
        """How the process ended."""
        status = self._process.returncode
        if status is None or status >= 0:
            return f"exit status {status}"
        name = signal.strsignal(-status) or str(-status)
        return f"signal: {name.lower()}" + (" (most likely memory ran out)" if status == -signal.SIGKILL else "")

    # ------------------------------------------------------------ frames

    @contextlib.asynccontextmanager
    async def _answers(self, request: int | None) -> AsyncIterator[asyncio.Queue[Reply | ApiError]]:
        """The queue of a request's answers, for as long as somebody listens."""
        if self.dead.is_set() or self._closing:
            raise RunnerDied
        queue: asyncio.Queue[Reply | ApiError] = asyncio.Queue()
        self._waiting[request] = queue
        if request is not None:
            self._asked.set()
        try:
            yield queue
        finally:
            del self._waiting[request]

    @staticmethod
    async def _next(answers: asyncio.Queue[Reply | ApiError], error: Callable[[Failed], ApiError] | None = None) -> Reply:
        reply = await answers.get()
        if isinstance(reply, ApiError):
            raise reply
        if isinstance(reply, Failed):
            raise (error or failure)(reply)
        return reply

    async def _ask(self, make: Callable[[int], frames.Request]) -> Reply:
        """One frame out, one back."""
        number = next(self._ids)
        async with self._answers(number) as answers:
            self._send(make(number))
            return await self._next(answers)

    def _send(self, frame: frames.Request) -> None:
        """Puts the frame into the pipe's buffer. A dead runner is noticed by the reader, not here."""
        try:
            data = frames.encode(frame)
        except (frames.FrameError, TypeError) as error:
            raise BadRequest("the request is too large") from error
        if not self.dead.is_set() and not self._stdin.is_closing():
            self._stdin.write(data)

    async def _read(self) -> None:
        """Hands every frame to whoever asked for it, until the runner ends."""
        try:
            while True:
                prefix = await self._stdout.readexactly(frames.PREFIX_BYTES)
                body = await self._stdout.readexactly(frames.body_length(prefix))
                self._heard = True
                self._dispatch(frames.decode(body))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except frames.FrameError:
            _LOG.exception("model runner %d broke the protocol, killing it", self.pid)
            self.kill()
        await self._died()

    def _dispatch(self, frame: frames.Frame) -> None:
        assert not isinstance(frame, frames.Request)
        queue = self._waiting.get(getattr(frame, "id", None))
        if queue is not None:  # else whoever asked is gone
            queue.put_nowait(frame)

    async def _watch(self) -> None:
        """While a request waits: kill a runner that hangs, so that its requests end and the next ones get another."""
        while True:
            await self._asked.wait()
            heart = Pulse(self.pid)
            while self._waiting:
                self._heard = False
                self._send(_PING)
                await asyncio.sleep(pulse.BEAT)
                if self._waiting and heart.beat(self._heard):
                    _LOG.error("model runner %d does not answer, killing it", self.pid)
                    self.kill()
                    return
            self._asked.clear()

    async def _died(self) -> None:
        self.dead.set()
        self._watcher.cancel()
        status = await self._process.wait()
        if not self._closing:
            _LOG.error("model runner %d ended unexpectedly, status %d", self.pid, status)
        for queue in self._waiting.values():
            queue.put_nowait(RunnerDied())

    async def _log(self, stderr: asyncio.StreamReader) -> None:
        """Passes the runner's log on."""
        while True:
            try:
                line = await stderr.readline()
            except ValueError:  # longer than the buffer: what was read of it is gone
                continue
            if not line:
                return
            _LOG.info("runner %d: %s", self.pid, line.decode("utf-8", "replace").rstrip())
