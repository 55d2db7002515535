"""Answers that say the same token again and again break off, as with Ollama: without a last line, and without numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

MODEL = "demo-moe"
AGAIN = "again( no)"
TALK = [{"role": "user", "content": AGAIN}]
SAID = " no" * 31
DONE = "[DONE]"


@pytest.fixture
async def go(go: Any) -> Any:
    """A server with a model that has a Go template."""
    return await with_go(go)


async def with_go(live: Any, template: str = "{{ range .Messages }}{{ .Content }}{{ end }}") -> Any:
    status, _ = await live.post("/api/create", model="go", **{"from": MODEL}, template=template, stream=False)
    assert status == 200
    return live


async def events(live: Any, path: str, **body: Any) -> list[Any]:
    """The data of a stream of events."""
    async with live.session.post(path, json={"model": "go", "stream": True} | body) as response:
        assert response.status == 200
        lines = (await response.text()).splitlines()
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    return [text if text == DONE else json.loads(text) for text in data]


@pytest.mark.parametrize("model", ["go", MODEL])
async def test_generate(go: Any, model: str) -> None:
    body = {"model": model, "prompt": AGAIN, "think": False}
    _, lines = await go.post("/api/generate", **body)
    assert "".join(line["response"] for line in lines) == SAID
    assert not any(line["done"] for line in lines)
    status, answer = await go.post("/api/generate", **body, stream=False)
    assert (status, list(answer)) == (200, ["model", "created_at", "response", "done"])
    assert (answer["response"], answer["done"]) == (SAID, False)


async def test_chat(go: Any) -> None:
    _, lines = await go.post("/api/chat", model="go", messages=TALK)
    assert "".join(line["message"]["content"] for line in lines) == SAID
    assert not any(line["done"] for line in lines)
    status, answer = await go.post("/api/chat", model="go", messages=TALK, stream=False)
    assert (status, list(answer)) == (200, ["model", "created_at", "message", "done"])
    assert (answer["message"], answer["done"]) == ({"role": "assistant", "content": SAID}, False)


async def test_a_chat_by_a_jinja_template_goes_on(go: Any) -> None:
    _, answer = await go.post("/api/chat", model=MODEL, messages=TALK, think=False, stream=False)
    assert (answer["message"]["content"], answer["done_reason"]) == (" no" * 100, "stop")


async def test_the_limit_is_a_setting(start: Callable[..., Any]) -> None:
    for limit, said, done in ((3, " no" * 4, False), (0, " no" * 100, True)):
        live = await with_go(await start(repeat_limit=limit, go_template=True))
        _, answer = await live.post("/api/chat", model="go", messages=TALK, stream=False)
        assert (answer["message"]["content"], answer["done"]) == (said, done)


async def test_what_was_held_back_is_lost(go: Any) -> None:
    """What waits for the first word of the reasoning has nothing to tell."""
    thought = "{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}"
    await with_go(go, "{{ range .Messages }}" + thought + "{{ .Content }}{{ end }}<think>")
    body = {"model": "go", "messages": [{"role": "user", "content": "again(\n)"}]}
    _, lines = await go.post("/api/chat", **body)
    assert lines == []
    status, answer = await go.post("/api/chat", **body, stream=False)
    assert (status, answer["message"], answer["done"]) == (200, {"role": "", "content": ""}, False)
    _, answer = await go.post("/api/generate", model="go", prompt="again(\n)", stream=False)
    assert (answer["response"], answer["done"]) == ("", False)
    status, answer = await go.post("/v1/chat/completions", **body)
    assert (status, answer["choices"][0]["finish_reason"]) == (200, None)


async def test_openai(go: Any) -> None:
    for found in (
        await events(go, "/v1/chat/completions", messages=TALK, stream_options={"include_usage": True}),
        await events(go, "/v1/completions", prompt=AGAIN),
    ):
        assert DONE not in found
        assert {choice["finish_reason"] for chunk in found for choice in chunk["choices"]} == {None}
    status, answer = await go.post("/v1/chat/completions", model="go", messages=TALK)
    (choice,) = answer["choices"]
    assert (status, choice["message"]["content"], choice["finish_reason"]) == (200, SAID, None)
    assert answer["usage"] == {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    status, answer = await go.post("/v1/completions", model="go", prompt=AGAIN)
    assert (status, answer["choices"][0]["text"], answer["choices"][0]["finish_reason"]) == (200, SAID, None)


async def test_several_answers(go: Any) -> None:
    found = await events(go, "/v1/chat/completions", messages=TALK, n=3)
    assert {chunk["choices"][0]["index"] for chunk in found} == {0, 1, 2}
    assert {chunk["choices"][0]["finish_reason"] for chunk in found} == {None}
    _, answer = await go.post("/v1/chat/completions", model="go", messages=TALK, n=3)
    assert [choice["message"]["content"] for choice in answer["choices"]] == [SAID] * 3


async def test_responses(go: Any) -> None:
    found = await events(go, "/v1/responses", input=AGAIN)
    assert found[-1]["type"] == "response.output_text.delta"
    _, answer = await go.post("/v1/responses", model="go", input=AGAIN)
    assert (answer["status"], answer["output"][0]["content"][0]["text"]) == ("completed", SAID)


async def test_anthropic(go: Any) -> None:
    found = await events(go, "/v1/messages", messages=TALK, max_tokens=99)
    assert found[-1]["type"] == "content_block_delta"
    _, answer = await go.post("/v1/messages", model="go", messages=TALK, max_tokens=99)
    assert answer["content"] == [{"type": "text", "text": SAID}]
    assert "stop_reason" not in answer


async def test_its_tokens_are_counted_and_its_runner_is_free(go: Any) -> None:
    await go.post("/api/chat", model="go", messages=TALK)
    await go.until_running(0)
    _, text = await go.ask("GET", "/metrics")
    assert 'moellama_generated_tokens_total{model="go:latest"} 31.0' in text
