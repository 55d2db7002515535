"""Whether a runner that somebody waits for still lives: it is asked once a beat, and answers beside its work."""

from __future__ import annotations

from pathlib import Path

BEAT = 1.0  # seconds
MISSED = 3  # beats without a word and without work, after which it hangs
LONGEST = 30  # beats without a word, whatever it does


class Pulse:
    """Of one process. A call that holds Python's lock for seconds keeps it from answering, but not from using processor time."""

    def __init__(self, pid: int) -> None:
        self._stat = Path(f"/proc/{pid}/stat")
        self._silent = self._idle = 0
        self._work = self._worked()

    def beat(self, heard: bool) -> bool:
        """One beat is over. True: it hangs."""
        work = self._worked()
        working, self._work = work is None or work != self._work, work
        self._silent = 0 if heard else self._silent + 1
        self._idle = 0 if heard or working else self._idle + 1
        return self._idle >= MISSED or self._silent >= LONGEST

    def _worked(self) -> int | None:
        """Processor time used so far, in clock ticks. None: it waits for a disk, or the system does not say."""
        try:
            fields = self._stat.read_text().rpartition(")")[2].split()  # the name before may hold anything
        except OSError:
            return None
        return None if fields[0] == "D" else int(fields[11]) + int(fields[12])
