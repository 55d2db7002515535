"""Writing a prompt in an external editor."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile

from ollama_compat.cli.errors import CommandError
from ollama_compat.duration import quote


def compose(text: str, editor: str) -> str:
    """What the user makes of `text` in `editor`, without the last line breaks. CommandError when it cannot run or fails."""
    command = editor.split()
    if shutil.which(command[0]) is None:
        raise CommandError(f"editor {quote(command[0])} not found, set OLLAMA_EDITOR to the path of your preferred editor")
    handle, path = tempfile.mkstemp(prefix="ollama-prompt-", suffix=".txt")
    try:
        with open(handle, "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
        status = subprocess.run([*command, path], check=False).returncode
        if status:
            raise CommandError(f"editor exited with error: exit status {status}")
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().rstrip("\n")
    finally:
        os.unlink(path)
