from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ollama_compat import app, golookup, serve, wire
from ollama_compat.services import SERVICES
from ollama_compat.settings import Address, Settings
from ollama_compat.store import Store


async def raw(live: Any, text: str) -> str:
    """The head of the answer to a request that is written by hand."""
    reader, writer = await asyncio.open_connection(live.address.host, live.address.port)
    try:
        writer.write(text.replace("\n", "\r\n").encode())
        async with asyncio.timeout(5):
            return (await reader.readuntil(b"\r\n\r\n")).decode()
    finally:
        writer.close()
        await writer.wait_closed()


async def test_the_greeting(live: Any) -> None:
    assert await live.ask("GET", "/") == (200, "Ollama is running")
    async with live.session.head("/") as response:
        assert (response.status, response.headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
        assert "Server" not in response.headers


async def test_version_and_status(live: Any) -> None:
    assert await live.ask("GET", "/api/version") == (200, {"version": "0.33.0"})
    assert await live.ask("GET", "/api/status") == (200, {"cloud": {"disabled": True, "source": "none"}})
    assert await live.ask("GET", "/api/%76ersion") == (200, {"version": "0.33.0"})


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/nope"), ("POST", "/nope"), ("GET", "/api"), ("GET", "/API/TAGS"), ("POST", "/api/blobs/")]
)
async def test_unknown_paths(live: Any, method: str, path: str) -> None:
    async with live.session.request(method, path) as response:
        assert (response.status, response.headers["Content-Type"], await response.text()) == (
            404,
            "text/plain",
            "404 page not found",
        )


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/api/chat", "POST"),
        ("POST", "/api/tags", "HEAD, GET"),
        ("PUT", "/", "HEAD, GET"),
        ("HEAD", "/api/ps", "GET"),
        ("POST", "/api/delete", "DELETE"),
        ("GET", "/api/blobs/sha256:x", "HEAD, POST"),
        ("OPTIONS", "/api/chat", "POST"),
    ],
)
async def test_wrong_methods(live: Any, method: str, path: str, allow: str) -> None:
    async with live.session.request(method, path) as response:
        assert (response.status, response.headers["Allow"], response.headers["Content-Type"]) == (405, allow, "text/plain")
        assert await response.text() == ("" if method == "HEAD" else "405 method not allowed")


@pytest.mark.parametrize(
    ("method", "path", "status", "location"),
    [
        ("GET", "/api/tags/", 301, "/api/tags"),
        ("POST", "/api/chat/?x=1", 307, "/api/chat?x=1"),
        ("GET", "//api//tags", 307, "/api/tags"),
        ("GET", "/api/./../api/version", 307, "/api/version"),
    ],
)
async def test_paths_are_put_right(live: Any, method: str, path: str, status: int, location: str) -> None:
    answer = await raw(live, f"{method} {path} HTTP/1.1\nHost: localhost\nConnection: close\n\n")
    assert answer.startswith(f"HTTP/1.1 {status} ")
    assert f"\r\nLocation: {location}\r\n" in answer


@pytest.mark.parametrize(
    ("origin", "allowed"), [("http://localhost:3000", True), ("app://x", True), ("https://example.com", False), ("null", False)]
)
async def test_origins(live: Any, origin: str, allowed: bool) -> None:
    for path, status in (("/api/version", 200), ("/nope", 404)):
        async with live.session.get(path, headers={"Origin": origin}) as response:
            assert response.status == (status if allowed else 403)
            assert response.headers.get("Access-Control-Allow-Origin") == (origin if allowed else None)
            assert response.headers.get("Vary") == ("Origin" if allowed else None)


async def test_a_refused_page_changes_nothing(live: Any) -> None:
    body = json.dumps({"source": "demo-moe", "destination": "copied"})
    async with live.session.post(
        "/api/copy", data=body, headers={"Origin": "https://evil.example", "Content-Type": "text/plain"}
    ) as response:
        assert (response.status, await response.text()) == (403, "")
    assert await live.ask("GET", "/api/tags") == (200, {"models": []})


async def test_the_own_page_needs_no_permission(live: Any) -> None:
    async with live.session.get("/api/version", headers={"Origin": live.address.url}) as response:
        assert response.status == 200
        assert "Access-Control-Allow-Origin" not in response.headers


async def test_preflight(live: Any) -> None:
    asked = {
        "Origin": "http://localhost:1",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    async with live.session.options("/api/chat", headers=asked) as response:
        assert response.status == 204
        assert response.headers["Access-Control-Allow-Origin"] == "http://localhost:1"
        assert "Authorization,Content-Type" in response.headers["Access-Control-Allow-Headers"]
        assert response.headers["Access-Control-Max-Age"] == "43200"
        assert response.headers.getall("Vary") == ["Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers"]
    async with live.session.options("/api/chat", headers=asked | {"Origin": "https://evil.example"}) as response:
        assert (response.status, response.headers["Allow"]) == (403, "POST")


async def test_origins_may_be_opened_to_all(start: Callable[..., Any]) -> None:
    live = await start(origins=("*",))
    async with live.session.get("/api/version", headers={"Origin": "https://anything"}) as response:
        assert response.headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize(
    ("host", "status"), [("localhost", 200), ("192.168.1.1:80", 200), ("box.local", 200), ("evil.example", 403)]
)
async def test_hosts(live: Any, host: str, status: int) -> None:
    async with live.session.get("/api/version", headers={"Host": host}) as response:
        assert response.status == status


@pytest.mark.parametrize("hosts", ["", "Host: localhost\nHost: localhost\n"])
async def test_one_host_header_is_needed(live: Any, hosts: str) -> None:
    assert " 400 " in (await raw(live, f"GET / HTTP/1.1\n{hosts}Connection: close\n\n")).partition("\n")[0]


async def test_http_1_0_needs_none(live: Any) -> None:
    assert (await raw(live, "GET / HTTP/1.0\n\n")).startswith("HTTP/1.0 200 ")


async def test_the_content_type_of_a_request_does_not_matter(live: Any) -> None:
    for kind in ("application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x"):
        answer = await live.ask("POST", "/api/generate", data=b'{"model":"nope","prompt":"x"}', headers={"Content-Type": kind})
        assert answer == (404, {"error": "model 'nope' not found"})


async def test_bodies_are_not_inflated(live: Any) -> None:
    status, answer = await live.ask("POST", "/api/chat", data=b"\x1f\x8b\x08", headers={"Content-Encoding": "gzip"})
    assert (status, answer) == (400, {"error": "invalid character '\\x1f' looking for beginning of value"})


async def test_a_body_beyond_the_limit_is_refused(live: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_JSON", 1000)
    monkeypatch.setattr(wire.read_body, "__defaults__", (1000,))
    assert (await live.ask("POST", "/api/chat", data=b" " * 1001))[0] == 413

    async def endless() -> Any:
        while True:
            yield b" " * 100

    assert (await live.ask("POST", "/api/chat", data=endless()))[0] == 413


async def test_a_body_that_stalls_is_given_up(live: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "BODY_IDLE_SECONDS", 0.05)
    answer = await raw(live, 'POST /api/chat HTTP/1.1\nHost: localhost\nContent-Length: 100\nConnection: close\n\n{"model":')
    assert answer.startswith("HTTP/1.1 408 ")


async def test_a_large_body_is_decoded_all_the_same(live: Any) -> None:
    body = io.BytesIO(json.dumps({"model": "nope", "suffix": "x" * (1 << 20)}).encode())
    status, answer = await live.ask("POST", "/api/generate", data=body)
    assert (status, answer) == (404, {"error": "model 'nope' not found"})


async def test_the_cloud_is_off(live: Any) -> None:
    assert await live.ask("POST", "/api/experimental/web_search") == (400, {"error": "missing request body"})
    answer = await live.post("/api/experimental/web_fetch", url="https://x")
    assert answer == (403, {"error": "ollama cloud is disabled: web fetch is unavailable"})
    assert (await live.ask("POST", "/api/me"))[0] == 503
    assert (await live.ask("POST", "/api/signout"))[0] == 401


async def test_a_bug_is_a_500_that_tells_nothing(live: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(live.services.store, "list", broken)
    assert await live.ask("GET", "/api/tags") == (500, {"error": "internal server error"})


def test_a_port_in_use_is_said_in_ollamas_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(serve.ListenError) as caught:
            serve._bind(Address("http", "127.0.0.1", port))
    assert str(caught.value) == f"listen tcp 127.0.0.1:{port}: bind: address already in use"


def test_a_host_that_is_none_is_said_in_ollamas_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golookup, "failure", lambda host, error: f"lookup {host} on some:53: no such host")
    for host, server in (("nowhere.invalid", " on some:53"), ("a..b", "")):
        with pytest.raises(serve.ListenError) as caught:
            serve._bind(Address("http", host, 0))
        assert str(caught.value) == f"listen tcp: lookup {host}{server}: no such host"


SERVE = """
import os
from ollama_compat.serve import serve
from ollama_compat.settings import Settings
serve(Settings.from_env(os.environ))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_in_good_order(tmp_path: Path, number: signal.Signals) -> None:
    environ = os.environ | {"OLLAMA_HOST": "127.0.0.1:0", "HOME": str(tmp_path)}
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", SERVE], env=environ, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stderr is not None
        try:
            assert "Listening on 127.0.0.1:" in process.stderr.readline()
            process.send_signal(number)
            told, _ = process.communicate(timeout=20)
        finally:
            process.kill()
        assert process.returncode == 0
        public = (tmp_path / ".ollama" / "id_ed25519.pub").read_text()
        assert told == (
            f"Couldn't find '{tmp_path}/.ollama/id_ed25519'. Generating new private key.\nYour new public key is: \n\n{public}\n"
        )


async def test_a_store_that_cannot_be_swept_is_served(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the server that has it ends in good order."""

    def broken(store: Store, is_alone: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(app, "prune", broken)
    live = await start()
    assert (await live.ask("GET", "/api/tags"))[0] == 200


def test_settings_reach_the_store(tmp_path: Path) -> None:
    store = app.create_app(Settings(models=tmp_path / "here", no_prune=True))[SERVICES].store
    assert (store.root, store.no_prune) == (tmp_path / "here", True)


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/responses", "/v1/messages"])
async def test_what_is_nested_too_deeply_is_refused(path: str, live: Any) -> None:
    depth, said = 200, {"model": "demo-moe", "messages": [{"role": "user", "content": "x"}], "input": "x", "max_tokens": 1}
    schema: Any = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    function = {"name": "f", "parameters": schema}
    tool = {"type": "function", "function": function} | function | {"input_schema": schema}
    status, answer = await live.post(path, **said, tools=[tool])
    told = answer["error"] if isinstance(answer["error"], str) else answer["error"]["message"]
    assert (status, told) == (400, "exceeded max depth")
