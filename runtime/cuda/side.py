"""Copies to the card beside its work."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol

import torch

from runtime.cuda.module import Module


class Side(Protocol):
    """Takes copies that begin when the work launched so far is done, and tells when they have arrived."""

    def after_current(self) -> contextlib.AbstractContextManager[None]:
        """Copies inside follow all that the current stream was given before."""

    def copy(self, target: int, source: int, nbytes: int) -> None:
        """From an address in the host's memory to one on the card; only inside of `after_current`."""

    def arrived(self) -> bool:
        """Whether all copies so far are done."""

    def wait(self) -> None:
        """Until they are."""


class SideStream:
    """Implements Side by a stream of its own."""

    def __init__(self, module: Module) -> None:
        self._module, self._stream = module, torch.cuda.Stream(module.device)
        self._done = torch.cuda.Event()

    @contextlib.contextmanager
    def after_current(self) -> Iterator[None]:
        self._stream.wait_stream(torch.cuda.current_stream(self._module.device))
        with torch.cuda.stream(self._stream):
            yield
            self._done.record()

    def copy(self, target: int, source: int, nbytes: int) -> None:
        self._module.copy(target, source, nbytes)

    def arrived(self) -> bool:
        return bool(self._done.query())

    def wait(self) -> None:
        self._done.synchronize()
