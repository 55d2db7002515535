"""The spinner of a request that may have to load its model: it tells what the server is doing, where the server says."""

from __future__ import annotations

import threading

from ollama_compat.cli.client import Client
from ollama_compat.cli.errors import CommandError
from ollama_compat.cli.progress import Spinner

_EVERY = 0.3  # seconds between two questions


class LoadingSpinner(Spinner):
    """A turning sign with `compiling kernels 12/37` before it while the model is loaded. Asks in a thread of its own."""

    def __init__(self, client: Client) -> None:
        super().__init__("")
        self._client = client
        self._over = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def finish(self) -> None:
        super().finish()
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(_EVERY):
            try:
                loading = self._client.loading()
            except CommandError:  # an Ollama has no such route
                return
            self.message = f"{loading['phase']} {loading['completed']}/{loading['total']}" if loading else ""


def spinner(client: Client, *, live: bool) -> Spinner:
    """A spinner; `live`: on a terminal, where what it says is redrawn."""
    return LoadingSpinner(client) if live else Spinner("")
