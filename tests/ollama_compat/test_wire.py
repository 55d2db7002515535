"""Requests that real clients were seen to send: each gets an answer, or the error that Ollama has for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

REQUESTS = [json.loads(line) for line in (Path(__file__).resolve().parents[1] / "fixtures/wire.jsonl").read_text().splitlines()]
MODEL = "demo-moe"
CLOSED = "http://127.0.0.1:1/library/x"  # nobody listens there
EMBEDDING = ("/api/embed", "/api/embeddings", "/v1/embeddings")  # the runner of these tests cannot
CANNOT = ("image", "multimodal", "mmproj", "does not support insert")  # the embedded model neither sees nor fills gaps


def prepared(body: Any, target: str) -> Any:
    """The body, about a model that there is."""
    if not isinstance(body, dict):
        return body
    if target == "/api/pull":
        return body | {key: CLOSED for key in ("model", "name") if body.get(key)} | {"insecure": True}
    named = {key: MODEL for key in ("model", "name", "source", "from") if body.get(key) and target != "/api/delete"}
    return body | (named | {"model": "made"} if target == "/api/create" else named)


def may_fail(target: str, status: int, text: str) -> bool:
    if target in EMBEDDING:
        return "cannot embed" in text
    if target in ("/api/delete", "/api/pull"):
        return status in (404, 500)
    return status in (400, 500) and any(word in text.lower() for word in CANNOT)


@pytest.mark.parametrize("number", range(len(REQUESTS)), ids=[f"{entry['client']} {entry['target']}" for entry in REQUESTS])
async def test_a_recorded_request(number: int, live: Any) -> None:
    entry = REQUESTS[number]
    target = entry["target"].replace("qwen3:4b", MODEL)
    path = target.partition("?")[0]
    await live.post("/api/show", model=MODEL)  # it is in the store from its first use on
    body = prepared(entry["body"], path)
    given = {} if body is None else {"data": json.dumps(body), "headers": {"Content-Type": "application/json"}}
    timeout = aiohttp.ClientTimeout(total=30)
    async with live.session.request(entry["method"], target, timeout=timeout, **given) as answer:
        text = await answer.text()
        assert answer.status < 300 or may_fail(path, answer.status, text), (answer.status, text[:500])
        assert answer.status < 300 or json.loads(text)["error"]
