"""What was typed before: ~/.ollama/history, shared with Ollama, one entry a line."""

from __future__ import annotations

import os
from pathlib import Path

LIMIT = 100


class History:
    """The last entries, and the one that the arrow keys stand on."""

    def __init__(self, path: Path, *, saving: bool = True) -> None:
        self._path = path
        self.saving = saving
        self._entries = _read(path)
        self._at = len(self._entries)

    def add(self, entry: str) -> None:
        """Remember an entry, and write the file unless that is switched off."""
        self._entries = [*self._entries, entry][-LIMIT:]
        self._at = len(self._entries)
        if self.saving:
            self._write()

    @property
    def at_end(self) -> bool:
        """Whether no older entry is chosen."""
        return self._at == len(self._entries)

    def previous(self) -> str | None:
        """The entry before; None at the oldest."""
        if self._at == 0:
            return None
        self._at -= 1
        return self._entries[self._at]

    def next(self) -> str | None:
        """The entry after; empty behind the newest, None when already there."""
        if self.at_end:
            return None
        self._at += 1
        return "" if self.at_end else self._entries[self._at]

    def _write(self) -> None:
        temporary = self._path.with_name(self._path.name + ".tmp")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
            with open(file, "w", encoding="utf-8", errors="replace", newline="\n") as out:
                out.writelines(f"{entry}\n" for entry in self._entries)
            temporary.replace(self._path)
        except OSError:
            self.saving = False  # a home that cannot be written is no reason to end a session


def _read(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [line.strip() for line in text.split("\n") if line.strip()][-LIMIT:]
