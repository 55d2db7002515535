"""Loading a model before a session, and unloading it."""

from __future__ import annotations

import sys
from typing import Any

from ollama_compat.cli.client import Client
from ollama_compat.cli.loading import spinner
from ollama_compat.cli.progress import Progress

UNLOAD = "0s"


def unload(client: Client, model: str) -> None:
    """Take a model out of memory. It is looked up first, so that a missing one is an error."""
    load(client, model, keep_alive=UNLOAD)


def load(client: Client, model: str, **fields: Any) -> None:
    """An empty generate request: loads, or with `keep_alive` zero unloads; `fields` with the value None are left out."""
    with Progress(sys.stderr, clear=True) as progress:
        progress.add(spinner(client, live=sys.stderr.isatty()))
        if client.show(model).get("remote_host"):
            return
        body = {"model": model, "prompt": "", **{key: value for key, value in fields.items() if value is not None}}
        for _ in client.stream("/api/generate", body):
            pass
