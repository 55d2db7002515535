"""A real registry on the loopback: Debian's docker-registry."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from ollama_compat.compare.processes import free_port

PROGRAM = shutil.which("docker-registry")

CONFIG = """
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage:
  filesystem: {{rootdirectory: {folder}}}
  delete: {{enabled: true}}
http: {{addr: "{host}", secret: for-tests}}
"""


@contextlib.contextmanager
def serving(folder: Path, program: str) -> Iterator[str]:
    """Address and port of a registry that keeps its files in `folder`."""
    host = f"127.0.0.1:{free_port()}"
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "config.yml"
    config.write_text(CONFIG.format(folder=folder / "data", host=host))
    with (folder / "log").open("wb") as log, subprocess.Popen([program, "serve", config], stdout=log, stderr=log) as process:
        try:
            wait(host)
            yield host
        finally:
            process.kill()


def wait(host: str) -> None:
    """Until somebody listens at the address."""
    address, _, port = host.partition(":")
    for _ in range(400):
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection((address, int(port))):
            return
        time.sleep(0.05)
    raise TimeoutError("the registry does not answer")
