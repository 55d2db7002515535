"""Pushes to a registry in memory, and pulls back."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fake_registry import FakeRegistry, serving
from fault_proxy import Fault, FaultProxy

from ollama_compat.errors import ApiError
from ollama_compat.registry import Patience, Registry, signing, upload
from ollama_compat.store import Store, manifests
from ollama_compat.store.manifests import Layer
from ollama_compat.store.names import ModelName

BLOB = random.Random(2).randbytes(550_000)
HASTE = Patience(stall=0.5, first_wait=0.01, busy_wait=0.05)


def add_model(store: Store, name: str, source: str = "") -> list[str]:
    """A model of a large and two small blobs; their digests."""
    with store.making() as making:
        model, _ = making.add(manifests.MODEL, BLOB)
        template, _ = making.add(manifests.TEMPLATE, b"{{ .Prompt }}")
        config, _ = making.add(manifests.CONFIG, b"{}")
        store.put(ModelName.parse(name), config, (Layer(model.media_type, model.digest, model.size, source), template))
    return [model.digest, template.digest, config.digest]


@contextlib.asynccontextmanager
async def client_for(store: Store, folder: Path) -> AsyncIterator[Registry]:
    client = Registry(store, folder / "home" / "id_ed25519", {}, HASTE)
    try:
        yield client
    finally:
        await client.close()


class Place:
    """A store with a model, and where it is pushed to."""

    def __init__(self, folder: Path, client: Registry, store: Store, registry: FakeRegistry) -> None:
        self.folder, self.client, self.store, self.registry = folder, client, store, registry
        self.digests: list[str] = []

    async def push(self, host: str = "", name: str = "ns/m", source: str = "") -> list[dict[str, Any]]:
        full = f"{host or self.registry.host}/{name}"
        self.digests = add_model(self.store, full, source)
        return [line async for line in self.client.push(ModelName.parse(full), insecure=True)]

    async def assert_pushed(self, host: str = "", name: str = "ns/m") -> None:
        """The registry has what the store has: the same manifest, and blobs that can be pulled."""
        full = ModelName.parse(f"{host or self.registry.host}/{name}")
        assert self.registry.manifests[f"{name}:latest"] == self.store.manifests.path(full).read_bytes()
        other = Store(self.folder / "other")
        async with client_for(other, self.folder) as client:
            back = ModelName.parse(f"{self.registry.host}/{name}")
            assert [line async for line in client.pull(back, insecure=True)][-1] == {"status": "success"}
        assert other.manifests.read(back).digest == self.store.manifests.read(full).digest
        assert {path.name for path in other.blobs.folder.iterdir()} == {digest.replace(":", "-") for digest in self.digests}


@pytest.fixture
async def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    monkeypatch.setattr(upload, "MIN_PART", 100_000)
    store = Store(tmp_path / "models")
    async with serving(FakeRegistry()) as registry, client_for(store, tmp_path) as client:
        yield Place(tmp_path, client, store, registry)


async def test_progress_is_told_as_by_ollama(place: Place) -> None:
    lines = await place.push()
    assert lines[0] == {"status": "retrieving manifest"}
    assert lines[-2:] == [{"status": "pushing manifest"}, {"status": "success"}]
    last = {line["digest"]: line for line in lines if "digest" in line}
    assert list(last) == place.digests
    size = len(BLOB)
    assert last[place.digests[0]] == {
        "status": f"pushing {place.digests[0][7:19]}", "digest": place.digests[0], "total": size, "completed": size,
    }  # fmt: skip
    ranges = [headers["Content-Range"] for headers in place.registry.requests("PATCH", "uploads")]
    assert ranges[:2] == ["0-99999", "100000-199999"]
    await place.assert_pushed()


async def test_what_the_registry_has_is_not_sent(place: Place) -> None:
    await place.push()
    place.registry.seen.clear()
    lines = await place.push()
    assert len(lines) == 6
    assert place.registry.requests("PATCH", "") == []


async def test_a_blob_is_mounted_from_another_repository(place: Place) -> None:
    place.registry.add(BLOB)
    async with FaultProxy(place.registry.base, Fault("HEAD .*blobs", 404)).serving() as proxy:
        await place.push(proxy.host, source="other/base")
        asked = next(path for method, path, _ in place.registry.seen if method == "POST")
        assert f"mount={place.digests[0]}&from=other/base" in asked
        assert len(place.registry.requests("PATCH", "uploads")) == 2  # the small ones
        await place.assert_pushed(proxy.host)


async def test_parts_go_where_the_registry_wants_them(place: Place) -> None:
    signing.ensure(place.client._key)
    place.registry.tokens = set()
    async with serving(FakeRegistry(uploads=place.registry.uploads)) as storage:  # asserts that no token comes
        place.registry.part_redirect = storage.base
        await place.push()
        assert len(storage.requests("PUT", "/parts")) == 6 + 2
        finish = [path for method, path, _ in place.registry.seen if method == "PUT" and "digest=" in path]
        assert all("&etag=" in path for path in finish)
        assert finish[0].endswith("-6")
        await place.assert_pushed()


@pytest.mark.parametrize(
    "faults",
    [
        [Fault("PATCH", 500, times=3)],
        [Fault("PATCH", "short", times=2, after=70_000)],
        [Fault("POST", 503, times=2), Fault("PUT .*digest=", 502, times=2), Fault("PUT .*manifests", 429)],
        [Fault("PATCH", 500), Fault("GET .*uploads", 404)],
    ],
    ids=["errors", "cuts", "busy", "lost"],
)
async def test_a_push_gets_over_it(place: Place, faults: list[Fault]) -> None:
    async with FaultProxy(place.registry.base, *faults).serving() as proxy:
        assert (await place.push(proxy.host))[-1] == {"status": "success"}
        assert all(fault.times == 0 for fault in faults)
        await place.assert_pushed(proxy.host)


async def test_an_expired_token_is_renewed(place: Place) -> None:
    signing.ensure(place.client._key)
    place.registry.tokens, place.registry.token_uses = set(), 5
    await place.push()
    assert len(place.registry.requests("GET", "/token")) >= 2
    await place.assert_pushed()


async def test_errors(place: Place) -> None:
    async def fails(name: str) -> tuple[list[str], str]:
        lines = []

        async def run() -> None:
            async for line in place.client.push(ModelName.parse(name), insecure=True):
                lines.append(line["status"])

        with pytest.raises(ApiError) as error:
            await run()
        return lines, error.value.message

    path = place.store.manifests.folder / "registry.ollama.ai/ns/none/latest"
    missing = f"open {path}: no such file or directory"
    assert await fails("ns/none") == (["retrieving manifest", "couldn't retrieve manifest"], missing)
    digest = add_model(place.store, "127.0.0.1:1/ns/m")[0]
    refused = f'Head "http://127.0.0.1:1/v2/ns/m/blobs/{digest}": dial tcp 127.0.0.1:1: connect: connection refused'
    assert await fails("127.0.0.1:1/ns/m") == (["retrieving manifest"], refused)
    full = f"{place.registry.host}/ns/m"
    add_model(place.store, full)
    place.store.blob_path(digest).unlink()
    assert (await fails(full))[1] == f"stat {place.store.blob_path(digest)}: no such file or directory"


async def test_a_damaged_blob_is_not_published(place: Place) -> None:
    full = ModelName.parse(f"{place.registry.host}/ns/m")
    digest = add_model(place.store, str(full))[0]
    place.store.blob_path(digest).write_bytes(BLOB[:-1])
    with pytest.raises(ApiError, match="is damaged"):
        [line async for line in place.client.push(full, insecure=True)]
    assert place.registry.manifests == {}


async def test_a_refusal_ends_a_push_at_once(place: Place) -> None:
    async with FaultProxy(place.registry.base, Fault("PUT .*digest=", 400, times=9)).serving() as proxy:
        with pytest.raises(ApiError) as error:
            await place.push(proxy.host)
        assert error.value.message == "400: not today"
        assert sum("digest=" in seen for seen in proxy.seen) == 1
