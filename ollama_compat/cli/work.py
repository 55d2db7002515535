"""Running a job for a command: its progress on stderr, its failure in one line."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from ollama_compat import jobs
from ollama_compat.cli.errors import CommandError
from ollama_compat.cli.progress import Progress, Spinner
from runtime.frames import LoadProgress


def run(job: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The job's result; CommandError when it fails."""
    with Progress(sys.stderr, clear=sys.stderr.isatty()) as progress:
        try:
            return jobs.run(job, arguments, Phases(progress).show)
        except jobs.JobFailed as error:
            raise CommandError(str(error)) from error


class Phases:
    """One line for the phase that a job is in."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._spinner: Spinner | None = None
        self._phase = ""

    def show(self, report: LoadProgress) -> None:
        """A job's report."""
        self.enter(report.phase)

    def enter(self, phase: str) -> None:
        """What goes on from now on."""
        if phase == self._phase:
            return
        if self._spinner is not None:
            self._spinner.finish()
        self._phase, self._spinner = phase, Spinner(phase)
        self._progress.add(self._spinner)
