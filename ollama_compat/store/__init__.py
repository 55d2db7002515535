"""The models on this machine, in Ollama's own layout on disk: a store that Ollama filled works here, and the other way round.

    manifests/<host>/<namespace>/<model>/<tag>   JSON: which blobs make up the model
    blobs/sha256-<64 hex digits>                 model files, templates, parameters, licenses, configs

Methods without `async` read or write small files; they may be called in threads.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import threading
from collections.abc import AsyncIterable, Iterable, Iterator
from pathlib import Path

from ollama_compat.errors import InternalError, ModelNotFound
from ollama_compat.store import blobs, manifests, model
from ollama_compat.store.manifests import Layer, Manifest
from ollama_compat.store.model import StoredModel
from ollama_compat.store.names import ModelName

__all__ = ["Store", "StoredModel"]

_LOG = logging.getLogger(__name__)


class Store:
    """A folder of models. `go_template` and `no_prune` are the settings of OLLAMA_GO_TEMPLATE and OLLAMA_NOPRUNE."""

    def __init__(self, root: Path, *, go_template: bool | None = None, no_prune: bool = False) -> None:
        self.root = root
        self.no_prune = no_prune
        self.blobs = blobs.Blobs(root / "blobs")
        self.manifests = manifests.Manifests(root / "manifests")
        self._go_template = go_template
        self._lock = threading.RLock()  # held while manifests change and blobs are removed
        self._pins: collections.Counter[str] = collections.Counter()  # digests that a model in the making needs
        self._deferred: set[str] = set()  # of those, what can go when they are let go
        self._read: dict[ModelName, StoredModel] = {}  # by the name on disk

    # ------------------------------------------------------------ finding

    def names(self) -> list[ModelName]:
        """Every model's name, sorted."""
        return self.manifests.names()

    def resolve(self, name: ModelName) -> ModelName | None:
        """The name as it is written on disk, which may differ in case; None when there is no such model."""
        if self.manifests.path(name).is_file():
            return name
        return next((found for found in self.names() if found.same(name)), None)

    def canonical(self, name: ModelName) -> ModelName:
        """`resolve`, or for a model that is not there: each part in the case in which some model has it already."""
        names = self.names()
        if name in names:
            return name
        whole = next((found for found in names if found.same(name)), None)
        if whole is not None:
            return whole
        host, namespace, model_, tag = (_spelled(part, {found.parts[i] for found in names}) for i, part in enumerate(name.parts))
        return ModelName(host, namespace, model_, tag, name.scheme)

    def get(self, name: ModelName) -> StoredModel:
        """The model; ModelNotFound when there is none, InternalError when it is damaged."""
        resolved = self.resolve(name)
        if resolved is None:
            raise ModelNotFound(name.short())
        try:
            return self._load(resolved)
        except FileNotFoundError:
            if self.resolve(resolved) is None:
                raise ModelNotFound(name.short()) from None
            raise InternalError(f"a blob of {name.short()} is missing; pull or create the model again") from None

    def list(self) -> list[StoredModel]:
        """Every model that can be read, the latest change (by whole seconds) first. Damaged ones are logged and left out."""
        found = []
        for name in self.names():
            try:
                found.append(self.get(name))
            except ModelNotFound:
                continue  # gone since
            except (InternalError, OSError) as error:
                _LOG.warning("bad manifest: %s: %s", name, error)
        return sorted(found, key=lambda stored: stored.modified_ns // 1_000_000_000, reverse=True)

    def _load(self, name: ModelName) -> StoredModel:
        """Reads the manifest, and the rest only if it is another one than last time."""
        manifest = self.manifests.read(name)
        known = self._read.get(name)
        if known is None or known.manifest != manifest:
            known = self._read[name] = model.load(self.blobs, manifest, self._go_template)
        return known

    # ------------------------------------------------------------ changing

    def copy(self, source: ModelName, destination: ModelName) -> None:
        """Gives the model a second name; ModelNotFound. What had that name before is gone."""
        with self._lock:
            found = self.resolve(source)
            if found is None:
                raise ModelNotFound(source.short())
            target = self.canonical(destination)
            if found != target:
                self._replace(target, self.manifests.path(found).read_bytes())

    def delete(self, name: ModelName) -> None:
        """Removes the model and the blobs that no other one needs; ModelNotFound."""
        with self._lock:
            found = self.resolve(name)
            if found is None:
                raise ModelNotFound(name.short())
            old = self._old(found)
            self.manifests.remove(found)
            self._read.pop(found, None)
            self.collect(old.digests if old else ())

    def put(self, name: ModelName, config: Layer, layers: Iterable[Layer]) -> None:
        """Writes the model's manifest; its blobs are in the store already."""
        with self._lock:
            self._replace(name, manifests.encode(config, tuple(layers)))

    def install(self, name: ModelName, data: bytes) -> set[str]:
        """Writes a manifest as it came; the digests that the model needed before and needs no more, for `collect`."""
        with self._lock:
            old = self._old(name)
            self.manifests.write(name, data)
            return old.digests - manifests.decode(name, data, 0).digests if old else set()

    def put_new(self, name: ModelName, config: Layer, layers: Iterable[Layer]) -> bool:
        """As `put`, but False when a model of that name is there."""
        with self._lock:
            if self.resolve(name) is not None:
                return False
            return self.manifests.write(name, manifests.encode(config, tuple(layers)), replace=False)

    def _replace(self, name: ModelName, data: bytes) -> None:
        old = self._old(name)
        self.manifests.write(name, data)
        if old and not self.no_prune:
            self.collect(old.digests)

    def _old(self, name: ModelName) -> Manifest | None:
        try:
            return self.manifests.read(name)
        except (FileNotFoundError, manifests.ManifestError):
            return None

    def collect(self, digests: Iterable[str]) -> None:
        """Removes those of the blobs that no manifest and no model in the making needs."""
        with self._lock:
            try:
                needed = self.manifests.references()
            except OSError as error:
                _LOG.warning("no blob is removed, because a manifest cannot be read: %s", error)
                return
            for digest in digests:
                key = digest.lower().replace("-", ":")
                if key in needed:
                    continue
                if self._pins[key]:
                    self._deferred.add(key)
                else:
                    self.blobs.remove(digest)

    # ------------------------------------------------------------ blobs

    def blob_path(self, digest: str) -> Path:
        """Where the blob is, or would be; BadRequest for what is no digest."""
        return self.blobs.path(digest)

    def has_blob(self, digest: str) -> bool:
        """Whether the blob is there and right, which may take hashing it; BadRequest for what is no digest."""
        return self.blobs.has(digest)

    async def write_blob(self, digest: str, chunks: AsyncIterable[bytes]) -> bool:
        """Stores an upload; False when the blob is there already and nothing was read. BadRequest when it is another one."""
        return await self.blobs.receive(digest, chunks)

    @contextlib.contextmanager
    def making(self) -> Iterator[Making]:
        """For a model in the making: what it needs stays, although no manifest names it yet."""
        making = Making(self)
        try:
            yield making
        finally:
            making.close()

    @contextlib.contextmanager
    def pinning(self, digest: str) -> Iterator[None]:
        """Nothing is removed inside; afterwards everything but this blob may be, until it is unpinned."""
        with self._lock:
            yield
            self._pins[digest.lower()] += 1

    def unpin(self, digests: Iterable[str]) -> None:
        """The opposite of `pinning`; what should have been removed meanwhile goes now."""
        with self._lock:
            self._pins.subtract(digests)
            self._pins += collections.Counter()  # forgets zeros
            free = {digest for digest in self._deferred if not self._pins[digest]}
            self._deferred -= free
            if free:
                self.collect(free)


class Making:
    """The blobs of a model in the making."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pinned: list[str] = []

    def close(self) -> None:
        """The model has its manifest now, or there will be none."""
        pinned, self._pinned = self._pinned, []
        self._store.unpin(pinned)

    def path(self, digest: str) -> Path:
        """Where the blob is, or would be; BadRequest for what is no digest."""
        return self._store.blob_path(digest)

    def keep(self, digest: str) -> bool:
        """Keeps a blob, from now on and whenever it comes; whether it is there and right. BadRequest for what is no digest."""
        path = self._store.blob_path(digest)
        with self._store.pinning(digest):
            self._store.blobs.verified.touch(path)
        self._pinned.append(digest.lower())
        return self._store.blobs.has(digest)

    def hold(self, digest: str) -> int | None:
        """Keeps a blob of the store, and gives its size; None when it is not there, InternalError when it is damaged."""
        path = self._store.blob_path(digest)
        if self.keep(digest):
            return path.stat().st_size
        if path.exists():
            raise InternalError(f"the file of {digest} is damaged; pull or create its model again")
        return None

    def writer(self) -> blobs.Writer:
        """For a blob that is written bit by bit, and then given to `finish`."""
        return self._store.blobs.writer()

    def add(self, media_type: str, data: bytes) -> tuple[Layer, bool]:
        """A layer with a new blob, and whether the blob was new."""
        with self.writer() as writer:
            writer.write(data)
            return self.finish(media_type, writer)

    def finish(self, media_type: str, writer: blobs.Writer) -> tuple[Layer, bool]:
        """As `add`, for a blob from `writer`."""
        digest = writer.seal()
        with self._store.pinning(digest):
            is_new = writer.commit()
        self._pinned.append(digest)
        return Layer(media_type, digest, writer.size), is_new


def _spelled(part: str, known: set[str]) -> str:
    if part in known:
        return part
    return next((found for found in sorted(known) if found.lower() == part.lower()), part)
