"""The real `openai` and `anthropic` Python clients against the real server and the embedded model."""

from __future__ import annotations

import json
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
