"""Pulls from a registry in memory: progress, resuming, faults, tokens, redirects."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import json
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fake_registry import FakeRegistry, serving
from fault_proxy import Fault, FaultProxy
from store_files import assert_sound

from ollama_compat import golookup
from ollama_compat.errors import ApiError
from ollama_compat.registry import Patience, Registry, download, partial, signing
from ollama_compat.store import Store
from ollama_compat.store.names import ModelName

BLOB = random.Random(1).randbytes(600_000)
SMALL = b"{{ .Prompt }}"
PART = "GET .*blobs.* bytes=(?!0-0$)"  # the first byte alone is asked for to find out where a blob is
HASTE = Patience(stall=0.5, first_wait=0.01, busy_wait=0.05)


@dataclasses.dataclass
class Place:
    """A registry with one model, and a store that pulls from it."""

    registry: FakeRegistry
    store: Store
    client: Registry

    async def pull(self, name: str = "", **options: Any) -> list[dict[str, Any]]:
        name = name or f"{self.registry.host}/ns/m"
        return [line async for line in self.client.pull(ModelName.parse(name), **{"insecure": True, **options})]

    async def fails(self, name: str = "", **options: Any) -> str:
        with pytest.raises(ApiError) as error:
            await self.pull(name, **options)
        assert error.value.status == 500
        return error.value.message

    def files(self) -> set[str]:
        folder = self.store.blobs.folder
        return {path.name for path in folder.iterdir()} if folder.is_dir() else set()

    def assert_pulled(self, host: str = "") -> None:
        name = ModelName.parse(f"{host or self.registry.host}/ns/m")
        assert self.store.manifests.path(name).read_bytes() == self.registry.manifests["ns/m:latest"]
        assert_sound(self.store)
        assert self.files() == {digest.replace(":", "-") for digest in self.store.manifests.read(name).digests}
        assert self.store.blobs.journal.names() == []


@pytest.fixture
async def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    monkeypatch.setattr(partial, "MIN_PART", 100_000)
    registry = FakeRegistry()
    registry.add_model("ns/m:latest", ("model", BLOB), ("template", SMALL))
    store = Store(tmp_path / "models")
    async with serving(registry):
        client = Registry(store, tmp_path / "home" / "id_ed25519", {}, HASTE)
        try:
            yield Place(registry, store, client)
        finally:
            await client.close()


@contextlib.asynccontextmanager
async def behind(place: Place, *faults: Fault) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(place.registry.base, *faults).serving() as proxy:
        yield proxy


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def bar(data: bytes) -> dict[str, Any]:
    return {"status": f"pulling {digest(data)[7:19]}", "digest": digest(data), "total": len(data), "completed": len(data)}


# ---------------------------------------------------------------- the usual


async def test_progress_is_told_as_by_ollama(place: Place) -> None:
    lines = await place.pull()
    assert lines[0] == {"status": "pulling manifest"}
    last = {line["digest"]: line for line in lines if "digest" in line}
    assert list(last.values()) == [bar(BLOB), bar(SMALL), bar(b'{"model_format":"gguf"}')]
    assert [line["status"] for line in lines[-3:]] == ["verifying sha256 digest", "writing manifest", "success"]
    place.assert_pulled()
    assert len(place.registry.requests("GET", digest(BLOB))) == 1 + 6
    assert place.registry.requests("GET", "manifests")[0]["User-Agent"].startswith("ollama/")


async def test_what_is_there_is_not_fetched_again(place: Place) -> None:
    await place.pull()
    place.registry.seen.clear()
    lines = await place.pull()
    assert [line["status"].split()[0] for line in lines] == [
        "pulling", "pulling", "pulling", "pulling", "verifying", "writing", "success",
    ]  # fmt: skip
    assert [path for _, path, _ in place.registry.seen] == ["/v2/ns/m/manifests/latest"]


async def test_a_new_version_replaces_the_old_one(place: Place) -> None:
    await place.pull()
    place.registry.add_model("ns/m:latest", ("model", BLOB[::-1]), ("template", SMALL))
    lines = await place.pull()
    assert [line["status"] for line in lines[-3:]] == ["writing manifest", "removing unused layers", "success"]
    place.assert_pulled()


async def test_a_damaged_blob_is_fetched_again(place: Place) -> None:
    await place.pull()
    place.store.blob_path(digest(BLOB)).write_bytes(BLOB[:-1] + b"x")
    await place.pull()
    place.assert_pulled()


async def test_a_foreign_blob_is_hashed_and_not_fetched(place: Place) -> None:
    place.store.blobs.folder.mkdir(parents=True)
    place.store.blob_path(digest(BLOB)).write_bytes(BLOB)
    await place.pull()
    place.assert_pulled()
    assert place.registry.requests("GET", digest(BLOB)) == []


async def test_an_empty_blob(place: Place) -> None:
    place.registry.add_model("ns/m:latest", ("model", BLOB), ("license", b""))
    await place.pull()
    place.assert_pulled()


async def test_a_registry_without_ranges(place: Place) -> None:
    place.registry.ranges = False
    await place.pull()
    place.assert_pulled()


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("{host}/ns/none", "pull model manifest: file does not exist"),
        (
            "127.0.0.1:1/library/x",
            'pull model manifest: Get "http://127.0.0.1:1/v2/library/x/manifests/latest": '
            "dial tcp 127.0.0.1:1: connect: connection refused",
        ),
        (
            "nowhere.invalid/library/x",
            'pull model manifest: Get "http://nowhere.invalid/v2/library/x/manifests/latest": '
            "dial tcp: lookup nowhere.invalid on some:53: no such host",
        ),
        (
            "a..b/c/d",
            'pull model manifest: Get "http://a..b/v2/c/d/manifests/latest": dial tcp: lookup a..b on some:53: no such host',
        ),
        (
            "1.2.3/c/d",
            'pull model manifest: Get "http://1.2.3/v2/c/d/manifests/latest": dial tcp: lookup 1.2.3: no such host',
        ),
        (
            "host.invalid:abc/c/d",
            'pull model manifest: parse "http://host.invalid:abc/v2/c/d/manifests/latest": invalid port ":abc" after host',
        ),
        (
            "host.invalid:99999/c/d",
            'pull model manifest: Get "http://host.invalid:99999/v2/c/d/manifests/latest": dial tcp: address 99999: invalid port',
        ),
    ],
)
async def test_errors(place: Place, name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golookup, "failure", lambda host, error: f"lookup {host} on some:53: no such host")
    assert await place.fails(name.format(host=place.registry.host)) == message


async def test_plain_http_is_only_spoken_when_asked_for(place: Place) -> None:
    assert await place.fails(insecure=False) == (
        f'pull model manifest: Get "https://{place.registry.host}/v2/ns/m/manifests/latest": '
        "http: server gave HTTP response to HTTPS client"
    )


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        (b"<html>", "pull model manifest: invalid character '<' looking for beginning of value"),
        (b'{"layers":[{"digest":"../../etc/passwd","size":1}]}', "pull model manifest: invalid digest format"),
        (b'{"layers":[{"digest":"sha256:0"}]}', "pull model manifest: invalid digest format"),
        (b'{"layers":[{"mediaType":"x"}]}', "ns/m: digest is empty"),
        (
            json.dumps({"layers": [{"mediaType": "application/vnd.ollama.image.tensor", "digest": digest(b"")}]}).encode(),
            "this model requires MLX support, but the MLX runtime is not available",
        ),
        (json.dumps({"layers": [{"digest": digest(b"lost"), "size": 4}]}).encode(), "file does not exist"),
    ],
)
async def test_manifests_that_are_no_good(place: Place, manifest: bytes, message: str) -> None:
    place.registry.manifests["ns/m:latest"] = manifest
    assert await place.fails() == message
    assert place.store.names() == []


async def test_an_error_of_the_registry_is_passed_on(place: Place) -> None:
    async with behind(place, Fault("manifests", 412, times=9)) as proxy:
        assert await place.fails(f"{proxy.host}/ns/m") == "pull model manifest: 412: not today"
        assert len(proxy.seen) == 1


# ---------------------------------------------------------------- bad days


@pytest.mark.parametrize(
    "faults",
    [
        [Fault(PART, "cut", times=5, after=30_000)],
        [Fault(PART, "stall", times=2, after=50_000)],
        [Fault(PART, "shift", times=3)],
        [Fault("GET .*blobs", 503, times=3), Fault("manifests", 429, times=2, headers={"Retry-After": "0"})],
        [Fault("GET .*bytes=0-0", 500, times=2), Fault(PART, 500, times=2)],
    ],
    ids=["cuts", "stalls", "wrong ranges", "busy", "broken"],
)
async def test_a_pull_gets_over_it(place: Place, faults: list[Fault]) -> None:
    async with behind(place, *faults) as proxy:
        lines = await place.pull(f"{proxy.host}/ns/m")
        assert lines[-1] == {"status": "success"}
        assert all(fault.times == 0 for fault in faults)
        place.assert_pulled(proxy.host)


async def test_what_came_before_a_cut_is_not_fetched_again(place: Place) -> None:
    async with behind(place, Fault(PART, "cut", times=6, after=65_536)) as proxy:
        await place.pull(f"{proxy.host}/ns/m")
        assert proxy.sent < len(BLOB) * 1.2


async def test_wrong_bytes_are_no_model(place: Place) -> None:
    async with behind(place, Fault(PART, "flip")) as proxy:
        head = f"digest mismatch, file must be downloaded again: want {digest(BLOB)}, got sha256:"
        assert (await place.fails(f"{proxy.host}/ns/m")).startswith(head)
        assert (place.store.names(), place.files(), place.store.blobs.journal.names()) == ([], set(), [])
        await place.pull(f"{proxy.host}/ns/m")
        place.assert_pulled(proxy.host)


async def test_a_server_that_never_sends_is_given_up(place: Place) -> None:
    async with behind(place, Fault(PART, "cut", times=1 << 30)) as proxy:
        assert (await place.fails(f"{proxy.host}/ns/m")).startswith("max retries exceeded: ")
        assert place.store.names() == []


async def test_a_full_disk_ends_a_pull_at_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        assert (await place.fails()).endswith("-partial: no space left on device")
    await place.pull()
    place.assert_pulled()


# ---------------------------------------------------------------- resuming and sharing


async def test_a_pull_goes_on_where_it_was_left(place: Place) -> None:
    async with behind(place, Fault(PART, "stall", times=6, after=90_000)) as proxy:
        name = f"{proxy.host}/ns/m"
        patient = Registry(place.store, Path("/nowhere"), {}, Patience())
        first = dataclasses.replace(place, client=patient)
        task = asyncio.create_task(first.pull(name))
        async with asyncio.timeout(20):
            while proxy.sent < 6 * 90_000:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await patient.close()
        left = place.store.blobs.path(digest(BLOB)).name + "-partial"
        assert {name for name in place.files() if "partial" in name} == {left, *(f"{left}-{n}" for n in range(6))}
        before = proxy.sent
        await place.pull(name)
        assert proxy.sent - before < len(BLOB) / 5
        place.assert_pulled(proxy.host)


async def test_a_fast_connection_is_asked_for_many_parts_at_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_FAST", 0.0)
    monkeypatch.setattr(download, "_RUN", 400_000)
    await place.pull()
    asked = [headers["Range"] for headers in place.registry.requests("GET", digest(BLOB))]
    assert asked == ["bytes=0-0", "bytes=0-99999", "bytes=100000-499999", "bytes=500000-599999"]
    place.assert_pulled()


@pytest.mark.parametrize("kind", ["cut", "stall"])
async def test_many_parts_at_once_go_on_in_the_middle(place: Place, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(download, "_FAST", 0.0)
    async with behind(place, Fault(PART + "100000-", kind, after=250_000)) as proxy:
        await place.pull(f"{proxy.host}/ns/m")
        begins = [int(line.rpartition("=")[2].partition("-")[0]) for line in proxy.seen if line.endswith("-599999")]
        assert begins[0] == 100_000
        assert 100_000 < begins[1] <= 350_000
        place.assert_pulled(proxy.host)


def write_partial(place: Place, data: bytes, *records: dict[str, int]) -> None:
    """What an Ollama leaves."""
    place.store.blobs.folder.mkdir(parents=True)
    path = place.store.blob_path(digest(BLOB))
    path.with_name(f"{path.name}-partial").write_bytes(data)
    for number, record in enumerate(records):
        path.with_name(f"{path.name}-partial-{number}").write_text(json.dumps({"N": number, **record}))


async def test_a_download_of_ollama_is_gone_on_with(place: Place) -> None:
    half = BLOB[:300_000] + bytes(300_000)
    write_partial(
        place, half, {"Offset": 0, "Size": 350_000, "Completed": 300_000}, {"Offset": 350_000, "Size": 250_000, "Completed": 0}
    )
    await place.pull()
    asked = [headers["Range"] for headers in place.registry.requests("GET", digest(BLOB))]
    assert asked[0] == "bytes=0-0"
    assert sorted(asked[1:]) == ["bytes=300000-349999", "bytes=350000-599999"]
    place.assert_pulled()


@pytest.mark.parametrize(
    "records",
    [
        [{"Offset": 0, "Size": 600_000, "Completed": 300_000}],
        [{"Offset": 0, "Size": 400_000, "Completed": 1}, {"Offset": 200_000, "Size": 400_000, "Completed": 1}],
        [{"Offset": 100_000, "Size": 1 << 62, "Completed": 5}, {"Offset": -1, "Size": 7, "Completed": 9}],
    ],
    ids=["wrong bytes", "overlapping", "nonsense"],
)
async def test_a_damaged_download_is_begun_again(place: Place, records: list[dict[str, int]]) -> None:
    write_partial(place, bytes(len(BLOB)), *records)
    await place.pull()
    place.assert_pulled()


async def test_records_without_their_file_are_not_believed(place: Place) -> None:
    write_partial(place, b"", {"Offset": 0, "Size": 600_000, "Completed": 600_000})
    await place.pull()
    place.assert_pulled()


async def test_many_callers_share_one_transfer(place: Place) -> None:
    async with behind(place, Fault(PART, "stall", after=10)) as proxy:
        tasks = [asyncio.create_task(place.pull(f"{proxy.host}/ns/m")) for _ in range(20)]
        await asyncio.sleep(0.15)
        for task in tasks[::2]:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(lines, list) for lines in done] == [False, True] * 10
        assert proxy.sent < 1.2 * len(BLOB)
        place.assert_pulled(proxy.host)


async def test_the_last_caller_ends_the_transfer(place: Place) -> None:
    async with behind(place, Fault(PART, "stall", times=99)) as proxy:
        tasks = [asyncio.create_task(place.pull(f"{proxy.host}/ns/m")) for _ in range(3)]
        await asyncio.sleep(0.1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        seen = len(proxy.seen)
        await asyncio.sleep(0.5)
        assert len(proxy.seen) == seen


# ---------------------------------------------------------------- tokens and redirects


async def test_a_token_is_asked_for_with_the_key(place: Place) -> None:
    signing.ensure(place.client._key)
    place.registry.tokens = set()
    await place.pull()
    place.assert_pulled()
    assert len(place.registry.requests("GET", "/token")) == 1


async def test_an_expired_token_is_renewed(place: Place) -> None:
    signing.ensure(place.client._key)
    place.registry.tokens, place.registry.token_uses = set(), 4
    await place.pull()
    place.assert_pulled()
    assert len(place.registry.requests("GET", "/token")) == 2


async def test_a_token_that_is_no_good(place: Place) -> None:
    signing.ensure(place.client._key)
    place.registry.tokens, place.registry.token_uses = set(), 0
    async with behind(place, Fault("manifests", 401, times=9, headers={"WWW-Authenticate": ""})) as proxy:
        message = await place.fails(f"{proxy.host}/ns/m")
        assert message == f'pull model manifest: realm host "" does not match original host "{proxy.host}"'


async def test_the_key_goes_to_no_other_host(place: Place) -> None:
    signing.ensure(place.client._key)
    challenge = 'Bearer realm="http://127.0.0.1:1/token",service="s",scope="repository:x:pull"'
    async with behind(place, Fault("manifests", 401, times=9, headers={"WWW-Authenticate": challenge})) as proxy:
        message = await place.fails(f"{proxy.host}/ns/m")
        assert message == f'pull model manifest: realm host "127.0.0.1:1" does not match original host "{proxy.host}"'


async def test_a_redirect_takes_no_token_along(place: Place) -> None:
    signing.ensure(place.client._key)
    place.registry.tokens = set()
    async with serving(FakeRegistry(blobs=place.registry.blobs)) as storage:  # asserts that no token comes
        place.registry.redirect = storage.base
        await place.pull()
        place.assert_pulled()
        assert len(storage.requests("GET", digest(BLOB))) == 1 + 6
        assert len(place.registry.requests("GET", digest(BLOB))) == 1


async def test_a_redirect_to_what_can_be_no_host(place: Place) -> None:
    place.registry.redirect = "http://a..b"
    assert "dial tcp: lookup a..b: no such host" in await place.fails()


async def test_a_signed_address_may_expire(place: Place) -> None:
    async with serving(FakeRegistry(blobs=place.registry.blobs)) as storage:
        place.registry.redirect = storage.base
        async with FaultProxy(storage.base, Fault("GET /storage.*bytes=[1-5]", 403, times=2)).serving() as proxy:
            place.registry.redirect = proxy.base
            await place.pull()
            place.assert_pulled()
