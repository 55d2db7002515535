"""Health, metrics and the description of the API, over HTTP."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from ollama_compat import keys, openapi, schema
from ollama_compat.app import create_app
from ollama_compat.settings import Settings

WITHOUT_BODY = {  # POST and DELETE routes that read no JSON object of their own
    ("post", "/api/me"),
    ("post", "/api/signout"),
    ("delete", "/api/user/keys/{key}"),
    ("post", "/api/experimental/web_search"),
    ("post", "/api/experimental/web_fetch"),
    ("post", "/api/blobs/{digest}"),
    ("post", "/v1/audio/transcriptions"),
}


async def samples(live: Any) -> dict[str, float]:
    """Every sample of /metrics by its name and the values of its labels."""
    status, text = await live.ask("GET", "/metrics")
    assert status == 200
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[" ".join((sample.name, *sample.labels.values()))] = sample.value
    return found


async def test_health(live: Any) -> None:
    assert await live.ask("GET", "/health") == (200, {"status": "ok"})
    assert (await live.ask("HEAD", "/health"))[0] == 200


async def test_an_answer_is_counted(live: Any) -> None:
    await live.post("/api/generate", model="demo-moe", prompt="say(one two three) cached()", raw=True)
    found = await samples(live)
    model = "demo-moe:latest"
    assert found[f"moellama_generated_tokens_total {model}"] == 3
    prompt = found[f"moellama_prompt_tokens_total {model}"]
    assert prompt > 1
    assert found[f"moellama_cached_tokens_total {model}"] == prompt - 1
    assert found[f"moellama_first_token_seconds_count {model}"] == 1
    assert found[f"moellama_tokens_per_second_count {model}"] == 1
    assert found["moellama_requests_total /api/generate 200"] == 1
    assert found["moellama_requests_in_progress"] == 1  # the question for the metrics itself
    assert found["moellama_queue_length"] == 0
    assert found[f"moellama_model_bytes planned {model}"] == 1000
    assert found[f"moellama_model_bytes resident {model}"] > 1 << 20
    assert found[f"moellama_cache_blocks {model} blank"] == 8
    assert found[f"moellama_sequences {model} running"] == 0


async def test_running_requests_and_those_whose_client_leaves(live: Any) -> None:
    body = {"model": "demo-moe", "prompt": "slow()", "raw": True}
    async with live.session.post("/api/generate", json=body) as response:
        await response.content.readline()
        found = await samples(live)
        assert found["moellama_sequences demo-moe:latest running"] == 1
        assert found["moellama_requests_in_progress"] == 2
        response.close()
    await live.until_running(0)
    found = await samples(live)
    assert found["moellama_requests_in_progress"] == 1
    assert found["moellama_requests_total /api/generate 499"] == 1


async def test_paths_of_strangers_make_no_series(live: Any) -> None:
    for path in ("/a", "/b", "/c"):
        await live.ask("GET", path)
    assert (await samples(live))["moellama_requests_total unknown 404"] == 3


async def test_openapi_document(live: Any) -> None:
    status, found = await live.ask("GET", "/openapi.json")
    assert (status, found["openapi"]) == (200, "3.1.0")
    chat = found["paths"]["/api/chat"]["post"]
    reference = chat["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    fields = found["components"]["schemas"][reference.rpartition("/")[2]]["properties"]
    assert fields["stream"] == {"type": "boolean", "default": True}
    message = fields["messages"]["items"]["properties"]
    assert message["content"] == {"type": "string"}
    assert message["images"]["items"] == {"type": "string", "contentEncoding": "base64"}
    assert message["tool_calls"]["items"]["properties"]["function"]["properties"]["name"] == {"type": "string"}
    assert found["paths"]["/api/blobs/{digest}"]["post"]["parameters"][0]["name"] == "digest"


def test_every_route_with_a_body_is_described() -> None:
    found = openapi.document(create_app(Settings()))
    operations = {(method, path) for path, each in found["paths"].items() for method in each}
    with_body = {key for key in operations if key[0] != "get"} - WITHOUT_BODY
    assert with_body == set(openapi.BODIES)
    assert all(each["summary"] for path in found["paths"].values() for each in path.values())


@pytest.mark.parametrize("kind", [schema.GenerateRequest, schema.CreateRequest])
def test_a_schema_has_every_field_of_its_declaration(kind: type[Any]) -> None:
    assert len(openapi.request_schema(kind)["properties"]) == len(dataclasses.fields(kind))


async def test_page(live: Any) -> None:
    async with live.session.get("/docs") as response:
        text = await response.text()
        assert response.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "script" not in response.headers["Content-Security-Policy"]
    assert "<code>/api/chat</code>" in text
    assert "<td>keep_alive</td>" in text


@pytest.mark.parametrize("header", [{"Authorization": "Bearer two"}, {"authorization": "bearer one"}, {"X-Api-Key": "one"}])
async def test_a_key_opens(start: Any, header: dict[str, str]) -> None:
    live = await start(api_keys=("one", "two"))
    assert (await live.ask("GET", "/api/tags", headers=header))[0] == 200


@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer three"}, {"Authorization": "one"}, {"X-Api-Key": ""}])
async def test_without_a_key(start: Any, header: dict[str, str]) -> None:
    live = await start(api_keys=("one", "two"))
    expected = {"error": "unauthorized: this server asks for an API key"}
    assert await live.ask("GET", "/api/tags", headers=header) == (401, expected)
    status, body = await live.ask("POST", "/v1/chat/completions", headers=header, json={})
    assert (status, body["error"]["message"]) == (401, expected["error"])
    status, body = await live.ask("POST", "/v1/messages", headers=header, json={})
    assert (status, body["error"]["type"]) == (401, "authentication_error")
    for path in ("/metrics", "/openapi.json", "/docs", "/nothing"):
        assert (await live.ask("GET", path, headers=header))[0] == 401


async def test_every_route_but_those_open_asks_for_a_key(start: Any) -> None:
    live = await start(api_keys=("one",))
    routes = [(route.method, route.resource.canonical) for route in create_app(Settings()).router.routes() if route.resource]
    assert len(routes) > 40
    for method, path in routes:
        if path not in keys.OPEN:
            async with live.session.request(method, path.replace("{", "").replace("}", "")) as response:
                assert response.status == 401, (method, path)


@pytest.mark.parametrize(
    "target",
    [
        "/health/../api/tags",
        "/api/tags?/health",
        "//api/tags",
        "/%61pi/tags",
        "/api/tags/",
        "/health/",
        "http://x/api/tags",
        "/api/tags;/health",
    ],
)
async def test_no_way_of_writing_a_path_opens_it(start: Any, target: str) -> None:
    live = await start(api_keys=("one",))
    reader, writer = await asyncio.open_connection(live.address.host, live.address.port)
    writer.write(f"GET {target} HTTP/1.1\r\nHost: localhost/health\r\nConnection: close\r\n\r\n".encode())
    async with asyncio.timeout(5):
        answer = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    assert answer.split()[1] in ("301", "307", "400", "401", "403")
    assert "models" not in answer


@pytest.mark.parametrize("path", ["/", "/health", "/api/version"])
async def test_routes_that_stay_open(start: Any, path: str) -> None:
    live = await start(api_keys=("one",))
    async with live.session.get(path) as response:
        assert response.status == 200


async def test_a_page_of_a_permitted_origin_may_ask_whether_it_may_send_its_key(start: Any) -> None:
    live = await start(api_keys=("one",))
    headers = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}
    async with aiohttp.ClientSession() as session, session.options(f"{live.address.url}/api/chat", headers=headers) as response:
        assert response.status == 204
        assert "Authorization" in response.headers["Access-Control-Allow-Headers"]
