"""One request for parts of a blob that follow each other: from the connection into the unfinished file. Runs in a thread."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Sequence

from ollama_compat.registry.errors import RegistryError, words
from ollama_compat.registry.partial import Part, Partial
from ollama_compat.registry.pipe import Pipe
from ollama_compat.registry.source import RANGE, Target

_SMALLEST, _LARGEST = 64 << 10, 512 << 10  # bytes that are read before they are written
_TELL = 8 << 20  # bytes after which the hash is told that it may go on
_SOON, _LATE = 0.02, 0.2  # seconds: what comes sooner is read in larger blocks, what comes later in smaller ones
_STALE = (301, 302, 303, 307, 308, 401, 403, 404, 410)  # what storage says to an address whose time is over


class Broken(RegistryError):
    """A part came to a bad end and can be tried again."""


class Stale(Broken):
    """The address gives no more bytes; another one has to be asked for."""


class NoRanges(RegistryError):
    """The server sends the whole blob, whatever it was asked for."""


def carry(pipe: Pipe, target: Target, partial: Partial, parts: Sequence[Part], moved: Callable[[], object]) -> None:
    """The rest of the parts, each of which begins where the one before it ends; `moved` is called now and then.

    Raises Broken and NoRanges, and OSError from the disk.
    """
    try:
        response = pipe.get(target.url, {**target.headers, "Range": f"bytes={parts[0].start}-{parts[-1].stop - 1}"})
    except (OSError, http.client.HTTPException) as error:
        pipe.close()
        raise Broken(_words(error)) from error
    try:
        _check(response, parts, partial)
        for part in parts:
            _pour(response, partial, part, moved)
    except BaseException:  # whatever it is: the rest of the answer would come first where the next one is read
        pipe.close()
        raise
    if response.isclosed():
        return
    pipe.close()  # more came than was asked for


def _pour(response: http.client.HTTPResponse, partial: Partial, part: Part, moved: Callable[[], object]) -> None:
    block, size, told = bytearray(_LARGEST), _SMALLEST, part.completed
    with memoryview(block) as view:
        while missing := part.size - part.completed:
            started = time.monotonic()
            count = _read(response, view[: min(size, missing)])
            if not count:
                raise Broken("unexpected EOF")
            size = _next_size(size, time.monotonic() - started)
            partial.write(part, view[:count])
            if part.completed == part.size or part.completed - told >= _TELL:
                told = part.completed
                moved()


def _read(response: http.client.HTTPResponse, view: memoryview) -> int:
    try:
        return response.readinto(view)
    except (OSError, http.client.HTTPException) as error:
        raise Broken(_words(error)) from error


def _next_size(size: int, seconds: float) -> int:
    """Large blocks cost less; small ones show progress where the bytes come slowly."""
    if seconds < _SOON:
        return min(2 * size, _LARGEST)
    return max(size // 2, _SMALLEST) if seconds > _LATE else size


def _check(response: http.client.HTTPResponse, parts: Sequence[Part], partial: Partial) -> None:
    """Whether the answer begins where the parts go on."""
    start, last = parts[0].start, parts[-1].stop - 1
    if response.status == 200:
        if start == 0 and last + 1 == partial.total:
            return
        raise NoRanges("the server sends no ranges")
    told = RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if response.status in _STALE:
        raise Stale(f"{response.status}: {response.reason}")
    if response.status != 206:
        raise Broken(f"{response.status}: {response.reason}")
    if told is None or int(told[1]) != start or told[3] not in ("*", str(partial.total)):
        got = response.headers.get("Content-Range", "none")
        raise Broken(f"asked for bytes {start}-{last} and got the range {got}")


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "part stalled"
    if isinstance(error, http.client.RemoteDisconnected | http.client.IncompleteRead):
        return "unexpected EOF"
    return words(error)
