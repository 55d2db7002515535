"""serve: runs the server in this process."""

from __future__ import annotations

import os

from ollama_compat.cli.command import Call
from ollama_compat.cli.errors import CommandError
from ollama_compat.keys import KeyFileError
from ollama_compat.settings import Settings


def serve(call: Call) -> None:
    """`serve`: until the process is told to stop."""
    from ollama_compat import serve as server  # aiohttp and what hangs on it, which no other command needs

    try:
        server.serve(Settings.from_env(os.environ))
    except (server.ListenError, KeyFileError) as error:
        raise CommandError(str(error)) from error
