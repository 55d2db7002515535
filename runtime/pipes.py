"""The child's side of the pipes: frames in on stdin, frames out on stdout, and a process that ends with its parent."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable
from typing import BinaryIO, NoReturn

from runtime import frames
from runtime.frames import Frame, FrameError, Reply

_LOG = logging.getLogger(__name__)

PROGRESS_SECONDS = 0.05  # between two reports of the same phase


class Writer:
    """The way out. Threads may share it: frames never mix."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()

    def send(self, replies: Iterable[Reply]) -> None:
        """Write frames. A parent that is gone ends the process."""
        data = memoryview(b"".join(map(frames.encode, replies)))
        with self._lock:
            while data:
                try:
                    data = data[os.write(self._fd, data) :]
                except BrokenPipeError:
                    leave(0)


class Throttled:
    """Sends load progress, but not more of it than a person can see."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._last = ("", 0.0)  # phase and time

    def __call__(self, phase: str, completed: int, total: int) -> None:
        now = time.monotonic()
        if phase != self._last[0] or completed >= total or now - self._last[1] >= PROGRESS_SECONDS:
            self._last = (phase, now)
            self._writer.send([frames.LoadProgress(phase, completed, total)])


def read(pipe: BinaryIO) -> Frame | None:
    """The next frame; None at the end, also if that comes in the middle of a frame."""
    prefix = pipe.read(frames.PREFIX_BYTES)
    try:
        if len(prefix) == frames.PREFIX_BYTES:
            length = frames.body_length(prefix)
            body = pipe.read(length)
            if len(body) == length:
                return frames.decode(body)
    except FrameError:
        _LOG.exception("the server broke the protocol")
        leave(1)
    return None


def take_pipes() -> tuple[BinaryIO, Writer]:
    """stdin and stdout for frames alone: whatever else prints goes to stderr, whatever else reads finds the end."""
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.dup(1)
    os.dup2(2, 1)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    return requests, Writer(replies)


def die_with_parent() -> None:
    """A runner without its server is of no use; when memory runs out, it goes before the server does."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # quietly, also in the middle of a kernel
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        try:
            with open("/proc/self/oom_score_adj", "w") as score:
                score.write("500")
        except OSError:
            _LOG.warning("cannot raise the OOM score of this process")


def leave(status: int) -> NoReturn:
    """End the process now, whatever other threads do: kernel threads take no notice of an exception."""
    logging.shutdown()
    sys.stderr.flush()
    os._exit(status)
