from __future__ import annotations

import json
import re
from typing import Any

import pytest

from ollama_compat import decoding, schema
from ollama_compat.anthropic.messages import MessagesRequest, estimate, to_native
from ollama_compat.turns import WORTH_TELLING

MODEL = "demo-moe"
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
TOOL = {
    "name": "f",
    "description": "F",
    "input_schema": {"type": "object", "properties": {"b": {"type": "string"}, "a": {}}},
    "cache_control": {"type": "ephemeral"},
}
CALL = 'say(Wait. <tool_call>\n{"name": "f", "arguments": {"b": 1, "a": [2]}}\n</tool_call>)'
OFF = {"type": "disabled"}


def user(text: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


async def ask(live: Any, text: Any, **fields: Any) -> tuple[int, Any]:
    body = {"model": MODEL, "max_tokens": 50, "messages": user(text), "thinking": OFF} | fields
    answer: tuple[int, Any] = await live.post("/v1/messages", **body)
    return answer


async def events(live: Any, text: Any, **fields: Any) -> list[Any]:
    body = {"model": MODEL, "max_tokens": 50, "messages": user(text), "thinking": OFF, "stream": True} | fields
    async with live.session.post("/v1/messages?beta=true", json=body) as response:
        assert (response.status, response.headers["Content-Type"]) == (200, "text/event-stream")
        blocks = (await response.text()).removesuffix("\n\n").split("\n\n")
    pairs = [block.split("\n") for block in blocks]
    found = [json.loads(data.removeprefix("data: ")) for _, data in pairs]
    assert [name.removeprefix("event: ") for name, _ in pairs] == [event["type"] for event in found]
    return found


def decode(**fields: Any) -> MessagesRequest:
    body = {"model": "m", "max_tokens": 8, "messages": user("x")} | fields
    return decoding.decode(json.dumps(body).encode(), MessagesRequest, "anthropic")


def native(**fields: Any) -> schema.ChatRequest:
    return to_native(decode(**fields))


# ---------------------------------------------------------------- answers


async def test_an_answer_in_one_object(live: Any) -> None:
    status, answer = await ask(live, "say(Hello there.)", stop_sequences=["zz"])
    assert status == 200
    assert re.fullmatch("msg_[0-9a-f]{24}", answer.pop("id"))
    usage = answer.pop("usage")
    assert (list(usage), usage["output_tokens"]) == (["input_tokens", "output_tokens"], 2)
    content = [{"type": "text", "text": "Hello there."}]
    head = {"type": "message", "role": "assistant", "model": MODEL}
    assert answer == head | {"content": content, "stop_reason": "end_turn"}


async def test_the_limit_is_told(live: Any) -> None:
    _, answer = await ask(live, "say(one two three)", max_tokens=1)
    assert answer["stop_reason"] == "max_tokens"


async def test_nothing_to_answer(live: Any) -> None:
    _, answer = await ask(live, [{"type": "unknown"}])
    assert (answer["content"], answer["stop_reason"]) == (None, "stop_sequence")


async def test_thinking_and_calls_are_blocks(live: Any) -> None:
    _, answer = await ask(live, "say(<think>\nHm.\n</think>\n\nYes.)", thinking={"type": "enabled", "budget_tokens": 1024})
    assert answer["content"] == [{"type": "thinking", "thinking": "Hm.\n"}, {"type": "text", "text": "Yes."}]
    _, answer = await ask(live, CALL, tools=[TOOL])
    call = answer["content"][-1]
    assert call.pop("id")
    assert call == {"type": "tool_use", "name": "f", "input": {"b": 1, "a": [2]}}
    assert list(call["input"]) == ["b", "a"]
    assert answer["stop_reason"] == "tool_use"


async def test_a_stream_of_text(live: Any) -> None:
    found = await events(live, "say(Hello there.)")
    start, *inner, delta, stop = found
    message = start["message"]
    assert (message["content"], message["usage"]["output_tokens"], "stop_reason" in message) == ([], 0, False)
    assert message["usage"]["input_tokens"] == estimate(decode(messages=user("say(Hello there.)")))
    assert inner == [
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": " there."}},
        {"type": "content_block_stop", "index": 0},
    ]
    assert delta["delta"] == {"stop_reason": "end_turn"}
    assert delta["usage"]["output_tokens"] == 2
    assert stop == {"type": "message_stop"}


async def test_a_stream_of_thinking_text_and_calls(live: Any) -> None:
    said = CALL.replace("say(", "say(<think>\nHm.\n</think>\n\n")
    found = await events(live, said, tools=[TOOL], thinking=None)
    starts = [event["content_block"] for event in found if event["type"] == "content_block_start"]
    assert [block["type"] for block in starts] == ["thinking", "text", "tool_use"]
    assert starts[2]["input"] == {}
    assert [event["index"] for event in found if event["type"] == "content_block_stop"] == [0, 1, 2]
    partial = [event["delta"]["partial_json"] for event in found if "partial_json" in event.get("delta", {})]
    assert partial == ['{"b":1,"a":[2]}']
    assert found[-2]["delta"] == {"stop_reason": "tool_use"}


async def test_a_runner_that_dies_ends_the_stream_with_an_error(live: Any) -> None:
    found = await events(live, "die()")
    assert (found[-1]["type"], found[-1]["error"]["type"]) == ("error", "api_error")


async def test_tokens_from_the_cache_are_told_when_they_are_many(live: Any) -> None:
    _, answer = await ask(live, "word " * (2 * WORTH_TELLING) + "cached()")
    assert answer["usage"]["input_tokens"] == 1
    assert answer["usage"]["cache_read_input_tokens"] > WORTH_TELLING


# ---------------------------------------------------------------- requests


async def test_a_model_that_cannot_think_is_not_asked_to(start: Any) -> None:
    live = await start(go_template=True)
    await live.post("/api/create", model="plain", **{"from": MODEL}, template="{{ .Prompt }}", stream=False)
    status, _ = await ask(live, "x", model="plain", thinking={"type": "enabled", "budget_tokens": 1024})
    assert status == 200


@pytest.mark.parametrize(
    ("fields", "think"),
    [
        ({}, None),
        ({"thinking": {"type": "adaptive"}}, None),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "Low"}}, "low"),
        ({"thinking": {"type": "enabled", "budget_tokens": 5}, "output_config": {"effort": "low"}}, True),
        ({"thinking": OFF}, False),
        ({"output_config": {"effort": "xhigh"}}, "high"),
        ({"output_config": {"effort": "odd"}}, None),
    ],
)
def test_thinking(fields: dict[str, Any], think: bool | str | None) -> None:
    assert native(**fields).think == think


def test_options_are_only_what_was_said() -> None:
    assert native().options == {"num_predict": 8}
    assert native(temperature=0, top_p=0.5, top_k=3, stop_sequences=["x"]).options == {
        **{"num_predict": 8, "temperature": 0.0, "top_p": 0.5, "top_k": 3, "stop": ["x"]},
    }


def test_blocks_become_messages() -> None:
    source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    system = [{"type": "text", "text": "S", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "T"}]
    result = {
        "type": "tool_result",
        "tool_use_id": "t1",
        "content": [{"type": "text", "text": "5"}, {"type": "image", "source": source}],
    }
    messages = [
        {"role": "user", "content": [{"type": "image", "source": source}, {"type": "text", "text": "see"}, {"type": "odd"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": ""},
                {"type": "text", "text": "Wait."},
                {"type": "tool_use", "id": "t1", "name": "f", "input": {"b": 1, "a": 2.5}},
            ],
        },
        {"role": "user", "content": [{"type": "text", "text": "so?"}, result]},
        {"role": "system", "content": "later"},
    ]
    call = {"id": "t1", "function": {"index": 0, "name": "f", "arguments": {"b": 1, "a": 2.5}}}
    assert native(system=system, messages=messages).messages == [
        {"role": "system", "content": "ST"},
        {"role": "user", "content": "see", "images": [PIXEL]},
        {"role": "assistant", "content": "Wait.", "thinking": "hm", "tool_calls": [call]},
        {"role": "tool", "content": "5", "images": [PIXEL], "tool_call_id": "t1"},
        {"role": "user", "content": "so?"},
        {"role": "system", "content": "later"},
    ]


def document(kind: str, **source: Any) -> dict[str, Any]:
    return {"type": "document", "source": {"type": kind} | source}


def test_documents_of_text_are_read() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "odd"}, {"type": "text", "text": 5}, {"type": "text", "text": "b"}]
    blocks = [
        document("text", media_type="text/plain", data="one") | {"title": "T", "context": "c", "citations": {"enabled": True}},
        document("content", content=parts) | {"title": None},
        document("content", content="two"),
        {"type": "text", "text": "What?"},
        document("base64", media_type="application/pdf", data=PIXEL),
        document("url", url="http://localhost/x.pdf") | {"title": "lost"},
    ]
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [document("text", data="three"), {"type": "document"}]}
    assert native(messages=user([*blocks, result])).messages == [
        {"role": "tool", "content": "three\n\n", "tool_call_id": "t1"},
        {"role": "user", "content": "T\n\none\n\nab\n\ntwo\n\nWhat?"},
    ]


def test_tools() -> None:
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}
    (made,) = native(tools=[TOOL, search]).tools or ()
    (client_run,) = native(tools=[{"type": "bash_20250124", "name": "bash"}]).tools or ()
    assert client_run["function"]["name"] == "bash"
    properties = {"b": {"type": "string"}, "a": {}}
    assert made["function"] == {"name": "f", "description": "F", "parameters": {"type": "object", "properties": properties}}
    assert native(tools=[TOOL], tool_choice={"type": "none"}).tool_choice.hidden
    assert native(tools=[TOOL], tool_choice={"type": "tool", "name": "f"}).tool_choice.names == {"f"}


async def test_count_tokens(live: Any) -> None:
    body = {"model": MODEL, "messages": user("say(one two three)"), "thinking": OFF}
    status, answer = await live.post("/v1/messages/count_tokens", **body)
    _, asked = await ask(live, "say(one two three)")
    assert (status, answer) == (200, {"input_tokens": asked["usage"]["input_tokens"]})
    silence = {"model": MODEL, "messages": user(""), "max_tokens": 1}
    status, answer = await live.post("/v1/messages/count_tokens", **silence)
    _, asked = await live.post("/v1/messages", **silence)
    assert (status, answer) == (200, {"input_tokens": asked["usage"]["input_tokens"]})


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": ""}, "model is required"),
        ({"max_tokens": 0}, "max_tokens is required and must be positive"),
        ({"messages": []}, "messages is required"),
        ({"messages": [{"role": "user"}]}, "unexpected end of JSON input"),
        (
            {"messages": [{"role": 3}]},
            "json: cannot unmarshal number into Go struct field MessagesRequest.messages.role of type string",
        ),
        (
            {"messages": [{"role": "user", "content": 5}]},
            "json: cannot unmarshal number into Go struct field MessagesRequest.messages of type []anthropic.ContentBlock",
        ),
        (
            {"messages": "x"},
            "json: cannot unmarshal string into Go struct field MessagesRequest.messages of type []anthropic.MessageParam",
        ),
        (
            {"tools": [{"name": "f", "input_schema": "x"}]},
            'invalid input_schema for tool "f": json: cannot unmarshal string into Go value of type api.ToolFunctionParameters',
        ),
        (
            {"tools": [{"name": "f", "input_schema": {"properties": []}}]},
            "invalid input_schema for tool \"f\": Value looks like object, but can't find closing '}' symbol",
        ),
        ({"messages": [None]}, "unexpected end of JSON input"),
        (
            {"metadata": {"user_id": 1}},
            "json: cannot unmarshal number into Go struct field Metadata.metadata.user_id of type string",
        ),
        (
            {"messages": user([{"type": "tool_result", "tool_use_id": "t", "content": "", "is_error": "no"}])},
            "json: cannot unmarshal string into Go struct field MessagesRequest.messages.is_error of type bool",
        ),
        (
            {"messages": user([{"type": "thinking", "thinking": "", "signature": 1}])},
            "json: cannot unmarshal number into Go struct field MessagesRequest.messages.signature of type string",
        ),
        (
            {"messages": user([{"type": "image", "source": {"type": "base64", "media_type": 1, "data": ""}}])},
            "json: cannot unmarshal number into Go struct field MessagesRequest.messages.source.media_type of type string",
        ),
        (
            {"tools": [{"name": "f", "input_schema": {}, "max_uses": "x"}]},
            "json: cannot unmarshal string into Go struct field Tool.tools.max_uses of type int",
        ),
        (
            {"tool_choice": {"type": "auto", "disable_parallel_tool_use": 1}},
            "json: cannot unmarshal number into Go struct field ToolChoice.tool_choice.disable_parallel_tool_use of type bool",
        ),
        ({"messages": user([{"type": "image"}])}, "invalid image source"),
        (
            {"messages": user([{"type": "image", "source": {"type": "url", "url": "https://example.com/x.png"}}])},
            "invalid image source type: url. Only base64 images are supported.",
        ),
        (
            {"messages": user([{"type": "image", "source": {"type": "base64", "data": "@@"}}])},
            "invalid base64 image data: illegal base64 data at input byte 0",
        ),
        (
            {"messages": user([{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "image"}]}])},
            "invalid tool_result image source",
        ),
        ({"messages": user([{"type": "tool_use", "name": "f"}])}, "tool_use block missing required 'id' field"),
        ({"messages": user([{"type": "tool_use", "id": "t"}])}, "tool_use block missing required 'name' field"),
    ],
)
async def test_requests_that_are_refused(live: Any, fields: dict[str, Any], message: str) -> None:
    status, answer = await ask(live, "x", **fields)
    assert re.fullmatch("req_[0-9a-f]{24}", answer.pop("request_id"))
    assert (status, answer) == (400, {"type": "error", "error": {"type": "invalid_request_error", "message": message}})


async def test_a_model_that_is_not_there(live: Any) -> None:
    for stream in (False, True):
        status, answer = await ask(live, "x", model="no", stream=stream)
        assert (status, answer["error"]) == (404, {"type": "not_found_error", "message": "model 'no' not found"})
