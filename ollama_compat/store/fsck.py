"""Looking through a store for damage: every manifest, every blob, and what else lies between them."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from ollama_compat.errors import InternalError
from ollama_compat.store import Store, manifests
from ollama_compat.store.blobs import DIGEST
from ollama_compat.store.manifests import Layer, Manifest
from ollama_compat.store.names import InvalidName, ModelName
from ollama_compat.store.verified import digest_of
from runtime.gguf_file import GGUFError, open_gguf

_FILES = (manifests.MODEL, manifests.PROJECTOR, manifests.ADAPTER, manifests.DRAFT)
_JSON = (manifests.CONFIG, manifests.PARAMS, manifests.MESSAGES)
_PARTIAL = "-partial"


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """What is odd about a file. `is_damage`: a model cannot be used, or not be trusted; otherwise it only takes space."""

    where: str
    what: str
    is_damage: bool = True


@dataclasses.dataclass(slots=True)
class Report:
    """What was looked at so far, for the summary."""

    models: int = 0
    blobs: int = 0
    size: int = 0  # bytes of the blobs


class Check:
    """One walk through a store. With `quick`, blobs that were hashed before and are the same file since are not hashed again."""

    def __init__(self, store: Store, *, quick: bool = False) -> None:
        self.report = Report()
        self._store, self._quick = store, quick
        self._users: dict[str, list[str]] = collections.defaultdict(list)  # models by the name of a blob's file
        self._bad: set[str] = set()  # names of blobs with wrong bytes
        self._needed: set[str] | None = None  # digests that any manifest mentions; None: one cannot be read

    def run(self) -> Iterator[Finding]:
        """Everything that is odd, as it is found."""
        found = []
        for path in _files(self._store.manifests.folder):
            name = self._name(path)
            if isinstance(name, Finding):
                yield name
            elif isinstance(manifest := self._manifest(name), Finding):
                yield manifest
            else:
                found.append(manifest)
        yield from _alike([manifest.name for manifest in found])
        for manifest in found:
            for layer in (*manifest.layers, manifest.config):
                if layer.digest:
                    self._users[f"sha256-{layer.digest[7:]}"].append(manifest.name.short())
        self.report.models = len(found)
        with contextlib.suppress(OSError):
            self._needed = self._store.manifests.references()
        yield from self._blobs()
        for manifest in found:
            yield from self._layers(manifest)

    # ------------------------------------------------------------ manifests

    def _name(self, path: Path) -> ModelName | Finding:
        relative = path.relative_to(self._store.manifests.folder)
        if path in self._store.manifests.temporary():
            return Finding(str(relative), "a manifest that was never put in its place", is_damage=False)
        if len(relative.parts) == 4:
            with contextlib.suppress(InvalidName):
                return ModelName(*relative.parts)
        return Finding(str(relative), "this is not where a manifest can be, so no model is seen here")

    def _manifest(self, name: ModelName) -> Manifest | Finding:
        path = self._store.manifests.path(name)
        if path.exists() and not path.is_file():  # a pipe would never be read to its end
            return Finding(name.short(), "the manifest is not a file")
        try:
            manifest = self._store.manifests.read(name)
        except InternalError as error:
            return Finding(name.short(), error.message)
        except OSError as error:
            return Finding(name.short(), f"the manifest cannot be read: {_reason(error)}")
        if any(not layer.digest for layer in manifest.layers):
            return Finding(name.short(), "the manifest is damaged: a layer names no blob")
        return manifest

    def _layers(self, manifest: Manifest) -> Iterator[Finding]:
        """What is wrong with a model although its manifest can be read."""
        if not manifest.layers and not manifest.config.digest:
            yield Finding(manifest.name.short(), "the manifest names no blobs")
        for layer in (*manifest.layers, manifest.config):
            if layer.digest and (what := self._layer(layer)):
                yield Finding(manifest.name.short(), f"its {_kind(layer)} {layer.digest[:19]} {what}")

    def _layer(self, layer: Layer) -> str:
        path = self._store.blob_path(layer.digest)
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            return "is missing"
        except OSError as error:
            return f"cannot be read: {_reason(error)}"
        if not path.is_file():
            return "is not a file"
        if size != layer.size:
            return f"has {size} bytes where the manifest says {layer.size}"
        if path.name in self._bad:
            return "has other bytes than its name says"
        return _content(path, layer)

    # ------------------------------------------------------------ blobs

    def _blobs(self) -> Iterator[Finding]:
        for path in sorted(_entries(self._store.blobs.folder)):
            if not DIGEST.fullmatch(path.name):
                yield self._other(path)
                continue
            yield from self._blob(path)

    def _blob(self, path: Path) -> Iterator[Finding]:
        users = self._users.get(path.name, [])
        try:
            right = path.is_file() and self._is_right(path)
            size = path.stat().st_size
        except OSError as error:
            yield Finding(path.name, f"cannot be read: {_reason(error)}")
            return
        self.report.blobs += 1
        self.report.size += size
        if not right:
            self._bad.add(path.name)
            what = "has other bytes than its name says" if path.is_file() else "is not a file"
            yield Finding(path.name, what + (f" (of {', '.join(sorted(set(users)))})" if users else ""))
        elif ":" in path.name or path.name != path.name.lower():
            yield Finding(path.name, "is named as no server looks for it", is_damage=False)
        elif self._needed is not None and f"sha256:{path.name[7:]}" not in self._needed:
            yield Finding(path.name, f"belongs to no model ({size} bytes)", is_damage=False)

    def _is_right(self, path: Path) -> bool:
        if self._quick and self._store.blobs.verified.knows(path):
            return True
        right = digest_of(path) == path.name[len("sha256-") :].lower()
        if right:
            self._store.blobs.verified.record(path)
        else:
            self._store.blobs.verified.forget(path)
        return right

    def _other(self, path: Path) -> Finding:
        blob, partial, number = path.name.partition(_PARTIAL)
        own = " of this program" if f"{blob}{partial}" in self._store.blobs.journal.names() else ""
        if partial and not number:
            return Finding(path.name, f"an unfinished download{own}", is_damage=False)
        if partial and DIGEST.fullmatch(blob):
            if _is_json(path):
                return Finding(path.name, f"the record of an unfinished download{own}", is_damage=False)
            return Finding(path.name, "a damaged record of an unfinished download, over which Ollama stumbles")
        what = f"an unfinished file{own}" if path.name.startswith("sha256-") else "does not belong here"
        return Finding(path.name, what, is_damage=False)


def _files(folder: Path) -> list[Path]:
    return sorted(Path(parent, name) for parent, _, names in os.walk(folder) for name in names)


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _alike(names: list[ModelName]) -> Iterator[Finding]:
    seen: dict[tuple[str, ...], ModelName] = {}
    for name in names:
        other = seen.setdefault(name.folded, name)
        if other is not name:
            yield Finding(name.short(), f"differs from {other.short()} only in case, so one of them is never found")


def _kind(layer: Layer) -> str:
    return "config" if layer.media_type == manifests.CONFIG else layer.media_type.removeprefix(manifests.IMAGE) or "layer"


def _content(path: Path, layer: Layer) -> str:
    """What is wrong inside a blob whose bytes are those of its name: it was damaged before it was named."""
    if layer.media_type in _JSON and not _is_json(path):
        return "is no JSON"
    if layer.media_type in _FILES:
        try:
            open_gguf(path, follow_split=False).close()
        except GGUFError as error:
            return f"is no usable GGUF file: {error}"
    return ""


def _is_json(path: Path) -> bool:
    try:
        return path.is_file() and isinstance(json.loads(path.read_bytes()), Mapping | list)
    except (ValueError, OSError, RecursionError):
        return False


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
