"""Signals while a command has something to put away."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest

from ollama_compat.cli import ending


@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit), (signal.SIGHUP, SystemExit)]
)
def test_a_signal_leaves_the_block_and_another_one_does_not_disturb(number: signal.Signals, kind: type[BaseException]) -> None:
    before, put_away = signal.getsignal(number), list[bool]()

    def work() -> None:
        with ending.in_order(), contextlib.ExitStack() as stack:
            stack.callback(put_away.append, True)
            stack.callback(os.kill, os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), number)

    with pytest.raises(kind):
        work()
    assert put_away
    assert signal.getsignal(number) is before


def test_a_block_that_is_being_left_is_deaf() -> None:
    with ending.in_order() as deaf:
        deaf()
        os.kill(os.getpid(), signal.SIGHUP)


def test_what_was_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ending.in_order():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
