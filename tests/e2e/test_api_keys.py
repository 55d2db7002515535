"""A server that asks for a key, and the ways in which real clients show one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import anthropic
import httpx
import ollama
import openai
import pytest
from serving import Server

MODEL = "demo-moe"
REFUSAL = "unauthorized: this server asks for an API key"


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("closed")
    keys = folder / "keys"
    keys.write_text("secret\n")
    running = Server(folder, MOELLAMA_API_KEY_FILE=str(keys), MOELLAMA_LOG_FORMAT="json")
    yield running
    running.stop()


def test_ollama_python(closed: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OLLAMA_API_KEY", raising=False)
    with ollama.Client(host=closed.host) as client, pytest.raises(ollama.ResponseError) as caught:
        client.list()
    assert (caught.value.status_code, caught.value.error) == (401, REFUSAL)
    monkeypatch.setenv("OLLAMA_API_KEY", "secret")
    with ollama.Client(host=closed.host) as client:
        assert client.show(MODEL).modelinfo


def test_openai(closed: Server) -> None:
    refused = pytest.raises(openai.AuthenticationError, match=REFUSAL)
    with openai.OpenAI(base_url=f"{closed.host}/v1", api_key="wrong", max_retries=0) as client, refused:
        client.models.list()
    with openai.OpenAI(base_url=f"{closed.host}/v1", api_key="secret") as client:
        assert client.models.retrieve(MODEL).id == MODEL


def test_anthropic(closed: Server) -> None:
    def ask(key: str) -> anthropic.types.Message:
        with anthropic.Anthropic(base_url=closed.host, api_key=key, max_retries=0) as client:
            return client.messages.create(model=MODEL, max_tokens=2, messages=[{"role": "user", "content": "Hi"}])

    with pytest.raises(anthropic.AuthenticationError, match=REFUSAL):
        ask("wrong")
    assert ask("secret").usage.output_tokens == 2


def test_command_line(closed: Server) -> None:
    command = [sys.executable, "-m", "ollama_compat", "list"]
    environ = closed.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    environ.pop("OLLAMA_API_KEY", None)
    refused = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stderr) == (1, f"Error: {REFUSAL}\n")
    told = subprocess.run(command, env=environ | {"OLLAMA_API_KEY": "secret"}, capture_output=True, text=True, check=True)
    assert told.stdout.startswith("NAME")


def test_health_needs_none(closed: Server) -> None:
    assert httpx.get(f"{closed.host}/health").json() == {"status": "ok"}
    assert httpx.get(f"{closed.host}/metrics").status_code == 401


def test_no_key_is_ever_logged(closed: Server) -> None:
    httpx.get(f"{closed.host}/api/tags", headers={"Authorization": "Bearer secret"})
    text = closed.log.read_text()
    assert "/api/tags" in text
    assert "secret" not in text


def test_a_key_file_that_is_gone_keeps_the_server_from_starting(tmp_path: Path) -> None:
    environ = os.environ | {"MOELLAMA_API_KEY_FILE": str(tmp_path / "none"), "HOME": str(tmp_path), "OLLAMA_HOST": "127.0.0.1:0"}
    command = [sys.executable, "-m", "ollama_compat", "serve"]
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1
    assert ended.stderr == f"Error: MOELLAMA_API_KEY_FILE: {tmp_path}/none: No such file or directory\n"
