"""Clients that cannot be driven here but are known to give up on an answer that lacks a field: what each of them insists on."""

from __future__ import annotations

import datetime
import json
from typing import Any

import jsonschema
import pytest

MODEL = "demo-moe"
TEXT, FLAG, COUNT = {"type": "string"}, {"type": "boolean"}, {"type": "integer", "minimum": 0}
CALL = 'say(Wait. <tool_call>\n{"name": "f", "arguments": {"b": 1}}\n</tool_call>)'
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]


def having(**fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": list(fields)}


DETAILS = having(format=TEXT, family=TEXT, parameter_size=TEXT, quantization_level=TEXT)
DETAILS["properties"]["families"] = {"type": ["array", "null"], "items": TEXT}
LISTED = {
    "Zed": having(name=TEXT, modified_at=TEXT, size=COUNT, digest=TEXT, details=DETAILS),
    "Roo Code": having(name=TEXT, model=TEXT, details=having(family=TEXT, parameter_size=TEXT)),
    "Enchanted": having(name=TEXT, digest={"pattern": "^[0-9a-f]{64}$"}, size=COUNT, modified_at=TEXT, details=DETAILS),
    "big-AGI": having(name=TEXT, modified_at=TEXT, size={"type": "number"}),
    "llm-ollama, LangChain": having(model=TEXT, digest=TEXT),
}
ARGUMENTS = having(id=TEXT, function=having(name=TEXT, arguments={"type": "object"}))
MESSAGE = having(role={"const": "assistant"}, content=TEXT)
MESSAGE["properties"]["tool_calls"] = {"type": "array", "items": ARGUMENTS}
PART = having(model=TEXT, created_at=TEXT, message=MESSAGE, done=FLAG)
TIMES = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")
LAST = having(done_reason=TEXT, **dict.fromkeys((*TIMES, "prompt_eval_count", "eval_count"), COUNT))


@pytest.mark.parametrize("client", LISTED)
async def test_a_listed_model(live: Any, client: str) -> None:
    await live.post("/api/show", model=MODEL)
    _, answer = await live.ask("GET", "/api/tags")
    jsonschema.validate(answer, having(models={"type": "array", "items": LISTED[client], "minItems": 1}))
    assert datetime.datetime.fromisoformat(answer["models"][0]["modified_at"]).tzinfo is not None


async def test_a_shown_model(live: Any) -> None:
    """AnythingLLM and Copilot look into `model_info` and `capabilities` unasked; all have to find the same context."""
    _, shown = await live.post("/api/show", name=MODEL)
    texts = {"type": "array", "items": TEXT}
    jsonschema.validate(shown, having(model_info={"type": "object"}, capabilities=texts, details=DETAILS))
    info = shown["model_info"]
    by_name = info[f"{info['general.architecture']}.context_length"]
    assert by_name == next(value for key, value in info.items() if key.endswith(".context_length"))
    assert by_name == next(value for key, value in info.items() if "context_length" in key)
    assert "general.basename" in info


@pytest.mark.parametrize("text", ["hello", CALL])
async def test_a_chat_line_by_line(live: Any, text: str) -> None:
    """Each line is an object with a whole message; the last one has no text, no blank line comes, and a line break ends all."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": text}], "tools": TOOLS, "think": False}
    async with live.session.post("/api/chat", json=body) as response:
        data = await response.read()
    assert data.endswith(b"}\n")
    assert b"\n\n" not in data
    parts = [json.loads(line) for line in data.splitlines()]
    for part in parts:
        jsonschema.validate(part, PART)
    jsonschema.validate(parts[-1], LAST)
    assert any("tool_calls" in part["message"] for part in parts) is (text == CALL)
    assert [part["done"] for part in parts] == [False] * (len(parts) - 1) + [True]
    assert parts[-1]["message"]["content"] == ""


async def test_what_runs(live: Any) -> None:
    """oterm and Open WebUI read the context and a date, also of a model that stays for ever."""
    await live.post("/api/generate", model=MODEL, keep_alive=-1)
    _, answer = await live.ask("GET", "/api/ps")
    (model,) = answer["models"]
    jsonschema.validate(model, having(name=TEXT, size_vram=COUNT, context_length=COUNT, expires_at=TEXT))
    assert datetime.datetime.fromisoformat(model["expires_at"]).year > 2200


async def test_answers_without_a_body(live: Any) -> None:
    """big-AGI takes any body of these for an error."""
    await live.post("/api/show", model=MODEL)
    for method, path, body in (
        ("POST", "/api/copy", {"source": MODEL, "destination": "other"}),
        ("DELETE", "/api/delete", {"name": "other"}),
    ):
        async with live.session.request(method, path, json=body) as response:
            assert (response.status, await response.read()) == (200, b"")
