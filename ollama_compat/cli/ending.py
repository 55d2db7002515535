"""Ending a command in order that has started processes or written files, so that none of them stays behind."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

NAMES = "SIGINT", "SIGTERM", "SIGHUP"  # a terminal's Ctrl+C, a service manager, a terminal that is closed


@contextlib.contextmanager
def in_order() -> Iterator[Callable[[], None]]:
    """Whoever ends this program by a signal makes it leave the block, and so all that is open in it; more signals change nothing
    then. Yields a function that makes it deaf to them, for a block that is being left anyway."""
    numbers = [number for name in NAMES if (number := getattr(signal, name, None)) is not None]
    before = {number: signal.getsignal(number) for number in numbers}
    heard = [number for number in numbers if before[number] is not signal.SIG_IGN]  # nohup and the like stay as they are

    def deaf() -> None:
        for number in heard:
            signal.signal(number, signal.SIG_IGN)

    def end(number: int, frame: FrameType | None) -> NoReturn:
        deaf()
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    for number in heard:
        signal.signal(number, end)
    try:
        yield deaf
    finally:
        for number in heard:
            signal.signal(number, before[number])
