"""A command on a terminal of its own, and what a person would type there."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Sequence

# the first process of a session that opens a terminal gets it as its own, so that Ctrl+C works there
_ON_TERMINAL = 'exec "$@" <"$TERMINAL" >"$TERMINAL" 2>&1'
_ESCAPES = re.compile(r"\x1b\[[?0-9;]*[a-zA-Z]")


class Terminal:
    """Runs `moellama ARGS` on a terminal of `columns` columns."""

    def __init__(self, args: Sequence[str], *, columns: int = 80, **environ: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        command = ["sh", "-c", _ON_TERMINAL, "sh", sys.executable, "-m", "ollama_compat", *args]
        env = os.environ | {"TERM": "xterm-256color", "TERMINAL": os.ttyname(slave)} | environ
        self._process = subprocess.Popen(command, env=env, start_new_session=True, stdin=subprocess.DEVNULL)
        self._slave = slave
        self.raw = ""
        self._seen = 0

    def expect(self, text: str, seconds: float = 20) -> str:
        """Wait until `text` is shown behind what was waited for before; all that was shown up to there, without escapes."""
        end = time.monotonic() + seconds
        while (at := self.text.find(text, self._seen)) < 0:
            assert time.monotonic() < end, f"no {text!r} in {self.text[self._seen :]!r}"
            assert self._read(), f"ended without {text!r}: {self.text[self._seen :]!r}"
        shown = self.text[self._seen : at]
        self._seen = at + len(text)
        return shown

    @property
    def text(self) -> str:
        """Everything shown so far, without escapes and carriage returns."""
        return _ESCAPES.sub("", self.raw).replace("\r", "")

    def send(self, keys: str) -> None:
        """Press keys."""
        os.write(self._master, keys.encode())

    def end(self, seconds: float = 20) -> int:
        """Wait for the command; its status."""
        status = self._process.wait(seconds)
        while self._read(0.05):
            pass
        return status

    def interrupt(self) -> None:
        """Send SIGINT to the command alone."""
        self._process.send_signal(signal.SIGINT)

    def close(self) -> None:
        """End the command if it still runs."""
        self._process.kill()
        self._process.wait()
        os.close(self._master)
        os.close(self._slave)

    def _read(self, seconds: float = 1.0) -> bool:
        """More output; whether the command may still write."""
        ready, _, _ = select.select([self._master], [], [], seconds)
        if ready:
            self.raw += os.read(self._master, 65536).decode(errors="replace")
            return True
        return self._process.poll() is None and seconds > 0.05
