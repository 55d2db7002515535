"""Models with a built-in renderer or parser, and gpt-oss, behind the API."""

from __future__ import annotations

from typing import Any

import pytest

MODEL = "demo-moe"
TOOL = {
    "type": "function",
    "function": {
        "name": "get time",
        "description": "",
        "parameters": {"type": "object", "properties": {"h": {"type": "integer"}}},
    },
}
HARMONY = (
    "<|start|>{{ .ThinkLevel }}<|end|>{{ range .Tools }}{{ .Function.Name }}{{ end }}"
    "{{ range .Messages }}{{ .Content }}{{ end }}{{ if .Thinking }}{{ end }}{{ if .ToolCalls }}{{ end }}"
)


async def make(live: Any, **fields: Any) -> None:
    status, _ = await live.post("/api/create", model="m", stream=False, **({"from": MODEL} | fields))
    assert status == 200


async def shown(live: Any, path: str = "/api/chat", **fields: Any) -> str:
    """The prompt of a request."""
    status, answer = await live.post(path, model="m", _debug_render_only=True, **fields)
    assert status == 200, answer
    text: str = answer["_debug_info"]["rendered_template"]
    return text


def said(text: str) -> dict[str, Any]:
    """Fields of a chat whose answer is `text`."""
    return {"messages": [{"role": "user", "content": f"say({text})"}], "stream": False}


async def test_renderer_and_parser_by_name(live: Any) -> None:
    await make(live, renderer="qwen3-coder", parser="qwen3-coder")
    call = "<tool_call><function=get time><parameter=h>\n3\n</parameter></function></tool_call>"
    _, answer = await live.post("/api/chat", model="m", tools=[TOOL], **said(f"Look. {call}"))
    (made,) = answer["message"]["tool_calls"]
    assert (answer["message"]["content"], made["function"]) == ("Look.", {"index": 0, "name": "get time", "arguments": {"h": 3}})
    assert made["id"].startswith("call_")
    prompt = await shown(live, messages=[{"role": "user", "content": "hi"}], tools=[TOOL])
    assert "<name>get time</name>" in prompt
    assert prompt.endswith("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")
    assert await shown(live, "/api/generate", prompt="hi") == prompt[prompt.index("<|im_start|>user") :]


async def test_reasoning_on_both_routes(live: Any) -> None:
    await make(live, renderer="deepseek3.1", parser="deepseek3")
    for think, tail in ((None, "<think>"), (True, "<think>"), ("low", "<think>"), (False, "</think>")):
        assert (await shown(live, messages=[{"role": "user", "content": "hi"}], think=think)).endswith(tail)
        assert (await shown(live, "/api/generate", prompt="hi", think=think)).endswith(tail)
    text = "Why?</think>So."
    _, answer = await live.post("/api/chat", model="m", **said(text))
    assert (answer["message"]["thinking"], answer["message"]["content"]) == ("Why?", "So.")
    _, answer = await live.post("/api/generate", model="m", prompt=f"say({text})", stream=False)
    assert (answer["thinking"], answer["response"]) == ("Why?", "So.")
    _, answer = await live.post("/api/generate", model="m", prompt=f"say({text})", stream=False, think=False)
    assert ("thinking" in answer, answer["response"]) == (False, text)


async def test_a_written_template_goes_before_the_renderer(live: Any) -> None:
    await make(live, renderer="cogito", parser="cogito")
    await make(live, **{"from": "m"}, template="<<{{ .Prompt }}>>")
    assert await shown(live, messages=[{"role": "user", "content": "hi"}]) == "<<hi>>"


async def test_a_template_that_does_not_open_the_reasoning(live: Any) -> None:
    await make(live, renderer="qwen3.5", parser="qwen3.5")
    await make(live, **{"from": "m"}, template="{{ .Prompt }}")
    for text, thinking, content in (("So.", None, "So."), ("<think>Why?</think>So.", "Why?", "So.")):
        _, answer = await live.post("/api/chat", model="m", **said(text))
        assert (answer["message"].get("thinking"), answer["message"]["content"]) == (thinking, content)


@pytest.mark.parametrize(("model_type", "ending"), [("12B", "<|channel>thought\n<channel|>"), ("4B", "<|turn>model\n")])
async def test_gemma4_by_size(live: Any, model_type: str, ending: str) -> None:
    await make(live, renderer="gemma4", parser="gemma4", info={"parameter_size": model_type})
    assert (await shown(live, messages=[{"role": "user", "content": "hi"}], think=False)).endswith(ending)


async def test_errors(live: Any) -> None:
    await make(live, renderer="nothing", parser="qwen3")
    status, answer = await live.post("/api/chat", model="m", **said("x"))
    assert (status, answer) == (500, {"error": 'unknown renderer "nothing"'})
    await make(live, renderer="qwen3-coder", parser="qwen3")
    status, answer = await live.post("/api/chat", model="m", **said("<tool_call>x</tool_call>"))
    message = "failed to parse JSON: invalid character 'x' looking for beginning of value"
    assert (status, answer) == (500, {"error": message})
    status, lines = await live.post("/api/chat", model="m", **(said("Well. <tool_call>x</tool_call>") | {"stream": True}))
    assert (status, lines[0]["message"]["content"], lines[-1]) == (200, "Well.", {"error": message})
    await make(live, renderer="qwen3-coder", parser="nothing")
    _, answer = await live.post("/api/chat", model="m", **said("<tool_call>x</tool_call>"))
    assert answer["message"]["content"] == "<tool_call>x</tool_call>"


async def test_gpt_oss_by_its_template(live: Any) -> None:
    await make(live, template=HARMONY, info={"model_family": "gptoss"})
    tail = {"messages": [{"role": "user", "content": "hi"}], "tools": [TOOL]}
    assert await shown(live, **tail, think="max") == "<|start|>high<|end|>get_timehi"
    assert (await shown(live, **tail)).startswith("<|start|>medium")
    text = (
        "<|channel|>analysis<|message|>Why?<|end|><|start|>assistant<|channel|>commentary to=functions.get_time<|message|>"
        '{"h": 3}'
    )
    _, answer = await live.post("/api/chat", model="m", tools=[TOOL], **said(text))
    (made,) = answer["message"]["tool_calls"]
    assert (answer["message"]["thinking"], made["function"]["name"], made["function"]["arguments"]) == (
        "Why?",
        "get time",
        {"h": 3},
    )
    text = "<|channel|>analysis<|message|>Why?<|end|><|start|>assistant<|channel|>final<|message|>So."
    _, answer = await live.post("/api/generate", model="m", prompt=f"say({text})", stream=False)
    assert (answer["thinking"], answer["response"]) == ("Why?", "So.")


async def test_pictures_have_places_but_no_model_that_sees(live: Any) -> None:
    await make(live, renderer="qwen3-vl-instruct", parser="qwen3-vl-instruct")
    pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    look = [{"role": "user", "content": "see", "images": [pixel, pixel]}]
    assert "<|im_start|>user\n[img-0][img-1] see<|im_end|>" in await shown(live, messages=look)
    status, answer = await live.post("/api/chat", model="m", messages=look)
    assert status in (400, 500), answer


async def test_control_tokens_of_a_client_stay_text(live: Any) -> None:
    await make(live, renderer="qwen3-coder", parser="qwen3-coder")
    _, answer = await live.post("/api/chat", model="m", **said("<|im_end|>"), options={"num_predict": 1})
    assert answer["message"]["content"] == "<|im_end|>"
