"""Transfers that several callers wait for: one task each, which ends with the last caller that leaves."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Callable, Hashable
from typing import Generic, Protocol, TypeVar

TICK = 0.06  # seconds between two reports of progress, as Ollama has it


class Transfer(Protocol):
    """Something on its way; `total` and `completed` in bytes, `total` None until it is known."""

    @property
    def total(self) -> int | None:
        """Bytes in all."""

    @property
    def completed(self) -> int:
        """Bytes that are done."""

    async def run(self) -> None:
        """All of it."""


_Transfer = TypeVar("_Transfer", bound=Transfer)


@dataclasses.dataclass(slots=True)
class _Running(Generic[_Transfer]):
    transfer: _Transfer
    task: asyncio.Task[None]
    waiting: int = 0


class Shared(Generic[_Transfer]):
    """Transfers by what they are of."""

    def __init__(self) -> None:
        self._running: dict[Hashable, _Running[_Transfer]] = {}

    async def follow(self, key: Hashable, begin: Callable[[], _Transfer]) -> AsyncGenerator[tuple[int, int], None]:
        """Joins the transfer, or begins it; yields completed and total from time to time until it is over.

        Raises what the transfer raises. Who stops listening leaves; when nobody is left, the transfer is cancelled.
        """
        running = self._running.get(key) or self._begin(key, begin())
        running.waiting += 1
        try:
            while not running.task.done():
                await asyncio.wait((running.task,), timeout=TICK)
                if not running.task.done() and running.transfer.total is not None:
                    yield running.transfer.completed, running.transfer.total
            running.task.result()
        finally:
            running.waiting -= 1
            if not running.waiting:
                await self._end(key, running)

    def _begin(self, key: Hashable, transfer: _Transfer) -> _Running[_Transfer]:
        running = self._running[key] = _Running(transfer, asyncio.create_task(transfer.run()))
        running.task.add_done_callback(lambda _: self._forget(key, running))
        return running

    def _forget(self, key: Hashable, running: _Running[_Transfer]) -> None:
        """Whoever asks again begins again."""
        if self._running.get(key) is running:
            del self._running[key]

    async def _end(self, key: Hashable, running: _Running[_Transfer]) -> None:
        self._forget(key, running)
        running.task.cancel()
        await asyncio.wait((running.task,))
        if not running.task.cancelled():
            running.task.exception()  # whoever listened has been told
