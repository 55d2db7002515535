from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from ollama_compat.compression import MOST, inflate
from ollama_compat.errors import BadRequest

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

TEXT = b'{"model":"demo-moe"}' * 50


def test_what_comes_out() -> None:
    assert inflate(zstd.compress(TEXT)) == TEXT
    assert inflate(zstd.compress(TEXT) + zstd.compress(b"more")) == TEXT + b"more"
    assert inflate(b"") == b""


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (TEXT, "invalid input: magic number mismatch"),
        (b"{}", "unexpected EOF"),
        (zstd.compress(TEXT)[:-3], "unexpected EOF"),
        (zstd.compress(TEXT) + b"x", "unexpected EOF"),
        (zstd.compress(TEXT) + b"more", "invalid input: magic number mismatch"),
        (zstd.compress(bytes(MOST + 1)), "http: request body too large"),
        (zstd.compress(bytes(MOST)) + zstd.compress(b"x"), "http: request body too large"),
    ],
    ids=["no frame", "too short", "cut", "followed by a byte", "followed by something", "too long", "too long in two frames"],
)
def test_what_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        inflate(body)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/responses", {"input": "say(one two)"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "say(one two)"}]}),
        ("/v1/messages", {"messages": [{"role": "user", "content": "say(one two)"}], "max_tokens": 9}),
    ],
)
async def test_over_http(live: Any, path: str, fields: dict[str, Any]) -> None:
    body = zstd.compress(json.dumps({"model": "demo-moe"} | fields).encode())
    headers = {"Content-Encoding": "zstd"}
    status, answer = await live.ask("POST", path, data=body, headers=headers)
    assert status == 200
    assert "one two" in json.dumps(answer)
    status, answer = await live.ask("POST", path, data=b"{}", headers=headers)
    assert (status, answer) == (400, {"error": "unexpected EOF"})


async def test_the_native_routes_do_not_look(live: Any) -> None:
    headers = {"Content-Encoding": "zstd"}
    assert (await live.ask("POST", "/api/show", data=b'{"model":"demo-moe"}', headers=headers))[0] == 200
