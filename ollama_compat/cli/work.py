"""Running a job for a command: its progress on stderr, its failure in one line."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from ollama_compat import job_steps
from ollama_compat.cli.errors import CommandError
from ollama_compat.cli.progress import Progress, Spinner
from ollama_compat.errors import InternalError

COMPILING = "compiling kernels"  # the phase that is counted: it takes longest


def run(job: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The job's result; CommandError when it fails."""
    with Progress(sys.stderr, clear=sys.stderr.isatty()) as progress:
        phases = Phases(progress)
        work = job_steps.steps(job, arguments)
        try:
            while True:
                step = next(work)
                phases.enter(step.phase, f"{step.completed}/{step.total}" if step.phase == COMPILING else "")
        except StopIteration as done:
            result: dict[str, Any] = done.value
            return result
        except InternalError as error:
            raise CommandError(str(error)) from error
        finally:
            work.close()


class Phases:
    """One line for the phase that a job is in."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._spinner: Spinner | None = None
        self._phase = ""

    def enter(self, phase: str, reached: str = "") -> None:
        """What goes on from now on, and how much of it is done."""
        if phase != self._phase or self._spinner is None:
            if self._spinner is not None:
                self._spinner.finish()
            self._phase, self._spinner = phase, Spinner(phase)
            self._progress.add(self._spinner)
        self._spinner.message = f"{phase} {reached}"
