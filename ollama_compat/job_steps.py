"""Work in a child process that is no loaded model (`python -m runtime.job`): its progress, its end with whoever waits for it."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import runtime
from ollama_compat.errors import InternalError
from runtime import frames
from runtime.frames import Failed, Finished, LoadProgress, Reply, Work

_LOG = logging.getLogger(__name__)
_COMMAND = (sys.executable, "-m", "runtime.job")
_ROOT = Path(runtime.__file__).resolve().parent.parent  # where `-m` finds our packages, whatever the server's directory
_TELL_SECONDS = 0.25  # between two reports, so that a caller that is gone is noticed


def steps(job: str, arguments: Mapping[str, Any]) -> Generator[LoadProgress, None, dict[str, Any]]:
    """Has a job done, and reports several times a second; returns its result. Closing the iterator kills the child.

    Raises InternalError when the job fails or its process dies.
    """
    with _process() as process:
        assert process.stdin is not None
        assert process.stdout is not None
        replies: queue.SimpleQueue[Reply | None] = queue.SimpleQueue()
        threading.Thread(target=_read, args=(process.stdout, replies), daemon=True, name="job").start()
        with contextlib.suppress(BrokenPipeError):  # told below, by the end of its answers
            process.stdin.write(frames.encode(Work(job, dict(arguments))))
            process.stdin.flush()
        last = LoadProgress("", 0, 0)
        while True:
            with contextlib.suppress(queue.Empty):
                reply = replies.get(timeout=_TELL_SECONDS)
                if isinstance(reply, Finished):
                    return reply.result
                if isinstance(reply, Failed):
                    raise InternalError(reply.message)
                if reply is None:
                    raise InternalError(f"the process that did the work has ended unexpectedly, {_status(process)}")
                assert isinstance(reply, LoadProgress)
                last = reply
            yield last


@contextlib.contextmanager
def _process() -> Iterator[subprocess.Popen[bytes]]:
    """The child, in a session of its own so that a terminal's Ctrl+C reaches only the server. It is gone afterwards."""
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(_COMMAND, stdin=pipe, stdout=pipe, stderr=pipe, cwd=_ROOT, start_new_session=True)
    except OSError as error:
        raise InternalError(f"error starting a process: {error.strerror}") from error
    assert process.stderr is not None
    log = threading.Thread(target=_log, args=(process.stderr, process.pid), daemon=True, name="job log")
    log.start()
    try:
        yield process
    finally:
        _kill(process)
        process.wait()
        log.join()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Ends the child, and whatever it started."""
    with contextlib.suppress(ProcessLookupError):
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def _read(pipe: BinaryIO, replies: queue.SimpleQueue[Reply | None]) -> None:
    """Puts the child's frames into the queue, and None at their end."""
    try:
        while len(prefix := pipe.read(frames.PREFIX_BYTES)) == frames.PREFIX_BYTES:
            frame = frames.decode(pipe.read(frames.body_length(prefix)))
            assert not isinstance(frame, frames.Request)
            replies.put(frame)
    except (frames.FrameError, ValueError) as error:  # ValueError: the pipe was closed on this side
        _LOG.debug("a job's answers ended: %s", error)
    replies.put(None)


def _log(stderr: BinaryIO, pid: int) -> None:
    """Passes the child's log on."""
    for line in stderr:
        _LOG.info("job %d: %s", pid, line.decode("utf-8", "replace").rstrip())


def _status(process: subprocess.Popen[bytes]) -> str:
    status = process.wait()
    if status >= 0:
        return f"exit status {status}"
    return f"signal: {(signal.strsignal(-status) or str(-status)).lower()}"
