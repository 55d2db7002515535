"""Work that the token world does in a process of its own: `python -m runtime.job`, seen from a command that waits for it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import runtime
from runtime import frames
from runtime.frames import Failed, Finished, Frame, FrameError, LoadProgress, Work

COMMAND = (sys.executable, "-m", "runtime.job")
_ROOT = Path(runtime.__file__).resolve().parent.parent  # where `-m` finds our packages, whatever the current directory

Progress = Callable[[LoadProgress], None]


class JobFailed(Exception):
    """The job could not be done; `kind` is one of runtime.frames.FAILURES, or `died`."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def run(job: str, arguments: Mapping[str, Any], progress: Progress, command: tuple[str, ...] = COMMAND) -> dict[str, Any]:
    """The job's result. Raises JobFailed. When this ends early, the process is killed."""
    pipe = subprocess.PIPE
    with (
        tempfile.TemporaryFile() as log,  # a pipe that nobody reads would stop the job when it is full
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, env=_environment()) as child,
    ):
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(frames.encode(Work(job, dict(arguments))))
            child.stdin.flush()
            return _result(child.stdout, progress)
        except (BrokenPipeError, _Died):
            raise JobFailed("died", _last_words(child, log)) from None
        finally:
            child.kill()


class _Died(Exception):
    pass


def _result(pipe: IO[bytes], progress: Progress) -> dict[str, Any]:
    while True:
        frame = _read(pipe)
        if isinstance(frame, LoadProgress):
            progress(frame)
        elif isinstance(frame, Finished):
            return frame.result
        elif isinstance(frame, Failed):
            raise JobFailed(frame.kind, frame.message)


def _read(pipe: IO[bytes]) -> Frame:
    prefix = pipe.read(frames.PREFIX_BYTES)
    try:
        if len(prefix) == frames.PREFIX_BYTES:
            length = frames.body_length(prefix)
            body = pipe.read(length)
            if len(body) == length:
                return frames.decode(body)
    except FrameError as error:
        raise JobFailed("died", f"it wrote what is no frame: {error}") from error
    raise _Died


def _last_words(child: subprocess.Popen[bytes], log: IO[bytes]) -> str:
    """What a process that broke off has left in its log."""
    child.wait()
    log.seek(0)
    lines = [line for line in log.read().decode("utf-8", "replace").splitlines() if line.strip()]
    return f"the process ended with status {child.returncode}" + (f": {lines[-1]}" if lines else "")


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))}
