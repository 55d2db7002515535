from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ollama_compat import wire

DATA = b"some bytes of a blob"
DIGEST = "sha256:" + hashlib.sha256(DATA).hexdigest()


async def load_demo(live: Any) -> None:
    """Puts the embedded model into the store."""
    assert (await live.post("/api/show", model="demo-moe"))[0] == 200


async def names(live: Any) -> list[str]:
    _, answer = await live.ask("GET", "/api/tags")
    return [model["name"] for model in answer["models"]]


async def test_an_empty_store(live: Any) -> None:
    assert await live.ask("GET", "/api/tags") == (200, {"models": []})
    assert await live.ask("GET", "/v1/models") == (200, {"object": "list", "data": None})
    async with live.session.head("/api/tags") as response:
        assert (response.status, response.headers["Content-Type"]) == (200, "application/json; charset=utf-8")


async def test_the_embedded_model_is_listed_once_it_was_asked_for(live: Any) -> None:
    await load_demo(live)
    _, answer = await live.ask("GET", "/api/tags")
    (model,) = answer["models"]
    assert model["name"] == model["model"] == "demo-moe:latest"
    assert len(model["digest"]) == 64
    assert model["details"]["quantization_level"] == "Q4_K_M"


async def test_openai_models(live: Any) -> None:
    await load_demo(live)
    _, answer = await live.ask("GET", "/v1/models")
    (model,) = answer["data"]
    assert (model["id"], model["object"], model["owned_by"]) == ("demo-moe:latest", "model", "library")
    _, one = await live.ask("GET", "/v1/models/demo-moe")
    assert one == model | {"id": "demo-moe"}
    status, answer = await live.ask("GET", "/v1/models/nope")
    error = {"message": "model 'nope:latest' not found", "type": "not_found_error", "param": None, "code": None}
    assert (status, answer) == (404, {"error": error})


@pytest.mark.parametrize("field", ["model", "name"])
async def test_show(live: Any, field: str) -> None:
    status, answer = await live.post("/api/show", **{field: "demo-moe", "model" if field == "name" else "name": ""})
    assert status == 200
    assert answer["model_info"]["general.architecture"] == "qwen3moe"
    assert set(answer["capabilities"]) == {"completion", "tools", "thinking"}


async def test_show_tells_where_a_load_would_put_a_model(live: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for, and where there is a card: then in the words of a loaded one, or of a plan that is made for it."""
    body = {"model": "demo-moe", "verbose": True}
    assert "placement" not in (await live.post("/api/show", **body))[1]
    (tmp_path / "driver").touch()
    monkeypatch.setattr("ollama_compat.explain._DRIVER", (tmp_path / "driver",))
    planned = (await live.post("/api/show", **body))[1]["placement"]
    assert planned.startswith("6 layers on the CPU") or "on GPU 0" in planned
    assert "placement" not in (await live.post("/api/show", model="demo-moe"))[1]
    await live.post("/api/generate", model="demo-moe")
    assert (await live.post("/api/show", **body))[1]["placement"] == "nowhere"


async def test_show_refusals(live: Any) -> None:
    assert await live.post("/api/show") == (400, {"error": "model is required"})
    assert await live.post("/api/show", model="nope") == (404, {"error": "model 'nope:latest' not found"})
    assert await live.post("/api/show", model="a b") == (400, {"error": "invalid model name"})


async def test_copy_and_delete(live: Any) -> None:
    await load_demo(live)
    assert await live.ask("POST", "/api/copy", json={"source": "demo-moe", "destination": "second"}) == (200, "")
    assert sorted(await names(live)) == ["demo-moe:latest", "second:latest"]
    assert await live.ask("DELETE", "/api/delete", json={"name": "second"}) == (200, "")
    assert await live.ask("DELETE", "/api/delete", json={"model": "second"}) == (404, {"error": "model 'second' not found"})
    assert await names(live) == ["demo-moe:latest"]


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({"source": "nope", "destination": "x"}, 404, 'model "nope" not found'),
        ({"source": "a b", "destination": "x"}, 400, 'source "a b" is invalid'),
        ({"source": "demo-moe", "destination": "x y"}, 400, 'destination "x y" is invalid'),
        ({}, 400, 'source "" is invalid'),
    ],
)
async def test_copy_refusals(live: Any, body: dict[str, str], status: int, error: str) -> None:
    assert await live.post("/api/copy", **body) == (status, {"error": error})


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({"model": "a b"}, 400, 'name "a b" is invalid'),
        ({}, 400, "model is required"),
        ({"model": "nope", "name": ""}, 404, "model 'nope' not found"),
    ],
)
async def test_delete_refusals(live: Any, body: dict[str, str], status: int, error: str) -> None:
    assert await live.ask("DELETE", "/api/delete", json=body) == (status, {"error": error})


async def test_an_embedded_model_that_was_deleted_is_back_when_it_is_named(live: Any) -> None:
    await load_demo(live)
    await live.ask("DELETE", "/api/delete", json={"model": "demo-moe"})
    assert await names(live) == []
    await load_demo(live)
    assert await names(live) == ["demo-moe:latest"]


async def head(live: Any, digest: str) -> int:
    async with live.session.head(f"/api/blobs/{digest}") as response:
        status: int = response.status
        return status


async def test_blobs(live: Any) -> None:
    assert await head(live, DIGEST) == 404
    assert await live.ask("POST", f"/api/blobs/{DIGEST}", data=DATA) == (201, "")
    assert await head(live, DIGEST) == 200
    assert await live.ask("POST", f"/api/blobs/{DIGEST}", data=b"ignored") == (200, "")


async def test_a_chunked_upload(live: Any) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for byte in DATA:
            yield bytes([byte])

    assert await live.ask("POST", f"/api/blobs/{DIGEST}", data=chunks()) == (201, "")


@pytest.mark.parametrize("digest", ["sha256:abcd", "md5:" + "0" * 32, "nope", "sha256:" + "g" * 64, "..%2F..%2Fetc%2Fpasswd"])
async def test_no_other_text_reaches_the_file_system(live: Any, digest: str) -> None:
    assert await live.ask("POST", f"/api/blobs/{digest}", data=DATA) in (
        (400, {"error": "invalid digest format"}),
        (404, "404 page not found"),
    )
    assert await head(live, digest) in (400, 404)
    assert not list(live.services.store.root.rglob("*passwd*"))


async def test_another_blob_than_announced_leaves_nothing(live: Any) -> None:
    announced = "sha256:" + "1" * 64
    status, answer = await live.ask("POST", f"/api/blobs/{announced}", data=DATA)
    assert (status, answer) == (400, {"error": f'digest mismatch, expected "{announced}", got "{DIGEST}"'})
    assert [path.name for path in live.services.store.blobs.folder.iterdir()] == []
    assert live.services.store.blobs.journal.names() == []


async def test_an_upload_that_stalls_leaves_nothing(live: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "BODY_IDLE_SECONDS", 0.05)
    reader, writer = await asyncio.open_connection(live.address.host, live.address.port)
    writer.write(f"POST /api/blobs/{DIGEST} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20\r\n\r\nsome".encode())
    assert b" 408 " in await reader.readline()
    writer.close()
    assert [path.name for path in live.services.store.blobs.folder.iterdir()] == []
    assert live.services.store.blobs.journal.names() == []


async def test_create_streams_its_progress(live: Any) -> None:
    status, lines = await live.post("/api/create", model="mine", **{"from": "demo-moe"}, system="Be brief.")
    assert status == 200
    assert lines[-1] == {"status": "success"}
    assert await live.post("/api/create", model="mine", **{"from": "demo-moe"}, stream=False) == (200, {"status": "success"})
    assert "mine:latest" in await names(live)


@pytest.mark.parametrize("streamed", [True, False])
async def test_create_refusals(live: Any, streamed: bool) -> None:
    for body, error, kind in (
        ({"model": "a b", "from": "demo-moe"}, "invalid model name", "application/json; charset=utf-8"),
        ({"model": "m"}, "neither 'from' or 'files' was specified", "application/json"),
    ):
        async with live.session.post("/api/create", json=body | {"stream": streamed}) as response:
            assert (response.status, await response.json()) == (400, {"error": error})
            assert response.headers["Content-Type"] == kind


REFUSED = "dial tcp 127.0.0.1:1: connect: connection refused"


async def test_pull_without_a_registry(live: Any) -> None:
    assert await live.post("/api/pull", model="") == (400, {"error": "invalid model name"})
    status, lines = await live.post("/api/pull", model="demo-moe")
    assert (status, lines) == (200, [{"status": "pulling manifest"}, {"status": "success"}])
    closed = {"insecure": True, "name": "127.0.0.1:1/library/nope"}
    error = {"error": f'pull model manifest: Get "http://127.0.0.1:1/v2/library/nope/manifests/latest": {REFUSED}'}
    assert await live.post("/api/pull", **closed) == (200, [{"status": "pulling manifest"}, error])
    assert await live.post("/api/pull", **closed, stream=False) == (500, error)


async def test_a_base_that_is_missing_is_pulled(live: Any) -> None:
    base = {"from": "127.0.0.1:1/library/nope"}
    error = {"error": f'pull model manifest: Get "https://127.0.0.1:1/v2/library/nope/manifests/latest": {REFUSED}'}
    assert await live.post("/api/create", model="m", **base, stream=False) == (500, error)
    assert await live.post("/api/create", model="m", **base) == (200, [{"status": "pulling manifest"}, error])


async def test_push_without_a_registry(live: Any) -> None:
    assert await live.post("/api/push", model="") == (400, {"error": "model is required"})
    path = live.services.store.manifests.folder / "registry.ollama.ai/a/b/latest"
    error = {"error": f"open {path}: no such file or directory"}
    lines = [{"status": "retrieving manifest"}, {"status": "couldn't retrieve manifest"}, error]
    assert await live.post("/api/push", model="a/b") == (200, lines)
    assert await live.post("/api/push", model="a/b", stream=False) == (500, error)


async def test_push_of_what_is_no_name(live: Any) -> None:
    error = {"error": "unqualified name: a/!MISSING!/b:latest"}
    lines = [{"status": "retrieving manifest"}, {"status": "couldn't retrieve manifest"}, error]
    assert await live.post("/api/push", model="a//b") == (200, lines)
    _, answer = await live.post("/api/push", model="a b:c", stream=False)
    assert answer == {"error": "unqualified name: registry.ollama.ai/library/a b:c"}


async def test_a_model_that_is_elsewhere(live: Any) -> None:
    assert await live.post("/api/create", model="stub", remote_host="https://ollama.com", stream=False, **{"from": "x"})
    missing = {"error": 'model "stub" not found, try pulling it first'}
    assert await live.post("/api/embed", model="stub", input="x") == (404, missing)
    assert await live.post("/api/embeddings", model="stub", prompt="x") == (404, missing)
    wrong = {"error": 'option "top_k" must be of type integer'}
    assert await live.post("/api/embed", model="stub", options={"top_k": "x"}) == (500, wrong)
    message = "ollama cloud is disabled: remote model details are unavailable"
    error = {"message": message, "type": "api_error", "param": None, "code": None}
    for name in ("stub", "stub:local"):
        assert await live.ask("GET", f"/v1/models/{name}") == (403, {"error": error})
    assert await live.ask("GET", "/v1/models/stub:cloud") == (403, {"error": message})


async def test_embedding_an_unfit_model_is_a_typed_error(live: Any) -> None:
    assert await live.post("/api/embed", model="demo-moe", input="x") == (501, {"error": "this model cannot embed"})
    assert await live.post("/api/embeddings", model="demo-moe", prompt="x") == (500, {"error": "this model cannot embed"})


async def test_embedding_nothing_loads(live: Any) -> None:
    for value in ("", [], None):
        assert await live.post("/api/embed", model="demo-moe", input=value) == (200, {"model": "demo-moe", "embeddings": []})
    assert await live.post("/api/embeddings", model="demo-moe") == (200, {"embedding": []})


@pytest.mark.parametrize("value", [5, True, {"a": 1}, ["a", 1], [[1]]])
async def test_embedding_something_else(live: Any, value: Any) -> None:
    assert await live.post("/api/embed", model="demo-moe", input=value) == (400, {"error": "invalid input type"})


async def test_embedding_with_a_missing_model(live: Any) -> None:
    assert await live.post("/api/embed", model="", input="x") == (404, {"error": "model '' not found"})
    missing = (404, {"error": 'model "nope" not found, try pulling it first'})
    assert await live.post("/api/embed", model="nope", input="x") == missing
    assert await live.post("/api/embeddings", model="nope", prompt="x") == missing
