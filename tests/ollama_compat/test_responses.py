from __future__ import annotations

import json
from typing import Any

import pytest

from ollama_compat import decoding, schema
from ollama_compat.errors import BadRequest
from ollama_compat.openai.responses import ResponsesRequest, to_native

MODEL = "demo-moe"
CALL = 'say(Wait. <tool_call>\n{"name": "%s", "arguments": {"city": "Paris"}}\n</tool_call>)'
# fmt: off
KEYS = [
    "id", "object", "created_at", "completed_at", "status", "incomplete_details", "model", "previous_response_id",
    "instructions", "output", "error", "tools", "tool_choice", "truncation", "parallel_tool_calls", "text", "top_p",
    "presence_penalty", "frequency_penalty", "top_logprobs", "temperature", "reasoning", "usage",
    "max_output_tokens", "max_tool_calls", "store", "background", "service_tier", "metadata", "safety_identifier",
    "prompt_cache_key",
]
# fmt: on


def tool(name: str = "get_weather") -> dict[str, Any]:
    city = {"type": "string", "description": "City"}
    parameters = {"type": "object", "required": ["city"], "properties": {"city": city}}
    return {"type": "function", "name": name, "description": "Get the weather", "strict": False, "parameters": parameters}


NAMESPACE = {"type": "namespace", "name": "ns", "description": "d", "tools": [tool()]}


async def ask(live: Any, text: Any, **fields: Any) -> Any:
    body = {"model": MODEL, "input": text, "reasoning": {"effort": "none"}} | fields
    status, answer = await live.post("/v1/responses", **body)
    assert status == 200, answer
    return answer


async def events(live: Any, text: Any, **fields: Any) -> list[Any]:
    """The events of a stream, each checked to be named as it says."""
    body = {"model": MODEL, "input": text, "reasoning": {"effort": "none"}, "stream": True} | fields
    async with live.session.post("/v1/responses", json=body) as response:
        assert (response.status, response.headers["Content-Type"]) == (200, "text/event-stream")
        blocks = (await response.text()).removesuffix("\n\n").split("\n\n")
    pairs = [block.split("\n") for block in blocks]
    found = [json.loads(data.removeprefix("data: ")) for _, data in pairs]
    assert [name.removeprefix("event: ") for name, _ in pairs] == [event["type"] for event in found]
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    assert all(list(event) == sorted(event) for event in found)
    return found


def native(**fields: Any) -> schema.ChatRequest:
    return to_native(decoding.decode(json.dumps({"model": "m"} | fields).encode(), ResponsesRequest, "openai"))


# ---------------------------------------------------------------- answers


async def test_numbers_beyond_all_reason_come_back(live: Any) -> None:
    answer = await ask(live, "say(Hello)", temperature=1e30, top_p=99999999999999999999)
    assert (answer["temperature"], answer["top_p"]) == (1e30, 1e20)


async def test_an_answer_in_one_object(live: Any) -> None:
    answer = await ask(live, "say(Hello there.)", instructions="Be kind.", max_output_tokens=9, temperature=0)
    assert list(answer) == KEYS
    (message,) = answer["output"]
    assert message.pop("id").startswith("msg_")
    text = {"type": "output_text", "text": "Hello there.", "annotations": [], "logprobs": []}
    assert message == {"type": "message", "status": "completed", "role": "assistant", "content": [text]}
    echo = {key: answer[key] for key in ("instructions", "max_output_tokens", "temperature", "top_p", "reasoning", "status")}
    assert echo == {
        **{"instructions": "Be kind.", "max_output_tokens": 9, "temperature": 0, "top_p": 1},
        **{"reasoning": {"effort": "none"}, "status": "completed"},
    }
    assert (answer["usage"]["output_tokens"], answer["usage"]["input_tokens_details"]) == (2, {"cached_tokens": 0})


async def test_reasoning_is_an_item(live: Any) -> None:
    answer = await ask(live, "say(<think>\nHm.\n</think>\n\nYes.)", reasoning=None)
    reasoning, message = answer["output"]
    assert reasoning.pop("id") == f"rs_{answer['id']}"
    summary = [{"type": "summary_text", "text": "Hm.\n"}]
    assert reasoning == {"type": "reasoning", "summary": summary, "encrypted_content": "Hm.\n"}
    assert message["content"][0]["text"] == "Yes."
    assert answer["reasoning"] is None


async def test_calls_are_items(live: Any) -> None:
    answer = await ask(live, CALL % "get_weather", tools=[tool()])
    (call,) = answer["output"]
    assert call.pop("id").startswith("fc_")
    assert call.pop("call_id").startswith("call_")
    rest = {"name": "get_weather", "arguments": '{"city":"Paris"}'}
    assert call == {"type": "function_call", "status": "completed"} | rest
    parameters = answer["tools"][0]["parameters"]
    assert list(parameters) == ["properties", "required", "type"]


async def test_a_stream_of_text(live: Any) -> None:
    found = await events(live, "say(Hello there.)")
    assert [event["type"].removeprefix("response.") for event in found] == [
        *("created", "in_progress", "output_item.added", "content_part.added"),
        *("output_text.delta", "output_text.delta", "output_text.done", "content_part.done", "output_item.done"),
        "completed",
    ]
    assert [event["delta"] for event in found if "delta" in event] == ["Hello", " there."]
    last = found[-1]["response"]
    assert (last["status"], last["output"]) == ("completed", [found[-2]["item"]])
    assert last["output"][0]["content"][0]["text"] == "Hello there."
    assert last["usage"]["output_tokens"] == 2
    assert sorted(KEYS) == list(last)
    assert len({event["item_id"] for event in found if "item_id" in event} | {last["output"][0]["id"]}) == 1


async def test_a_stream_with_reasoning_opens_a_summary_part(live: Any) -> None:
    found = await events(live, "say(<think>\nHm, well.\n</think>\n\nYes.)", reasoning={"summary": "auto"})
    kinds = [event["type"].removeprefix("response.") for event in found]
    assert kinds[2:4] == ["output_item.added", "reasoning_summary_part.added"]
    assert kinds[kinds.index("reasoning_summary_text.done") :][:3] == [
        *("reasoning_summary_text.done", "output_item.done", "output_item.added"),
    ]
    done = next(event for event in found if event["type"] == "response.output_item.done")
    assert done["item"]["summary"] == [{"text": "Hm, well.\n", "type": "summary_text"}]
    assert [item["type"] for item in found[-1]["response"]["output"]] == ["reasoning", "message"]
    assert found[0]["response"]["reasoning"] == {"effort": None, "summary": "auto"}


async def test_what_of_the_request_is_repeated(live: Any) -> None:
    body = {"model": MODEL, "input": "say(one)", "reasoning": {"summary": "auto", "generate_summary": "auto"}}
    for choice, shown in (("none", "none"), (7, "auto"), ("any", "auto")):
        _, answer = await live.post("/v1/responses", **body, tool_choice=choice)
        assert (answer["reasoning"], answer["tool_choice"]) == ({"summary": "auto"}, shown)


async def test_a_stream_with_calls_closes_the_text_first(live: Any) -> None:
    found = await events(live, CALL % "get_weather", tools=[tool()])
    kinds = [event["type"].removeprefix("response.") for event in found]
    assert kinds[-7:] == [
        *("content_part.done", "output_item.done", "output_item.added", "function_call_arguments.delta"),
        *("function_call_arguments.done", "output_item.done", "completed"),
    ]
    added, delta = found[-5], found[-4]
    assert (added["item"]["status"], added["item"]["arguments"]) == ("in_progress", "")
    assert (delta["output_index"], delta["delta"]) == (1, '{"city":"Paris"}')
    assert [item["type"] for item in found[-1]["response"]["output"]] == ["message", "function_call"]


async def test_a_call_into_a_namespace_says_so(live: Any) -> None:
    found = await events(live, CALL % "ns.get_weather", tools=[NAMESPACE])
    item = found[-2]["item"]
    assert (item["namespace"], item["name"]) == ("ns", "get_weather")
    answer = await ask(live, CALL % "ns.get_weather", tools=[NAMESPACE])
    assert (answer["output"][0]["namespace"], answer["output"][0]["name"]) == ("ns", "get_weather")
    assert answer["tools"][0]["tools"][0]["name"] == "get_weather"


async def test_nothing_to_answer(live: Any) -> None:
    answer = await ask(live, [])
    assert answer["output"][0]["content"][0]["text"] == ""
    assert answer["usage"]["total_tokens"] == 0
    kinds = [event["type"] for event in await events(live, [])]
    assert kinds == ["response.created", "response.in_progress", "response.completed"]


async def test_a_runner_that_dies_fails_the_response(live: Any) -> None:
    found = await events(live, "die()")
    assert found[-1]["type"] == "response.failed"
    assert found[-1]["response"]["status"] == "failed"
    assert "model runner has unexpectedly stopped" in found[-1]["response"]["error"]["message"]


# ---------------------------------------------------------------- requests


def test_items_become_messages() -> None:
    items = [
        {"role": "developer", "content": "Be kind."},
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}],
        },
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "hm"},
        {"type": "function_call", "call_id": "c1", "name": "f", "namespace": "ns", "arguments": '{"b":1,"a":2}'},
        {"type": "function_call", "call_id": "c2", "name": "g", "arguments": ""},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Wait."}]},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "sunny"}]},
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search"}},
        {"type": "reasoning", "encrypted_content": "so"},
    ]
    calls = [
        {"id": "c1", "function": {"index": 0, "name": "ns.f", "arguments": {"b": 1, "a": 2}}},
        {"id": "c2", "function": {"index": 0, "name": "g", "arguments": {}}},
    ]
    assert native(instructions="S", input=items).messages == [
        {"role": "system", "content": "S"},
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": "ab"},
        {"role": "assistant", "content": "Wait.", "thinking": "hm", "tool_calls": calls},
        {"role": "tool", "content": "sunny", "tool_call_id": "c2"},
        {"role": "assistant", "content": "", "thinking": "so"},
    ]


def test_tools_lose_what_nobody_runs() -> None:
    search = {"type": "web_search", "external_web_access": False}
    made = native(tools=[search, NAMESPACE, tool("other")]).tools
    assert [tool["function"]["name"] for tool in made or ()] == ["ns.get_weather", "other"]
    parameters = (made or [])[1]["function"]["parameters"]
    assert parameters["properties"] == {"city": {"type": "string", "description": "City"}}
    assert native(tools=[search]).tools is None
    assert [each["type"] for each in native(tools=[{}, {"type": "function"}]).tools or ()] == ["", "function"]
    assert native(tools=[tool()], tool_choice="none").tool_choice.hidden


def test_options() -> None:
    assert native(input="x").options == {"temperature": 1.0}
    assert native(input="x", temperature=0, top_p=0.5, max_output_tokens=3).options == {
        **{"temperature": 0.0, "top_p": 0.5, "num_predict": 3},
    }
    form = {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}
    assert native(text={"format": form}).format == {"type": "object"}
    assert native(text={"format": {"type": "text"}}).format is None


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (5, "input must be a string or array: json: cannot unmarshal number into Go value of type []json.RawMessage"),
        ([{"type": "nope"}], 'input[0]: unknown input item type: "nope"'),
        ([{"role": "user"}, {}], "input[1]: input item missing required 'type' field"),
        ([{"role": "user", "content": [{"type": "nope"}]}], "input[0]: content[0]: unknown content type: nope"),
        (
            [{"role": "user", "content": [1]}],
            "input[0]: content[0]: json: cannot unmarshal number into Go value of type "
            'struct { Type string "json:\\"type\\"" }',
        ),
        (
            ["x"],
            "input[0]: json: cannot unmarshal string into Go value of type "
            'struct { Type string "json:\\"type\\""; Role string "json:\\"role\\"" }',
        ),
        (
            [{"type": "reasoning", "summary": "x"}],
            "input[0]: json: cannot unmarshal string into Go struct field ResponsesReasoningInput.summary of type "
            "[]openai.ResponsesReasoningSummary",
        ),
        (
            [{"type": "function_call_output", "output": 5}],
            "input[0]: output must be a string or array: json: cannot unmarshal number into Go value of type []json.RawMessage",
        ),
        ([{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}], "file inputs are not currently supported"),
        ([{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}], "invalid image input"),
        (
            [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}, {"type": "input_file"}]}],
            "invalid image input",
        ),
        (
            [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "x"}],
            "failed to parse function call arguments: invalid character 'x' looking for beginning of value",
        ),
    ],
)
def test_inputs_that_are_refused(content: Any, message: str) -> None:
    with pytest.raises(BadRequest) as error:
        native(input=content)
    assert error.value.message == message


def test_a_tool_whose_schema_is_none() -> None:
    with pytest.raises(BadRequest) as error:
        native(tools=[{"type": "function", "name": "f", "parameters": {"type": 1}}])
    assert error.value.message == (
        "failed to unmarshal tool parameters: "
        "json: cannot unmarshal number into Go struct field ToolFunctionParameters.type of type string"
    )


async def test_errors_have_openais_form(live: Any) -> None:
    for body, status, message in (
        ("", 400, "EOF"),
        ('{"input": "x"}', 400, "model is required"),
        ('{"model": "no", "input": "x", "stream": true}', 404, "model 'no' not found"),
    ):
        got, answer = await live.ask("POST", "/v1/responses", data=body)
        assert (got, answer["error"]["message"]) == (status, message)
        assert list(answer["error"]) == ["message", "type", "param", "code"]
