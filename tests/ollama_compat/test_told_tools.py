"""Tools for models whose templates have no place for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ollama_compat import told_tools

MODEL = "demo-moe"
TOOL = {"type": "function", "function": {"name": "now", "description": "<b>", "parameters": {"type": "object", "properties": {}}}}
GO = "{{ range .Messages }}[{{ .Role }}]{{ .Content }}{{ end }}{{ if .Thinking }}{{ end }}"
LEGACY = "{{ .System }}|{{ .Prompt }}|{{ .Response }}"
CALL = '<tool_call>\n{"name": "now", "arguments": {"a": 1}}\n</tool_call>'


async def make(live: Any, template: str = GO, **fields: Any) -> None:
    body = {"from": MODEL, "model": "m", "template": template, "parser": "", "stream": False}
    status, answer = await live.post("/api/create", **(body | fields))
    assert status == 200, answer


async def chat(live: Any, text: str, **fields: Any) -> tuple[int, Any]:
    body = {"model": "m", "messages": [{"role": "user", "content": text}], "tools": [TOOL], "stream": False}
    answer: tuple[int, Any] = await live.post("/api/chat", **(body | fields))
    return answer


@pytest.mark.parametrize("template", [GO, LEGACY])
async def test_a_call_and_its_result(go: Any, template: str) -> None:
    await make(go, template)
    status, answer = await chat(go, f"say(Let me see. {CALL})")
    assert (status, answer["message"]["content"]) == (200, "Let me see. ")
    (call,) = answer["message"]["tool_calls"]
    assert call["function"] == {"index": 0, "name": "now", "arguments": {"a": 1}}
    turns = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "When?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "noon", "tool_name": "now"},
        {"role": "tool", "content": "5th"},
    ]
    _, answer = await chat(go, "", messages=turns, _debug_render_only=True)
    prompt = answer["_debug_info"]["rendered_template"]
    assert prompt.replace("[system]", "").startswith("Be kind.\n\n# Tools\n")
    assert (
        '<tools>\n{"name": "now", "description": "<b>", "parameters": {"type": "object", "properties": {}}}\n</tools>' in prompt
    )
    assert '<tool_call>\n{"name": "now", "arguments": {"a": 1}}\n</tool_call>' in prompt
    assert "<tool_response>\nnoon\n</tool_response>\n<tool_response>\n5th\n</tool_response>" in prompt


async def test_a_stream_has_whole_calls(go: Any) -> None:
    await make(go)
    _, lines = await chat(go, f"say(Look. {CALL} {CALL})", stream=True)
    assert "".join(line["message"]["content"] for line in lines) == "Look. "
    assert [call["function"]["index"] for line in lines for call in line["message"].get("tool_calls", ())] == [0, 1]


async def test_a_choice_of_tools_is_enforced_in_the_same_form(go: Any) -> None:
    await make(go)
    status, answer = await chat(go, f"say({CALL})", tool_choice="required")
    assert status == 200
    assert [call["function"]["name"] for call in answer["message"]["tool_calls"]] == ["now"]


async def test_the_setting_brings_the_error_back(start: Callable[..., Any]) -> None:
    live = await start(go_template=True, strict_tools=True)
    await make(live)
    status, answer = await chat(live, "x")
    assert (status, answer) == (400, {"error": "registry.ollama.ai/library/m:latest does not support tools"})


async def test_a_bare_template_is_no_conversation(go: Any) -> None:
    await make(go, "{{ .Prompt }}")
    status, answer = await chat(go, "x")
    assert (status, "does not support tools" in answer["error"]) == (400, True)


def test_messages_without_a_system_text_get_one() -> None:
    user = {"role": "user", "content": "x", "images": ["i"]}
    said = {"role": "assistant", "content": "a", "thinking": "t", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    system, *rest = told_tools.spoken([user, said, user], [TOOL])
    assert (system["role"], system["content"].startswith("# Tools")) == ("system", True)
    text = 'a\n<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
    assert rest == [user, {"role": "assistant", "content": text, "thinking": "t"}, user]
