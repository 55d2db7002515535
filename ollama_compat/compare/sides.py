"""The two sides: a server that is running, or one that is started on a free port with a store of its own and stopped again."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from ollama_compat.compare.processes import guarded
from ollama_compat.settings import Address
from ollama_compat.store import Store, manifests
from ollama_compat.store.config import ModelConfig
from ollama_compat.store.header import ModelHeader
from ollama_compat.store.manifests import Layer
from ollama_compat.store.names import ModelName

KEYS = "MOELLAMA_API_KEYS", "MOELLAMA_API_KEY_FILE", "OLLAMA_API_KEY"  # which a server that only we ask needs not
SETTINGS = "OLLAMA_", "LLAMA_ARG_", "MOELLAMA_"  # how variables begin that servers of both kinds obey
START_SECONDS = 60.0
STOP_SECONDS = 10.0


class SideError(Exception):
    """A server cannot be started or reached."""


@dataclasses.dataclass(frozen=True, slots=True)
class Side:
    """One of the servers."""

    name: str  # for tables
    dialect: str  # "ollama" or "openai"
    address: Address
    model: str  # its name there
    options: Mapping[str, int] = dataclasses.field(default_factory=dict)  # beside those of both sides
    key: str = ""  # that is shown to it
    pid: int | None = None  # None: not started by us
    environ: Mapping[str, str] = dataclasses.field(default_factory=dict)  # what was set for it, as reported


def address(url: str, port: int = 80) -> Address:
    """SideError for what is no http(s) URL. `port`: of an address that names neither one nor a scheme."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    try:
        named = parts.port
    except ValueError:
        named = 0
    if parts.scheme not in ("http", "https") or not parts.hostname or named == 0:
        raise SideError(f"{url!r} is no address of a server")
    usual = 443 if parts.scheme == "https" else 80 if "://" in url else port
    return Address(parts.scheme, parts.hostname, named or usual, parts.path.strip("/"))


@contextlib.contextmanager
def started(command: list[str], side: Side, folder: Path, environ: Mapping[str, str]) -> Iterator[Side]:
    """The server of `command` at the side's address, its home and store under `folder`. Its pid is in the Side."""
    settings = {
        "OLLAMA_HOST": f"127.0.0.1:{side.address.port}",
        "OLLAMA_MODELS": str(folder / "models"),
        "HOME": str(folder),
        "OLLAMA_NOPRUNE": "1",
        "OLLAMA_NO_CLOUD": "1",
        "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache"),  # compiled kernels
    }
    kept = {name: value for name, value in os.environ.items() if name not in KEYS}
    told = {name: value for name, value in kept.items() if name.startswith(SETTINGS) and name not in settings}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            guarded(command),
            env=kept | settings | dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _wait(process, side, folder / "server.log")
        yield dataclasses.replace(side, pid=process.pid, environ=told | dict(environ))
    finally:
        _stop(process)


def _wait(process: subprocess.Popen[bytes], side: Side, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            lines = log.read_text("utf-8", "replace").strip().splitlines() or ["it said nothing"]
            raise SideError(f"{side.name} ended with status {process.returncode}: {lines[-1]}")
        try:
            socket.create_connection((side.address.host, side.address.port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SideError(f"{side.name} did not start within {START_SECONDS:.0f} seconds")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """The server, and what it may have left behind in its session."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


OURS = [sys.executable, "-m", "ollama_compat", "serve"]


# ------------------------------------------------------------ stores that share files


def link_stored(store: Store, name: ModelName, root: Path) -> None:
    """A store at `root` with one model of another store; its blobs are links."""
    manifest = store.manifests.path(name)
    target = root / "manifests" / manifest.relative_to(store.root / "manifests")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(manifest.read_bytes())
    for digest in store.manifests.read(name).digests:
        _link(store.blob_path(digest), root, digest)


def link_file(path: Path, name: ModelName, root: Path) -> None:
    """A store at `root` with one model, made of a GGUF file that is linked. GGUFError or OSError for one that cannot be read."""
    header = ModelHeader.read(path)
    with path.open("rb") as file:
        digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    _link(path, root, digest)
    config = ModelConfig.of_file(header)
    store = Store(root)
    with store.making() as making:
        config_layer, _ = making.add(manifests.CONFIG, config.encode())
        store.put_new(name, config_layer, (Layer(manifests.MODEL, digest, path.stat().st_size),))


def _link(path: Path, root: Path, digest: str) -> None:
    """Hard where both lie on one file system: then nothing is copied, and the file is no link for whoever looks."""
    target = root / "blobs" / digest.replace(":", "-")
    target.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        try:
            os.link(path.resolve(), target)
        except OSError:
            target.symlink_to(path.resolve())
