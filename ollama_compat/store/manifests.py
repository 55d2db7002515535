"""Manifests: small JSON files, `manifests/<host>/<namespace>/<model>/<tag>`, that say which blobs make up a model."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ollama_compat import gojson
from ollama_compat.errors import InternalError
from ollama_compat.store import folders, gotext
from ollama_compat.store.blobs import DIGEST
from ollama_compat.store.names import InvalidName, ModelName

_LOG = logging.getLogger(__name__)

MAX_MANIFEST = 4 << 20  # bytes
MEDIA_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"

IMAGE = "application/vnd.ollama.image."  # what the media types of all layers begin with
MODEL = IMAGE + "model"
PROJECTOR = IMAGE + "projector"
ADAPTER = IMAGE + "adapter"
DRAFT = IMAGE + "draft"
TEMPLATE = IMAGE + "template"
PROMPT = IMAGE + "prompt"  # the old name of a template
SYSTEM = IMAGE + "system"
PARAMS = IMAGE + "params"
MESSAGES = IMAGE + "messages"
LICENSE = IMAGE + "license"

_ANY_DIGEST = re.compile(rb"sha256[:-]([0-9a-fA-F]{64})")
_TEMPORARY = ".moellama-"


class ManifestError(InternalError):
    """A manifest that cannot be used."""

    def __init__(self, name: ModelName, problem: str) -> None:
        super().__init__(f"the manifest of {name.short()} is damaged: {problem}")
        self.problem = problem


@dataclasses.dataclass(frozen=True, slots=True)
class Layer:
    """One blob of a model. `source`: the model or file it was taken from; `name`: that of a tensor kept in its own blob."""

    media_type: str
    digest: str
    size: int
    source: str = ""
    name: str = ""

    def fields(self) -> dict[str, Any]:
        """The JSON object, keys in Ollama's order."""
        optional = {"from": self.source, "name": self.name}
        fields = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        return fields | {key: value for key, value in optional.items() if value}


@dataclasses.dataclass(frozen=True, slots=True)
class Manifest:
    """What a manifest file says, and the file's own digest (64 hex digits) and time."""

    name: ModelName
    config: Layer
    layers: tuple[Layer, ...]
    digest: str
    modified_ns: int

    @property
    def size(self) -> int:
        """Bytes of all layers and the config."""
        return self.config.size + sum(layer.size for layer in self.layers)

    @property
    def digests(self) -> set[str]:
        """Of every blob that it needs."""
        return {layer.digest for layer in (self.config, *self.layers) if layer.digest}


def encode(config: Layer, layers: tuple[Layer, ...]) -> bytes:
    """The bytes of a manifest file, as Ollama writes it."""
    body = {
        "schemaVersion": 2,
        "mediaType": MEDIA_TYPE,
        "config": config.fields(),
        "layers": [layer.fields() for layer in layers] or None,
    }
    return gojson.dumps(body) + b"\n"


def decode(name: ModelName, data: bytes, modified_ns: int) -> Manifest:
    """The manifest in `data`; ManifestError when it is none."""
    try:
        body = gotext.read_json(data)
    except ValueError as error:
        raise ManifestError(name, str(error)) from None
    if not isinstance(body, dict) or not isinstance(body.get("layers"), list | None):
        raise ManifestError(name, "it is not a list of layers")
    layers = tuple(_layer(name, layer) for layer in body.get("layers") or ())
    config = _layer(name, body.get("config") or {"digest": ""})
    return Manifest(name, config, layers, hashlib.sha256(data).hexdigest(), modified_ns)


def _layer(name: ModelName, value: Any) -> Layer:
    if not isinstance(value, dict):
        raise ManifestError(name, "a layer is no object")
    texts = [value.get(key) or "" for key in ("mediaType", "digest", "from", "name")]
    size = value.get("size") or 0
    if not all(isinstance(text, str) for text in texts) or not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise ManifestError(name, "a layer has fields of the wrong type")
    media_type, digest, source, part = texts
    if digest and DIGEST.fullmatch(digest) is None:
        raise ManifestError(name, "invalid digest format")
    return Layer(media_type, digest, size, source, part)


class Manifests:
    """The folder `manifests` of a store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: ModelName) -> Path:
        """Where the manifest of `name` is, or would be, in this very case."""
        return self.folder.joinpath(*name.parts)

    def names(self) -> list[ModelName]:
        """Every model of the store, sorted. What is no manifest by its name, or may not be looked at, is passed over."""
        names = []
        for parts in _walk(self.folder, 4, _pass_over):
            with contextlib.suppress(InvalidName):
                names.append(ModelName(*parts))
        return sorted(names)

    def read(self, name: ModelName) -> Manifest:
        """The manifest of `name` in this very case. FileNotFoundError, or ManifestError for a damaged one."""
        with self.path(name).open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_size > MAX_MANIFEST:
                raise ManifestError(name, f"it is longer than {MAX_MANIFEST} bytes")
            return decode(name, file.read(MAX_MANIFEST), status.st_mtime_ns)

    def references(self) -> set[str]:
        """Digests, in lower case, that any file below the folder mentions, even one that is damaged.

        Raises OSError when a file cannot be read: nothing may be removed then.
        """
        found: set[str] = set()
        for parts in _walk(self.folder, 4, _refuse):
            data = self.folder.joinpath(*parts).read_bytes()
            found.update(f"sha256:{match.group(1).decode().lower()}" for match in _ANY_DIGEST.finditer(data))
        return found

    def write(self, name: ModelName, data: bytes, *, replace: bool = True) -> bool:
        """Puts the manifest in its place in one step. Without `replace` False when there is one already."""
        path = self.path(name)
        for _ in range(10):  # another program may sweep the empty folder away before the file is in it
            folders.make(path.parent)
            with contextlib.suppress(FileNotFoundError):
                return self._place(path, data, replace)
        raise InternalError(f"the folder {path.parent.name} of {name.short()} keeps disappearing")

    def _place(self, path: Path, data: bytes, replace: bool) -> bool:
        # the temporary file is not in the tag's folder, where Ollama would take it for a damaged manifest
        descriptor, temporary = tempfile.mkstemp(prefix=_TEMPORARY, dir=self.folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                if os.name == "posix":
                    os.fchmod(file.fileno(), 0o644)
                os.fsync(file.fileno())
            placed = _move(Path(temporary), path, replace)
        finally:
            Path(temporary).unlink(missing_ok=True)
        folders.sync(path.parent)
        return placed

    def remove(self, name: ModelName) -> None:
        """Removes the manifest and the folders that it leaves empty; FileNotFoundError when there is none."""
        path = self.path(name)
        path.unlink()
        folders.sync(path.parent)
        for folder in path.parents[:3]:
            try:
                folder.rmdir()
            except OSError:  # not empty
                return

    def temporary(self) -> list[Path]:
        """Files that a crash may have left."""
        return list(self.folder.glob(f"{_TEMPORARY}*"))


def _move(source: Path, target: Path, replace: bool) -> bool:
    if replace:
        os.replace(source, target)
        return True
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK) or target.exists():
            raise
        os.replace(source, target)  # a file system without links
    return True


def _walk(folder: Path, depth: int, trouble: Callable[[OSError], None]) -> Iterator[tuple[str, ...]]:
    """Paths, as their parts, of the regular files exactly `depth` levels below `folder`. `trouble` hears of what cannot be
    looked at."""
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        trouble(error)
        return
    for entry in entries:
        try:
            wanted = entry.is_file() if depth == 1 else entry.is_dir()
        except OSError as error:
            trouble(error)
            continue
        if wanted and depth == 1:
            yield (entry.name,)
        elif wanted:
            yield from ((entry.name, *rest) for rest in _walk(folder / entry.name, depth - 1, trouble))


def _pass_over(error: OSError) -> None:
    _LOG.warning("bad manifest: %s", error)


def _refuse(error: OSError) -> None:
    raise error
