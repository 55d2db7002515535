"""The real `openai` and `anthropic` Python clients against the real server and the embedded model."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from serving import Server

MODEL = "demo-moe"
COLD = {"temperature": 0}  # Anthropic's client no longer has it as a parameter
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"name": "get_weather", "description": "Get the weather of a city"}
ASK_WEATHER = [{"role": "user", "content": "What is the weather in Paris?"}]


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.host}/v1", api_key="ollama", max_retries=0) as client:
        yield client


@pytest.fixture
def claude(server: Server) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.host, api_key="ollama", max_retries=0) as client:
        yield client


def chat(client: openai.OpenAI, messages: Any = QUESTION, **fields: Any) -> Any:
    given = {"model": MODEL, "messages": messages, "temperature": 0, "max_tokens": 40, "reasoning_effort": "none"}
    return client.chat.completions.create(**(given | fields))


# ---------------------------------------------------------------- openai


def test_chat(client: openai.OpenAI) -> None:
    answer = chat(client)
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_chat_stream_equals_chat(client: openai.OpenAI) -> None:
    parts = list(chat(client, stream=True, stream_options={"include_usage": True}))
    text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    assert text == chat(client).choices[0].message.content
    assert parts[-1].usage.completion_tokens > 0


def test_reasoning(client: openai.OpenAI) -> None:
    message = chat(client, reasoning_effort="high", max_tokens=200).choices[0].message
    assert message.model_extra["reasoning"]
    assert "<think>" not in (message.content or "")


def test_a_tool_round_trip(client: openai.OpenAI) -> None:
    tools = [{"type": "function", "function": WEATHER | {"parameters": CITY}}]
    choice = chat(client, ASK_WEATHER, tools=tools, tool_choice="auto", max_tokens=120).choices[0]
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls
    assert call.function.name == "get_weather"
    assert "city" in json.loads(call.function.arguments)
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny, 21 degrees"}
    history = [*ASK_WEATHER, choice.message.model_dump(exclude_none=True), result]
    assert chat(client, history, tools=tools).choices[0].message.content


def test_no_tools_when_none_may_be_chosen(client: openai.OpenAI) -> None:
    tools = [{"type": "function", "function": WEATHER | {"parameters": CITY}}]
    without = chat(client, ASK_WEATHER).usage.prompt_tokens
    assert chat(client, ASK_WEATHER, tools=tools, tool_choice="none").usage.prompt_tokens == without
    assert chat(client, ASK_WEATHER, tools=tools).usage.prompt_tokens > without


def test_structured_output(client: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"capital": {"type": "string", "maxLength": 12}}, "required": ["capital"]}
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema | {"additionalProperties": False}}}
    content = chat(client, response_format=form, max_tokens=100).choices[0].message.content
    assert list(json.loads(content)) == ["capital"]


def test_completions(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt="Once upon a time", max_tokens=8, temperature=0)
    assert answer.choices[0].text
    parts = client.completions.create(model=MODEL, prompt="Once upon a time", max_tokens=8, temperature=0, stream=True)
    assert "".join(part.choices[0].text for part in parts) == answer.choices[0].text


def test_models(client: openai.OpenAI) -> None:
    chat(client, max_tokens=1)
    assert f"{MODEL}:latest" in [model.id for model in client.models.list()]
    assert client.models.retrieve(MODEL).owned_by == "library"


def test_responses(client: openai.OpenAI) -> None:
    answer = client.responses.create(
        model=MODEL, input="Hello!", reasoning={"effort": "none"}, temperature=0, max_output_tokens=20
    )
    assert answer.output_text
    assert answer.usage.output_tokens > 0


def test_responses_stream(client: openai.OpenAI) -> None:
    with client.responses.stream(model=MODEL, input="Hello!", temperature=0, max_output_tokens=200) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    assert "response.reasoning_summary_part.added" in kinds
    assert [item.type for item in final.output][:1] == ["reasoning"]


def test_responses_call_a_tool(client: openai.OpenAI) -> None:
    tools: Any = [{"type": "function", "strict": False, "parameters": CITY} | WEATHER]
    asked: Any = ASK_WEATHER
    given: Any = {"model": MODEL, "tools": tools, "reasoning": {"effort": "none"}, "temperature": 0}
    answer = client.responses.create(input=asked, **given)
    (call,) = [item for item in answer.output if item.type == "function_call"]
    assert (call.name, list(json.loads(call.arguments))) == ("get_weather", ["city"])
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    following = client.responses.create(input=[*asked, call.model_dump(), result], max_output_tokens=20, **given)
    assert following.output


def test_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="model 'nobody' not found"):
        chat(client, model="nobody")
    with pytest.raises(openai.BadRequestError, match="too short"):
        chat(client, [])


# ---------------------------------------------------------------- anthropic


def test_messages(claude: anthropic.Anthropic) -> None:
    given: Any = {"model": MODEL, "max_tokens": 30, "messages": QUESTION, "extra_body": COLD, "thinking": {"type": "disabled"}}
    answer = claude.messages.create(**given)
    assert answer.content[0].type == "text"
    assert answer.stop_reason in ("end_turn", "max_tokens")
    assert answer.usage.input_tokens > 0
    with claude.messages.stream(**given) as stream:
        text = "".join(stream.text_stream)
    assert text == answer.content[0].text
    del given["max_tokens"], given["extra_body"]
    assert claude.messages.count_tokens(**given).input_tokens == answer.usage.input_tokens


def test_messages_think(claude: anthropic.Anthropic) -> None:
    thinking: Any = {"type": "enabled", "budget_tokens": 1024}
    asked: Any = QUESTION
    answer = claude.messages.create(model=MODEL, max_tokens=2000, messages=asked, extra_body=COLD, thinking=thinking)
    assert answer.content[0].type == "thinking"


def test_messages_call_a_tool(claude: anthropic.Anthropic) -> None:
    tools: Any = [WEATHER | {"input_schema": CITY}]
    given: Any = {"model": MODEL, "max_tokens": 120, "tools": tools, "extra_body": COLD, "thinking": {"type": "disabled"}}
    asked: Any = ASK_WEATHER
    with claude.messages.stream(messages=asked, **given) as stream:
        answer = stream.get_final_message()
    assert answer.stop_reason == "tool_use"
    (call,) = [block for block in answer.content if block.type == "tool_use"]
    assert (call.name, list(call.input)) == ("get_weather", ["city"])
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny, 21 degrees"}
    history = [*asked, {"role": "assistant", "content": answer.content}, {"role": "user", "content": [result]}]
    assert claude.messages.create(messages=history, **given).content


def test_messages_errors(claude: anthropic.Anthropic) -> None:
    asked: Any = QUESTION
    with pytest.raises(anthropic.NotFoundError, match="model 'nobody' not found"):
        claude.messages.create(model="nobody", max_tokens=5, messages=asked)


# ---------------------------------------------------------------- beyond ollama

TRIP = {
    "type": "object",
    "properties": {"to": {"enum": ["Oslo", "Rome"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
}
BOOK = {"name": "book", "description": "Book a trip", "parameters": TRIP | {"required": ["to", "days"]}}
TOOLS: Any = [{"type": "function", "function": function} for function in (WEATHER | {"parameters": CITY}, BOOK)]


def is_booking(arguments: Any) -> bool:
    return set(arguments) == {"to", "days"} and arguments["to"] in ("Oslo", "Rome") and 1 <= arguments["days"] <= 9


@pytest.mark.parametrize("effort", ["none", "high"])
def test_a_named_tool_is_called_whatever_was_said(client: openai.OpenAI, effort: str) -> None:
    choice: Any = {"type": "function", "function": {"name": "book"}}
    given = {"tools": TOOLS, "tool_choice": choice, "reasoning_effort": effort, "max_tokens": 400}
    message = chat(client, **given).choices[0].message
    (call,) = message.tool_calls
    assert call.function.name == "book"
    assert is_booking(json.loads(call.function.arguments))
    deltas = [part.choices[0].delta for part in chat(client, stream=True, **given) if part.choices]
    streamed = [call for delta in deltas for call in delta.tool_calls or ()]
    assert [call.function.arguments for call in streamed] == [call.function.arguments]


def test_some_tool_is_called_when_it_is_required(client: openai.OpenAI) -> None:
    given = {
        "tools": TOOLS,
        "tool_choice": "required",
        "max_tokens": 300,
        "parallel_tool_calls": False,
        "temperature": 2,
        "seed": 3,
    }
    (call,) = chat(client, **given).choices[0].message.tool_calls
    arguments = json.loads(call.function.arguments)
    assert is_booking(arguments) if call.function.name == "book" else set(arguments) == {"city"}


def test_strict_arguments(client: openai.OpenAI) -> None:
    """The model would rather name a city."""
    strict = {"name": "get_weather", "strict": True, "parameters": TRIP | {"required": ["to", "days"]}}
    message = chat(client, ASK_WEATHER, tools=[{"type": "function", "function": strict}], max_tokens=120).choices[0].message
    assert all(is_booking(json.loads(call.function.arguments)) for call in message.tool_calls or ())
    assert message.tool_calls
    impossible = strict | {"parameters": {"type": "object", "properties": {"x": {"type": "array", "uniqueItems": True}}}}
    with pytest.raises(openai.BadRequestError, match="uniqueItems is not supported"):
        chat(client, tools=[{"type": "function", "function": impossible}])


def test_several_answers(client: openai.OpenAI) -> None:
    given = {"n": 3, "temperature": 1.5, "seed": 7, "max_tokens": 12}
    answer = chat(client, **given)
    texts = [choice.message.content for choice in answer.choices]
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len(set(texts)) > 1
    assert texts[1] == chat(client, **(given | {"n": 1, "seed": 8})).choices[0].message.content
    assert answer.usage.completion_tokens > 12
    parts = list(chat(client, stream=True, stream_options={"include_usage": True}, **given))
    for index, text in enumerate(texts):
        mine = [choice for part in parts for choice in part.choices if choice.index == index]
        assert "".join(choice.delta.content or "" for choice in mine) == text
        assert [choice.finish_reason for choice in mine if choice.finish_reason] in (["stop"], ["length"])
    assert [part.usage for part in parts if part.usage] == [answer.usage]
    with pytest.raises(openai.BadRequestError, match="between 1 and 128"):
        chat(client, n=0)


def test_several_completions(client: openai.OpenAI) -> None:
    given: Any = {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 20, "n": 2, "temperature": 1.5, "seed": 1}
    texts = [choice.text for choice in client.completions.create(**given).choices]
    assert len(set(texts)) == 2
    streamed = ["", ""]
    for part in client.completions.create(stream=True, **given):
        for choice in part.choices:
            streamed[choice.index] += choice.text
    assert streamed == texts


def test_biases_and_samplers(client: openai.OpenAI) -> None:
    first = chat(client, logprobs=True, max_tokens=1).choices[0].logprobs.content[0].token
    banned = chat(client, logit_bias={str(token): -100 for token in range(2000)}, max_tokens=1).choices[0].message.content
    assert banned != first
    assert chat(client, extra_body={"top_k": 1}, temperature=5, max_tokens=8).choices == chat(client, max_tokens=8).choices
    with pytest.raises(openai.BadRequestError, match="logit_bias"):
        chat(client, logit_bias={"hello": 1})


def test_a_grammar(client: openai.OpenAI) -> None:
    body = {"grammar": 'root ::= ("yes" | "no") ", " [0-9]+ "."'}
    for effort in ("none", "high"):
        content = chat(client, extra_body=body, reasoning_effort=effort, max_tokens=300).choices[0].message.content
        assert re.fullmatch(r"(yes|no), [0-9]+\.", content.strip())
    with pytest.raises(openai.BadRequestError, match="does not compile"):
        chat(client, extra_body={"grammar": "root ::= ("})


def test_messages_must_call_a_tool(claude: anthropic.Anthropic) -> None:
    given: Any = {"model": MODEL, "max_tokens": 300, "messages": QUESTION, "thinking": {"type": "adaptive"}, "extra_body": COLD}
    tools: Any = [WEATHER | {"input_schema": CITY}, {"name": "book", "input_schema": BOOK["parameters"]}]
    answer = claude.messages.create(tools=tools, tool_choice={"type": "tool", "name": "book"}, **given)
    (call,) = [block for block in answer.content if block.type == "tool_use"]
    assert is_booking(call.input)
    assert answer.stop_reason == "tool_use"


def test_messages_with_a_format(claude: anthropic.Anthropic) -> None:
    form: Any = {"format": {"type": "json_schema", "schema": TRIP | {"required": ["to", "days"]}}}
    given: Any = {"model": MODEL, "max_tokens": 300, "messages": QUESTION, "extra_body": COLD}
    answer = claude.messages.create(output_config=form, **given)
    assert is_booking(json.loads(next(block.text for block in answer.content if block.type == "text")))
