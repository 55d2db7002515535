"""Renders Jinja chat templates in a few child processes, each with a budget of time and memory."""

from __future__ import annotations

import asyncio
import contextlib
import math
import struct
import sys
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from ollama_compat.errors import InternalError
from ollama_compat.template.errors import TemplateError

__all__ = ["JinjaRenderer", "TemplateError"]

MAX_SOURCE = 256 << 10  # bytes of a template
MAX_REQUEST = 32 << 20  # bytes of a conversation
_MAX_REPLY = 64 << 20
_PATIENCE = 0.05  # seconds to wait for a busy child: most prompts take one of 0.001, and a new child takes 0.2
_START_SECONDS = 60.0  # until a child has imported what it needs, on a machine that is busy otherwise
_MAX_OVERRUNS = 256  # templates remembered for having been stopped
_PACKAGES = Path(__file__).parents[2]  # where `-m` finds this package, installed or not
_LENGTH = struct.Struct("<I")


class _ChildEnded(Exception):
    """The child ended instead of answering."""


class JinjaRenderer:
    """`render` may be called concurrently. The first call starts a child, more are started when all of them stay busy.

    A child that takes longer than `deadline` seconds over one prompt is killed; `memory` is the address space, in bytes,
    that it may take beyond what it has when it starts. One slow template keeps one child busy and no more: from its
    second time on, a template that had to be stopped waits for itself.
    """

    def __init__(self, *, deadline: float = 1.0, memory: int = 512 << 20, children: int = 4) -> None:
        self._deadline = deadline
        self._memory = memory
        self._free = asyncio.Semaphore(children)
        self._idle: list[_Child] = []
        self._busy = 0  # children that are in use
        self._handed = 0  # children that are on the way to who waited for them
        self._starting = False
        self._waiting: deque[asyncio.Future[_Child | None]] = deque()  # for a child, or for leave to start one
        self._overran: dict[int, asyncio.Lock] = {}  # by the template's hash

    async def render(
        self,
        source: str,
        *,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        enable_thinking: bool = True,
        bos_token: str = "",
        eos_token: str = "",
        strip_bos: bool = False,
        strip_eos: bool = False,
        extra: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt for Ollama `messages`, adapted to the template `source` as llama-server does it.

        A last message of the assistant is continued by the answer when a generation prompt is asked for. `strip_bos` and
        `strip_eos` cut the token's text from that end of the prompt, for a tokenizer that adds the token itself. `extra`
        are more variables (`reasoning_effort`). TemplateError for everything that goes wrong with the template.
        """
        request = {
            "source": source,
            "messages": messages,
            "tools": tools or [],
            "add_generation_prompt": add_generation_prompt,
            "bos_token": bos_token,
            "eos_token": eos_token,
            "strip_bos": strip_bos,
            "strip_eos": strip_eos,
            "variables": {"enable_thinking": enable_thinking} | dict(extra or {}),
        }
        return await self._ask(source, _checked(source, request))

    async def close(self) -> None:
        """Ends the idle children. A renderer may be used again afterwards."""
        idle, self._idle = self._idle, []
        await asyncio.gather(*(child.stop() for child in idle))

    async def _ask(self, source: str, body: bytes) -> str:
        if (lock := self._overran.get(hash(source))) is not None:
            async with lock:
                return await self._ask_child(source, body)
        return await self._ask_child(source, body)

    async def _ask_child(self, source: str, body: bytes) -> str:
        async with self._free, self._child() as child:
            try:
                reply = await asyncio.wait_for(child.ask(body), self._deadline)
            except TimeoutError:
                self._remember(source)
                raise TemplateError(f"chat template: stopped after {self._deadline:g} s") from None
            except _ChildEnded:
                raise TemplateError("chat template: used too much memory or processor time") from None
        if "error" in reply:
            raise TemplateError(reply["error"])
        text: str = reply["text"]
        return text

    @contextlib.asynccontextmanager
    async def _child(self) -> AsyncIterator[_Child]:
        """A child for one prompt: an idle one, if there is one or will be in a moment."""
        child = self._idle.pop() if self._idle else await self._wait()
        self._busy += 1
        try:
            if child is not None and not child.alive:
                await child.stop()
                child = None
            child = child or await self._start()
            yield child
        finally:
            self._busy -= 1
            await self._release(child)

    async def _wait(self) -> _Child | None:
        """A child that others release. None: one should be started, as there is none or those there are stay busy."""
        waiter: asyncio.Future[_Child | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            while not waiter.done() and (self._busy or self._starting or self._handed):
                await asyncio.wait([waiter], timeout=_PATIENCE)
                if not self._starting:
                    break
        except asyncio.CancelledError:
            if waiter.done():
                self._handed -= 1
                await self._release(waiter.result())
            raise
        finally:
            with contextlib.suppress(ValueError):
                self._waiting.remove(waiter)
        if not waiter.done():
            return None
        self._handed -= 1
        return waiter.result()

    async def _start(self) -> _Child:
        self._starting = True
        try:
            return await _Child.start(self._memory, self._deadline)
        finally:
            self._starting = False

    async def _release(self, child: _Child | None) -> None:
        """To whoever has waited longest, if it is ready for the next request; of idle ones two are kept."""
        ready = child if child is not None and child.ready else None
        if self._waiting:
            self._handed += 1
            self._waiting.popleft().set_result(ready)
        elif ready is not None and len(self._idle) < 2:
            self._idle.append(ready)
        else:
            ready = None
        if child is not None and ready is None:
            await child.stop()

    def _remember(self, source: str) -> None:
        if len(self._overran) >= _MAX_OVERRUNS:
            self._overran.pop(next(iter(self._overran)))
        self._overran.setdefault(hash(source), asyncio.Lock())


class _Child:
    """One `render_child` process. It answers one request at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._requests = process.stdin
        self._replies = process.stdout
        self.ready = False  # between requests, and fit for the next one

    @classmethod
    async def start(cls, memory: int, deadline: float) -> _Child:
        arguments = ("-m", "ollama_compat.template.render_child", str(memory), str(math.ceil(deadline)))
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=_PACKAGES
        )
        child = cls(process)
        try:
            await asyncio.wait_for(child._read(), _START_SECONDS)
        except (TimeoutError, _ChildEnded):
            await child.stop()
            raise InternalError("the process that renders chat templates did not start") from None
        except asyncio.CancelledError:
            await child.stop()
            raise
        child.ready = True
        return child

    @property
    def alive(self) -> bool:
        """Whether it can be asked; one that somebody else killed cannot."""
        return self._process.returncode is None and not self._replies.at_eof()

    async def ask(self, body: bytes) -> dict[str, Any]:
        """The reply to the request `body`; _ChildEnded when there will be none."""
        self.ready = False
        try:
            self._requests.write(_LENGTH.pack(len(body)) + body)
            await self._requests.drain()
        except (BrokenPipeError, ConnectionResetError):
            raise _ChildEnded from None
        reply = await self._read()
        self.ready = not reply.get("spent", False)
        return reply

    async def stop(self) -> None:
        """Ends the process, whatever it is doing."""
        self._requests.close()
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def _read(self) -> dict[str, Any]:
        try:
            (length,) = _LENGTH.unpack(await self._replies.readexactly(_LENGTH.size))
            if length > _MAX_REPLY:
                raise _ChildEnded
            reply: dict[str, Any] = orjson.loads(await self._replies.readexactly(length))
        except (asyncio.IncompleteReadError, orjson.JSONDecodeError):
            raise _ChildEnded from None
        return reply


def _checked(source: str, request: dict[str, Any]) -> bytes:
    """The request as JSON; TemplateError when it is larger than a request may be."""
    if len(source.encode("utf-8", "replace")) > MAX_SOURCE:
        raise TemplateError(f"chat template: longer than {MAX_SOURCE} bytes")
    try:
        body = orjson.dumps(request)
    except orjson.JSONEncodeError as error:
        raise TemplateError(f"chat template: {error}") from error
    if len(body) > MAX_REQUEST:
        raise TemplateError(f"chat template: the conversation is longer than {MAX_REQUEST} bytes")
    return body
