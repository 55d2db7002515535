from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest

from ollama_compat import decoding, gojson, schema
from ollama_compat.errors import Refused
from ollama_compat.openai import embeddings
from ollama_compat.openai.chat import ChatCompletionRequest, to_native
from ollama_compat.openai.embeddings import EmbedRequest
from ollama_compat.tool_choice import Choice
from ollama_compat.turns import WORTH_TELLING

MODEL = "demo-moe"
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
CALL = 'say(<tool_call>\n{"name": "f", "arguments": {"b": 1, "a": "x<y"}}\n</tool_call>)'


def tool(name: str = "f") -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}


def user(text: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


async def chat(live: Any, text: Any, **fields: Any) -> tuple[int, Any]:
    body = {"model": MODEL, "messages": user(text), "reasoning_effort": "none"} | fields
    answer: tuple[int, Any] = await live.post("/v1/chat/completions", **body)
    return answer


async def events(live: Any, path: str, **body: Any) -> list[Any]:
    """The data of the events of a stream; `[DONE]` as it is."""
    async with live.session.post(path, json=body) as response:
        assert response.status == 200, await response.text()
        assert response.headers["Content-Type"] == "text/event-stream"
        text = await response.text()
    assert text.endswith("\n\n")
    return [data if data == "[DONE]" else json.loads(data) for data in (block[6:] for block in text[:-2].split("\n\n"))]


async def chunks(live: Any, text: str, **fields: Any) -> list[Any]:
    body = {"model": MODEL, "messages": user(text), "reasoning_effort": "none", "stream": True} | fields
    return await events(live, "/v1/chat/completions", **body)


def native(**fields: Any) -> schema.ChatRequest:
    """What a request becomes."""
    body = {"model": "m", "messages": user("x")} | fields
    return to_native(decoding.decode(json.dumps(body).encode(), ChatCompletionRequest, "openai"))


# ---------------------------------------------------------------- answers


async def test_an_answer_in_one_object(live: Any) -> None:
    status, answer = await chat(live, "say(Hello there.)")
    assert status == 200
    assert answer.pop("id").startswith("chatcmpl-")
    assert isinstance(answer.pop("created"), int)
    usage = answer.pop("usage")
    assert list(usage) == ["prompt_tokens", "completion_tokens", "total_tokens"]
    assert (usage["completion_tokens"], usage["total_tokens"]) == (2, usage["prompt_tokens"] + 2)
    message = {"role": "assistant", "content": "Hello there."}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    assert answer == {"object": "chat.completion", "model": MODEL, "system_fingerprint": "fp_ollama", "choices": choices}


async def test_a_stream_names_the_role_once_and_ends_with_done(live: Any) -> None:
    *parts, done = await chunks(live, "say(Hello there.)")
    assert done == "[DONE]"
    assert [part["choices"][0]["delta"] for part in parts] == [
        {"role": "assistant", "content": "Hello"},
        {"content": " there."},
        {},
    ]
    assert [part["choices"][0]["finish_reason"] for part in parts] == [None, None, "stop"]
    assert len({(part["id"], part["created"]) for part in parts}) == 1
    assert not any("usage" in part for part in parts)


async def test_usage_is_streamed_when_asked_for(live: Any) -> None:
    *parts, _ = await chunks(live, "say(Hello there.)", stream_options={"include_usage": True})
    assert parts[-1]["choices"] == []
    assert parts[-1]["usage"]["completion_tokens"] == 2
    assert not any("usage" in part for part in parts[:-1])


async def test_reasoning_has_a_field_of_its_own(live: Any) -> None:
    said = "say(<think>\nHm.\n</think>\n\nYes.)"
    _, answer = await chat(live, said, reasoning_effort="high")
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "Yes.", "reasoning": "Hm.\n"}
    deltas = [part["choices"][0]["delta"] for part in (await chunks(live, said, reasoning_effort=None))[:-1]]
    assert "".join(delta.get("reasoning", "") for delta in deltas) == "Hm.\n"
    assert not any(delta.get("reasoning") and delta.get("content") for delta in deltas)


async def test_tool_calls_have_their_arguments_as_text(live: Any) -> None:
    _, answer = await chat(live, CALL, tools=[tool()])
    choice = answer["choices"][0]
    (call,) = choice["message"]["tool_calls"]
    assert call.pop("id").startswith("call_")
    assert call == {"index": 0, "type": "function", "function": {"name": "f", "arguments": '{"b":1,"a":"x\\u003cy"}'}}
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", "")
    *parts, _ = await chunks(live, CALL, tools=[tool()])
    calls = [call for part in parts for call in part["choices"][0]["delta"].get("tool_calls", ())]
    assert [call["function"] for call in calls] == [{"name": "f", "arguments": '{"b":1,"a":"x\\u003cy"}'}]
    assert parts[-1]["choices"][0] == {"index": 0, "delta": {}, "finish_reason": "tool_calls"}


async def test_log_probabilities(live: Any) -> None:
    _, answer = await chat(live, "say(Hi)", logprobs=True, top_logprobs=1)
    (entry,) = answer["choices"][0]["logprobs"]["content"]
    assert (entry["token"], len(entry["top_logprobs"])) == ("Hi", 1)
    parts = await chunks(live, "say(Hi)", logprobs=True)
    assert parts[0]["choices"][0]["logprobs"]["content"][0]["token"] == "Hi"


async def test_length_is_told(live: Any) -> None:
    for field in ("max_tokens", "max_completion_tokens"):
        _, answer = await chat(live, "say(one two three)", **{field: 2})
        assert answer["choices"][0]["finish_reason"] == "length"
        assert answer["choices"][0]["message"]["content"] == "one two"


async def test_the_prompt_can_be_seen(live: Any) -> None:
    _, answer = await chat(live, "Hi", _debug_render_only=True)
    assert answer["_debug_info"]["rendered_template"].startswith("<|im_start|>user\nHi<|im_end|>\n")
    assert answer["choices"] == [{"index": 0, "message": {"role": "", "content": ""}, "finish_reason": None}]
    assert answer["usage"]["total_tokens"] == 0


# ---------------------------------------------------------------- requests


def test_defaults_are_openais_and_win_over_the_models() -> None:
    assert native().options == {"temperature": 1.0, "top_p": 1.0}
    assert native(temperature=0, top_p=0.5, seed=3, stop="x", max_tokens=4).options == {
        **{"temperature": 0.0, "top_p": 0.5, "stop": ["x"], "num_predict": 4, "seed": 3},
    }


def test_options_inside_the_body_are_heard() -> None:
    options = native(options={"num_ctx": 9000, "temperature": 0.3}, top_p=0.1).options
    assert options == {"temperature": 0.3, "top_p": 0.1, "num_ctx": 9000}
    assert native(options="none of them").options == {"temperature": 1.0, "top_p": 1.0}


@pytest.mark.parametrize(
    ("fields", "think"),
    [
        ({}, None),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": "minimal"}, "low"),
        ({"reasoning_effort": "medium"}, "medium"),
        ({"reasoning_effort": "xhigh"}, "max"),
        ({"reasoning": {"effort": "none"}, "reasoning_effort": "high"}, False),
        ({"reasoning": {}, "reasoning_effort": "high"}, None),
    ],
)
def test_effort(fields: dict[str, Any], think: bool | str | None) -> None:
    assert native(**fields).think == think


def test_response_format() -> None:
    assert native(response_format={"type": "json_object"}).format == "json"
    assert native(response_format={"type": "text"}).format is None
    schema_ = {"type": "object", "properties": {"n": {"maximum": 1.5}}}
    made = native(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema_}}).format
    assert gojson.text_of(made) == '{"type":"object","properties":{"n":{"maximum":1.5}}}'


def test_parts_of_a_content_are_messages_of_their_own() -> None:
    url = f"data:image/png;base64,{PIXEL}"
    parts = [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "image_url", "image_url": url},
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
    ]
    assert native(messages=user(parts)).messages == [
        {"role": "user", "content": "see"},
        {"role": "user", "content": "", "images": [PIXEL]},
        {"role": "user", "content": "", "images": [PIXEL]},
        {"role": "user", "content": "", "images": ["UklGRg=="]},
    ]


def test_results_of_tools_find_the_name_of_their_call() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"b": 1, "a": 2.5}'}}
    history = [
        {"role": "assistant", "content": None, "tool_calls": [call], "reasoning": "hm"},
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "sunny"}]},
        {"role": "tool", "tool_call_id": "other", "name": "g", "content": ""},
    ]
    made = {"id": "c1", "function": {"index": 0, "name": "f", "arguments": {"b": 1, "a": 2.5}}}
    answer = {"role": "tool", "content": "sunny", "tool_name": "f", "tool_call_id": "c1"}
    assert native(messages=history).messages == [
        {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [made]},
        answer,
        answer,
        {"role": "tool", "content": "", "tool_name": "g", "tool_call_id": "other"},
    ]


@pytest.mark.parametrize(
    ("fields", "thinking"),
    [
        ({"reasoning_content": "hm"}, "hm"),
        ({"reasoning_content": "other", "reasoning": "hm"}, "hm"),
        ({"reasoning_content": None}, None),
        ({"reasoning_content": [{"type": "text", "text": "hm"}]}, None),
    ],
)
def test_reasoning_of_earlier_turns_has_two_names(fields: dict[str, Any], thinking: str | None) -> None:
    (message,) = native(messages=[{"role": "assistant", "content": "Yes.", **fields}]).messages or ()
    assert message.get("thinking") == thinking


def test_tool_choice() -> None:
    made = native(tools=[tool("f")], tool_choice={"type": "function", "function": {"name": "f"}})
    assert made.tool_choice == Choice(forced=True, names=frozenset({"f"}), several=False)
    assert native(tools=[tool("f")], tool_choice="required", parallel_tool_calls=False).tool_choice == Choice(True, several=False)


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "invalid message content type: <nil>"),
        (5, "invalid message content type: float64"),
        ([5], "invalid message format"),
        ([{"type": "text", "text": 5}], "invalid message format"),
        ([{"type": "image_url"}], "invalid message format"),
        ([{"type": "image_url", "image_url": "data:image/png;base64,@@"}], "invalid image input"),
        ([{"type": "image_url", "image_url": "data:image/gif;base64,AAAA"}], "invalid image input"),
        ([{"type": "input_audio", "input_audio": {}}], "invalid input_audio format: missing data"),
        (
            [{"type": "image_url", "image_url": {"url": "https://example.com/x.png"}}],
            "image URLs are not currently supported, please use base64 encoded data instead",
        ),
    ],
)
def test_contents_that_are_refused(content: Any, message: str) -> None:
    with pytest.raises(Refused) as error:
        native(messages=user(content))
    assert error.value.message == message


def test_tools_that_no_call_can_name_are_left_out() -> None:
    search, custom = {"type": "web_search"}, {"type": "custom", "custom": {"name": "c"}}
    made = native(tools=[search, {"type": "function", "function": {"name": "f"}}, custom]).tools
    assert [tool["function"]["name"] for tool in made or ()] == ["f"]
    assert native(tools=[search]).tools is None
    assert native(tools=[]).tools == []


def test_arguments_of_nothing() -> None:
    call = {"id": "c", "function": {"name": "f", "arguments": "null"}}
    made = native(messages=[{"role": "assistant", "tool_calls": [call]}]).messages
    assert made
    assert made[0]["tool_calls"][0]["function"]["arguments"] == {}


@pytest.mark.parametrize("arguments", ["x", "", "5", "[]", "{}x", '{"a":1e400}'])
def test_arguments_have_to_be_an_object(arguments: str) -> None:
    call = {"id": "c", "function": {"name": "f", "arguments": arguments}}
    with pytest.raises(Refused, match="invalid tool call arguments"):
        native(messages=[{"role": "assistant", "content": "", "tool_calls": [call]}])


@pytest.mark.parametrize(
    ("body", "status", "kind", "message"),
    [
        ("", 400, "invalid_request_error", "EOF"),
        ("{x", 400, "invalid_request_error", "invalid character 'x' looking for beginning of object key string"),
        ('{"model": "m"}', 400, "invalid_request_error", "[] is too short - 'messages'"),
        (
            '{"temperature": "hot"}',
            400,
            "invalid_request_error",
            "json: cannot unmarshal string into Go struct field ChatCompletionRequest.temperature of type float64",
        ),
        (
            '{"tools": "x"}',
            400,
            "invalid_request_error",
            "json: cannot unmarshal string into Go struct field ChatCompletionRequest.tools of type []api.Tool",
        ),
        (
            '{"messages": [{"role": 1}]}',
            400,
            "invalid_request_error",
            "json: cannot unmarshal number into Go struct field Message.messages.role of type string",
        ),
        (
            '{"messages": [{"tool_calls": [{"function": 1}]}]}',
            400,
            "invalid_request_error",
            "json: cannot unmarshal number into Go struct field ToolCall.messages.tool_calls.function of type "
            'struct { Name string "json:\\"name\\""; Arguments string "json:\\"arguments\\"" }',
        ),
        ('{"messages": [null]}', 400, "invalid_request_error", "invalid message content type: <nil>"),
        ('{"messages": [{"role": "user", "content": ""}]}', 400, "invalid_request_error", "model is required"),
        ('{"model": "no", "messages": [{"content": ""}]}', 404, "not_found_error", "model 'no' not found"),
        ('{"model": "no", "stream": true, "messages": [{"content": ""}]}', 404, "not_found_error", "model 'no' not found"),
    ],
)
async def test_errors_have_their_own_form(live: Any, body: str, status: int, kind: str, message: str) -> None:
    got = await live.ask("POST", "/v1/chat/completions", data=body)
    assert got == (status, {"error": {"message": message, "type": kind, "param": None, "code": None}})


async def test_a_cloud_model_is_refused_in_the_native_form(live: Any) -> None:
    got = await chat(live, "x", model="no:cloud")
    assert got == (403, {"error": "ollama cloud is disabled: remote model is unavailable"})


async def test_a_runner_that_dies_ends_the_stream_with_an_error(live: Any) -> None:
    *parts, error = await chunks(live, "die()")
    assert parts[0]["choices"][0]["delta"]["content"] == "last words"
    assert error["error"]["type"] == "api_error"
    assert "model runner has unexpectedly stopped" in error["error"]["message"]


# ---------------------------------------------------------------- completions


async def complete(live: Any, prompt: Any, **fields: Any) -> tuple[int, Any]:
    answer: tuple[int, Any] = await live.post("/v1/completions", model=MODEL, prompt=prompt, **fields)
    return answer


async def test_a_completion(live: Any) -> None:
    _, answer = await complete(live, "say(one two three)", max_tokens=2)
    assert answer.pop("id").startswith("cmpl-")
    assert answer["choices"] == [{"text": "one two", "index": 0, "finish_reason": "length"}]
    assert (answer["object"], answer["usage"]["completion_tokens"]) == ("text_completion", 2)


async def test_a_streamed_completion_has_usage_in_every_chunk(live: Any) -> None:
    options = {"include_usage": True}
    *parts, done = await events(live, "/v1/completions", model=MODEL, prompt="say(one two)", stream=True, stream_options=options)
    assert done == "[DONE]"
    assert [part["choices"][0]["text"] for part in parts[:-1]] == ["one", " two", ""]
    assert parts[-2]["choices"][0]["finish_reason"] == "stop"
    assert [part["usage"]["completion_tokens"] for part in parts] == [0, 0, 0, 2]
    assert parts[-1]["choices"] == []


@pytest.mark.parametrize(
    "said",
    ["<think>\nHm.\n</think>\n\nYes.", "<think>Hm. </think>Yes.", "<think>\n\n</think>\n\nYes.", "<think>\n", "<thi", "Yes.\n"],
)
async def test_a_completion_shows_reasoning_as_it_was_written(live: Any, said: str) -> None:
    _, answer = await complete(live, f"say({said})", logprobs=1)
    choice = answer["choices"][0]
    assert choice["text"] == "".join(choice["logprobs"]["tokens"]) == said
    *parts, _ = await events(live, "/v1/completions", model=MODEL, prompt=f"say({said})", stream=True)
    assert "".join(part["choices"][0]["text"] for part in parts) == said


async def test_log_probabilities_of_a_completion(live: Any) -> None:
    _, answer = await complete(live, "say(one two)", logprobs=1)
    logprobs = answer["choices"][0]["logprobs"]
    assert (logprobs["tokens"], logprobs["text_offset"]) == (["one", " two"], [0, 3])
    assert logprobs["token_logprobs"] == [-0.5, -0.5]
    assert logprobs["top_logprobs"] == [{"one": -0.5}, {" two": -0.5}]


async def test_completions_that_are_refused(live: Any) -> None:
    wanted = "json: cannot unmarshal array into Go struct field CompletionRequest.prompt of type string"
    too_large = "json: cannot unmarshal number 1e+39 into Go struct field CompletionRequest.top_p of type float32"
    for fields, status, message in (
        ({"prompt": ["a", "b"]}, 400, wanted),
        ({"prompt": "a", "top_p": 1e39}, 400, too_large),
        ({"prompt": "a", "stop": [5]}, 400, "invalid type for 'stop' field: float64"),
        ({"prompt": "a", "model": ""}, 404, "model '' not found"),
    ):
        got, answer = await live.post("/v1/completions", **({"model": MODEL} | fields))
        assert (got, answer["error"]["message"]) == (status, message)


# ---------------------------------------------------------------- embeddings and models


async def test_embeddings_that_are_refused(live: Any) -> None:
    for fields, message in (
        ({"input": None}, "invalid input"),
        ({"input": []}, "invalid input"),
        (
            {"input": "a", "encoding_format": "hex"},
            "Invalid value for 'encoding_format' = hex. Supported values: ['float', 'base64'].",
        ),
        ({"input": [1, 2]}, "invalid input type"),
    ):
        status, answer = await live.post("/v1/embeddings", model=MODEL, **fields)
        assert (status, answer["error"]["message"]) == (400, message)
    status, answer = await live.post("/v1/embeddings", model="no", input="x")
    assert (status, answer["error"]["message"]) == (404, 'model "no" not found, try pulling it first')


def test_embeddings_are_numbers_or_base64() -> None:
    reply = {"embeddings": [[0.5, -0.25], [1.0, 0.0]], "prompt_eval_count": 3}
    plain = embeddings.listing(EmbedRequest(model="m"), reply)
    assert plain["data"][1] == {"object": "embedding", "embedding": [1.0, 0.0], "index": 1}
    assert (plain["model"], plain["usage"]) == ("m", {"prompt_tokens": 3, "total_tokens": 3})
    packed = embeddings.listing(EmbedRequest(encoding_format="BASE64"), reply)["data"][0]["embedding"]
    assert struct.unpack("<2f", base64.b64decode(packed)) == (0.5, -0.25)
    assert embeddings.to_native(EmbedRequest(input="")).input == [""]


async def test_models(live: Any) -> None:
    assert await live.ask("GET", "/v1/models") == (200, {"object": "list", "data": None})
    await chat(live, "x")
    _, models = await live.ask("GET", "/v1/models")
    assert [(model["id"], model["object"], model["owned_by"]) for model in models["data"]] == [
        ("demo-moe:latest", "model", "library")
    ]
    _, model = await live.ask("GET", "/v1/models/demo-moe")
    assert model["id"] == "demo-moe"


# ---------------------------------------------------------------- transcriptions and counts


async def test_transcriptions_that_are_refused(live: Any) -> None:
    path = "/v1/audio/transcriptions"
    head = {"Content-Type": "multipart/form-data; boundary=X"}
    sound = '--X\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n%s\r\n'
    model = '--X\r\nContent-Disposition: form-data; name="model"\r\n\r\n%s\r\n'
    for form, status, message in (
        (sound % "RIFF", 400, "model is required"),
        (model % "no", 400, "file is required: http: no such file"),
        (model % "no" + sound % "", 400, "audio file is empty"),
        (model % "no" + sound % "RIFF", 404, "model 'no' not found"),
    ):
        got, answer = await live.ask("POST", path, data=form + "--X--\r\n", headers=head)
        assert (got, answer["error"]["message"]) == (status, message)
    for form, message in (
        ("", "multipart: NextPart: EOF"),
        (model % "no", "unexpected EOF"),
        ("--X\r\nno header\r\n\r\nx\r\n--X--\r\n", "malformed MIME header"),
    ):
        got, answer = await live.ask("POST", path, data=form, headers=head)
        assert (got, answer["error"]["message"]) == (400, f"failed to parse multipart form: {message}")
    _, answer = await live.ask("POST", path, json={})
    wanted = "failed to parse multipart form: request Content-Type isn't multipart/form-data"
    assert answer["error"]["message"] == wanted


async def test_tokens_from_the_cache_are_told_when_they_are_many(live: Any) -> None:
    text = "word " * (2 * WORTH_TELLING)
    _, answer = await chat(live, text + "cached()")
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] > WORTH_TELLING
    _, answer = await chat(live, "cached()")
    assert "prompt_tokens_details" not in answer["usage"]
