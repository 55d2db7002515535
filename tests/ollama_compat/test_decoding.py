from __future__ import annotations

import json
import math
from typing import Any

import pytest

from ollama_compat import decoding
from ollama_compat.errors import BadRequest
from ollama_compat.images import base64_fault
from ollama_compat.schema import ChatRequest, CreateRequest, EmbedRequest, GenerateRequest


def decode(kind: type[Any], **fields: Any) -> Any:
    return decoding.decode(json.dumps(fields).encode(), kind)


def error(kind: type[Any], body: str) -> str:
    with pytest.raises(BadRequest) as caught:
        decoding.decode(body.encode(), kind)
    return caught.value.message


def unmarshal(what: str, field: str, go_type: str) -> str:
    return f"json: cannot unmarshal {what} into Go struct field {field} of type {go_type}"


def test_defaults_are_ollamas() -> None:
    request = decoding.decode(b"{}", GenerateRequest)
    assert request == GenerateRequest()
    assert request.stream
    assert request.truncate
    assert request.keep_alive is None


def test_null_is_absent_everywhere() -> None:
    names = ("model", "prompt", "context", "stream", "raw", "format", "keep_alive", "images", "options", "think", "top_logprobs")
    assert decode(GenerateRequest, **dict.fromkeys(names)) == GenerateRequest()
    assert decoding.decode(b"null", GenerateRequest) == GenerateRequest()


def test_names_match_whatever_their_case_and_the_last_one_counts() -> None:
    request = decoding.decode(b'{"MODEL":"a","Prompt":"p","model":"b","STREAM":false}', GenerateRequest)
    assert (request.model, request.prompt, request.stream) == ("b", "p", False)


def test_of_a_name_that_stands_twice_null_changes_nothing_and_maps_grow() -> None:
    request = decoding.decode(b'{"model":"m","model":null,"options":{"a":1,"b":2},"options":{"b":3}}', GenerateRequest)
    assert (request.model, request.options) == ("m", {"a": 1, "b": 3})


def test_null_in_a_list_is_the_zero_of_its_elements() -> None:
    request = decode(GenerateRequest, images=[None, ""], context=[1, None])
    assert (request.images, request.context) == (["", ""], [1, 0])
    (message,) = decode(ChatRequest, messages=[None]).messages
    assert message == {"role": "", "content": ""}
    (tool,) = decode(ChatRequest, tools=[None]).tools
    assert tool == {"type": "", "function": {"name": "", "parameters": {"type": "", "properties": None}}}
    assert decode(CreateRequest, files={"a": None}).files == {"a": ""}


def test_unknown_fields_are_ignored() -> None:
    assert decode(ChatRequest, model="m", nonsense=[{}], prompt=5).model == "m"


def test_an_empty_body_is_missing() -> None:
    assert error(GenerateRequest, " ") == "missing request body"


@pytest.mark.parametrize(
    ("kind", "body", "message"),
    [
        (GenerateRequest, "[]", "json: cannot unmarshal array into Go value of type api.GenerateRequest"),
        (GenerateRequest, "1", "json: cannot unmarshal number into Go value of type api.GenerateRequest"),
        (GenerateRequest, '{"model":5}', unmarshal("number", "GenerateRequest.model", "string")),
        (GenerateRequest, '{"MODEL":true}', unmarshal("bool", "GenerateRequest.model", "string")),
        (
            GenerateRequest,
            '{"top_logprobs":1.0}',
            unmarshal("number 1.0", "GenerateRequest.top_logprobs", "int"),
        ),
        (
            GenerateRequest,
            '{"options":[]}',
            unmarshal("array", "GenerateRequest.options", "map[string]interface {}"),
        ),
        (
            GenerateRequest,
            '{"options":{"top_p":1e999}}',
            unmarshal("number 1e999", "GenerateRequest.options", "float64"),
        ),
        (GenerateRequest, '{"context":["x"]}', unmarshal("string", "GenerateRequest.context", "int")),
        (GenerateRequest, '{"prompt":{},"raw":1}', unmarshal("object", "GenerateRequest.prompt", "string")),
        (
            ChatRequest,
            '{"messages":{}}',
            unmarshal("object", "ChatRequest.messages", "[]api.Message"),
        ),
        (
            ChatRequest,
            '{"messages":["x"]}',
            unmarshal("string", "ChatRequest.messages", "api.Alias"),
        ),
        (
            ChatRequest,
            '{"messages":[{"content":[]}]}',
            unmarshal("array", "ChatRequest.messages.content", "string"),
        ),
        (
            ChatRequest,
            '{"tools":[{"function":{"parameters":"x"}}]}',
            unmarshal("string", "ToolFunction.tools.function.parameters", "api.ToolFunctionParameters"),
        ),
        (
            ChatRequest,
            '{"messages":[{"tool_calls":[{"function":{"arguments":"{}"}}]}]}',
            "Value looks like object, but can't find closing '}' symbol",
        ),
        (
            ChatRequest,
            '{"messages":[{"content":1,"images":["!"]}]}',
            unmarshal("number", "ChatRequest.messages.content", "string"),
        ),
        (ChatRequest, '{"messages":[{"images":["!"],"content":1}]}', "illegal base64 data at input byte 0"),
        (
            ChatRequest,
            '{"tools":[{"function":{"parameters":{"properties":{"a":{"anyOf":[{"type":1}]}}}}}]}',
            unmarshal("number", "ToolFunctionParameters.tools.function.parameters.properties.anyOf.type", "[]string"),
        ),
        (
            ChatRequest,
            '{"tools":[{"function":{"parameters":{"properties":{"a":{"required":[1]}}}}}]}',
            unmarshal("number", "ToolFunctionParameters.tools.function.parameters.properties.required", "string"),
        ),
        (GenerateRequest, '{"model":1,"model":"m"}', unmarshal("number", "GenerateRequest.model", "string")),
        (GenerateRequest, '{"images":[[256]]}', unmarshal("number 256", "GenerateRequest.images", "uint8")),
        (
            GenerateRequest,
            '{"options":{"a":[1,{"b":1e400}]}}',
            unmarshal("number 1e400", "GenerateRequest.options", "float64"),
        ),
        (CreateRequest, '{"files":["a"]}', unmarshal("array", "CreateRequest.files", "map[string]string")),
    ],
)
def test_wrong_types_are_refused_in_gos_words(kind: type[Any], body: str, message: str) -> None:
    assert error(kind, body) == message


def test_an_error_of_a_types_own_decoder_wins_over_an_earlier_type_fault() -> None:
    assert error(GenerateRequest, '{"model":1,"keep_alive":"x"}') == 'time: invalid duration "x"'


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (300, 300),
        (90.5, 90.5),
        (0, 0),
        (-1, math.inf),
        (-0.5, math.inf),
        (1e300, math.inf),
        ("5m", 300),
        ("1h30m", 5400),
        ("120000ms", 120),
        ("1.5s", 1.5),
        ("-1m", math.inf),
        ("0", 0),
        ("0s", 0),
        ("-1", math.inf),
    ],
)
def test_keep_alive_in_all_its_forms(value: Any, seconds: float) -> None:
    assert decode(GenerateRequest, keep_alive=value).keep_alive == seconds


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("true", "Unsupported type: 'bool'"),
        ("{}", "Unsupported type: 'map[string]interface {}'"),
        ("[]", "Unsupported type: '[]interface {}'"),
        ('"30"', 'time: missing unit in duration "30"'),
        ('""', 'time: invalid duration ""'),
        ('"abc"', 'time: invalid duration "abc"'),
        ('"5 minutes"', 'time: unknown unit " minutes" in duration "5 minutes"'),
        ('"1d"', 'time: unknown unit "d" in duration "1d"'),
        ("1e400", unmarshal("number 1e400", "GenerateRequest.keep_alive", "float64")),
    ],
)
def test_keep_alive_that_is_none(value: str, message: str) -> None:
    assert error(GenerateRequest, f'{{"keep_alive":{value}}}') == message


@pytest.mark.parametrize("value", [True, False, "low", "medium", "high", "max"])
def test_think(value: Any) -> None:
    assert decode(ChatRequest, think=value).think == value


def test_think_that_is_none() -> None:
    levels = '"high", "medium", "low", "max", true, or false)'
    assert error(ChatRequest, '{"think":"true"}') == f'invalid think value: "true" (must be {levels}'
    assert error(ChatRequest, '{"think":1}') == f"think must be a boolean or string ({levels}"


def test_messages_come_in_the_form_in_which_ollama_writes_them() -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": {"b": 1, "a": [2.5]}}, "id": "c1"}
    request = decode(ChatRequest, messages=[{"Role": "USER", "content": None, "tool_calls": [call], "x": 1}, {"thinking": "t"}])
    assert request.messages == [
        {
            "role": "user",
            "content": "",
            "tool_calls": [{"id": "c1", "function": {"index": 0, "name": "f", "arguments": {"b": 1, "a": [2.5]}}}],
        },
        {"role": "", "content": "", "thinking": "t"},
    ]
    assert list(request.messages[0]["tool_calls"][0]["function"]["arguments"]) == ["b", "a"]


def test_tools_keep_the_schema_fields_that_ollama_keeps_in_its_order() -> None:
    parameters = {
        "properties": {
            "b": {"default": 1, "description": "d", "type": ["string", "null"]},
            "a": {"enum": [1, "x"], "type": "string"},
        },
        "required": ["b"],
        "type": "object",
        "additionalProperties": False,
    }
    request = decode(ChatRequest, tools=[{"function": {"parameters": parameters, "name": "f"}, "type": "function"}])
    assert json.dumps(request.tools) == json.dumps(
        [
            {
                "type": "function",
                "function": {
                    "name": "f",
                    "parameters": {
                        "type": "object",
                        "required": ["b"],
                        "properties": {
                            "b": {"type": ["string", "null"], "description": "d"},
                            "a": {"type": "string", "enum": [1, "x"]},
                        },
                    },
                },
            }
        ]
    )


def test_a_tool_without_parameters_has_empty_ones() -> None:
    (tool,) = decode(ChatRequest, tools=[{"type": "function", "function": {"name": "f"}}]).tools
    assert tool["function"]["parameters"] == {"type": "", "properties": None}


def test_any_input_of_embed_is_kept_for_its_own_check() -> None:
    assert decode(EmbedRequest, input=["a", 1]).input == ["a", "1"]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", None),
        ("aGk=", None),
        ("aGk=\n", None),
        ("aG\nk=", None),
        ("!!!", 0),
        ("@@", 0),
        ("aGk", 0),
        ("aGkxa", 4),
        ("data:image/png;base64,aGk=", 4),
        ("aGk=a", 4),
        ("aG=a", 2),
        ("aG=", 3),
        ("a===", 1),
        ("=", 0),
    ],
)
def test_base64_stops_where_gos_decoder_stops(text: str, place: int | None) -> None:
    assert base64_fault(text) == place


def test_images_are_checked() -> None:
    assert error(GenerateRequest, '{"images":["!"]}') == "illegal base64 data at input byte 0"
    assert decode(GenerateRequest, images=["aGk="]).images == ["aGk="]
    assert decode(GenerateRequest, images=[[104, 105], [None]]).images == ["aGk=", "AA=="]


def test_a_deep_value_is_no_server_error() -> None:
    body = '{"options":{"x":' + "[" * 5000 + "]" * 5000 + "}}"
    assert error(GenerateRequest, body) == "exceeded max depth"
