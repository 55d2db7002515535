"""Several answers to one request, side by side."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence

from ollama_compat.stream import READY, Part, Parts

Numbered = tuple[int, Part]


async def merged(answers: Sequence[Part | Parts]) -> AsyncIterator[Numbered]:
    """The parts of all answers as they come, each with the number of its answer; an answer may be its only part.

    The others begin when the first one has said something: by then the prompt is in the cache that they share. An error of
    one ends them all.
    """
    queue: asyncio.Queue[tuple[int, Part | None]] = asyncio.Queue()
    tasks = [asyncio.create_task(_pump(0, answers[0], queue))]
    running = len(answers)
    try:
        while running:
            number, part = await queue.get()
            if part is not None:
                yield number, part
            else:
                await tasks[number]  # raises what has ended it
                running -= 1
            if part is not READY and len(tasks) < len(answers):
                tasks += [asyncio.create_task(_pump(at, answers[at], queue)) for at in range(1, len(answers))]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(number: int, parts: Part | Parts, queue: asyncio.Queue[tuple[int, Part | None]]) -> None:
    try:
        if isinstance(parts, dict):
            queue.put_nowait((number, parts))
            return
        async with contextlib.aclosing(parts):  # type: ignore[type-var]
            async for part in parts:
                queue.put_nowait((number, part))
    finally:
        queue.put_nowait((number, None))


async def _numbered(answers: Sequence[Part | Parts]) -> AsyncIterator[Numbered]:
    """The same without a task for what is only one."""
    if len(answers) > 1:
        async with contextlib.aclosing(merged(answers)) as all_parts:  # type: ignore[type-var]
            async for numbered in all_parts:
                yield numbered
    elif isinstance(answers[0], dict):
        yield 0, answers[0]
    else:
        async with contextlib.aclosing(answers[0]) as parts:  # type: ignore[type-var]
            async for part in parts:
                yield 0, part


async def wholes(answers: Sequence[Part | Parts], join: Callable[[list[Part]], Part]) -> list[Part]:
    """Each answer put together by `join`."""
    collected: list[list[Part]] = [[] for _ in answers]
    async with contextlib.aclosing(_numbered(answers)) as parts:  # type: ignore[type-var]
        async for number, part in parts:
            if part is not READY:
                collected[number].append(part)
    return [parts[0] if isinstance(answer, dict) else join(parts) for answer, parts in zip(answers, collected, strict=True)]


async def convert(answers: Sequence[Part | Parts], feed: Callable[[Part, int], list[Part]]) -> Parts:
    """Parts of another dialect: what `feed` makes of each part, given the number of its answer."""
    async with contextlib.aclosing(_numbered(answers)) as parts:  # type: ignore[type-var]
        async for number, native in parts:
            for part in feed(native, number) if native is not READY else ():
                yield part
