"""Frameworks that speak Ollama's own API or OpenAI's: chat, stream, tools, structured output, vectors as each has them."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

MODEL = "demo-moe"
WEATHER = "What is the weather in Paris?"
STORY = "Tell me a story about a boat."


class Trip(BaseModel):
    """A trip."""

    to: Literal["Oslo", "Rome"]
    days: int = Field(ge=1, le=9)


def get_weather(city: str) -> str:
    """Get the weather of a city

    Args:
        city: The city
    """
    return f"sunny in {city}, 21 degrees"


# ---------------------------------------------------------------- LangChain


@pytest.fixture
def chain(host: str) -> Any:
    from langchain_ollama import ChatOllama

    return ChatOllama(model=MODEL, base_url=host, temperature=0, num_predict=200, reasoning=False)


def test_langchain_chat_and_stream(chain: Any) -> None:
    whole = chain.invoke(STORY)
    assert whole.content
    assert whole.usage_metadata["output_tokens"] > 0
    assert whole.response_metadata["done_reason"] in ("stop", "length")
    assert "".join(part.content for part in chain.stream(STORY)) == whole.content


def test_langchain_reasoning(host: str) -> None:
    from langchain_ollama import ChatOllama

    answer = ChatOllama(model=MODEL, base_url=host, temperature=0, num_predict=400, reasoning=True).invoke("What is 12 plus 30?")
    assert answer.additional_kwargs["reasoning_content"]


def test_langchain_tools(chain: Any) -> None:
    from langchain_core.messages import HumanMessage, ToolMessage

    bound = chain.bind_tools([get_weather])
    asked = [HumanMessage(WEATHER)]
    answer = bound.invoke(asked)
    (call,) = answer.tool_calls
    assert (call["name"], call["args"]) == ("get_weather", {"city": "Paris"})
    result = ToolMessage(get_weather(**call["args"]), tool_call_id=call["id"])
    assert bound.invoke([*asked, answer, result]).content
    streamed = [call for part in bound.stream(asked) for call in part.tool_call_chunks]
    assert [call["name"] for call in streamed] == ["get_weather"]


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
def test_langchain_structured(chain: Any, method: str) -> None:
    found = chain.with_structured_output(Trip, method=method, include_raw=True).invoke("Book a trip to Rome for 3 days.")
    if method == "json_schema":
        assert isinstance(found["parsed"], Trip)
    elif method == "json_mode":
        assert isinstance(json.loads(found["raw"].content), dict)
    else:  # the framework cannot say that the tool has to be called
        assert found["raw"].tool_calls or found["raw"].content


def test_langchain_embeddings(host: str) -> None:
    from langchain_ollama import OllamaEmbeddings

    made = OllamaEmbeddings(model="encoder", base_url=host)
    vectors = made.embed_documents(["the sky is blue", "a boat"])
    assert len(vectors) == 2
    assert made.embed_query("a boat") == pytest.approx(vectors[1], abs=1e-5)


def test_langchain_openai(host: str) -> None:
    from langchain_openai import ChatOpenAI, OpenAIEmbeddings

    model = ChatOpenAI(model=MODEL, base_url=f"{host}/v1", api_key="x", temperature=0, max_tokens=200, reasoning_effort="none")
    assert model.invoke(STORY).content
    forced = model.bind_tools([get_weather], tool_choice="get_weather").invoke("Hello!")
    assert [call["name"] for call in forced.tool_calls] == ["get_weather"]
    assert isinstance(model.with_structured_output(Trip).invoke("Book a trip."), Trip)
    assert isinstance(model.with_structured_output(Trip, method="function_calling").invoke("Book a trip."), Trip)
    vectors = OpenAIEmbeddings(model="encoder", base_url=f"{host}/v1", api_key="x", check_embedding_ctx_length=False)
    assert len(vectors.embed_documents(["a", "b"])) == 2


# ---------------------------------------------------------------- LlamaIndex


@pytest.fixture
def index(host: str) -> Any:
    from llama_index.llms.ollama import Ollama

    options = {"num_predict": 200}
    return Ollama(model=MODEL, base_url=host, temperature=0, request_timeout=120, thinking=False, additional_kwargs=options)


def test_llamaindex_chat_and_stream(index: Any) -> None:
    from llama_index.core.llms import ChatMessage

    whole = index.chat([ChatMessage(role="user", content=STORY)])
    assert whole.message.content
    assert index.complete(STORY).text
    *_, last = index.stream_chat([ChatMessage(role="user", content=STORY)])
    assert last.message.content == whole.message.content


def test_llamaindex_tools(index: Any) -> None:
    from llama_index.core.tools import FunctionTool

    tool = FunctionTool.from_defaults(get_weather, description="Get the weather of a city")
    answer = index.predict_and_call([tool], WEATHER)
    assert "sunny in Paris" in str(answer)


def test_llamaindex_structured(index: Any) -> None:
    from llama_index.core.llms import ChatMessage

    made = index.as_structured_llm(Trip).chat([ChatMessage(role="user", content="Book a trip.")])
    assert isinstance(made.raw, Trip)


def test_llamaindex_embeddings(host: str) -> None:
    from llama_index.embeddings.ollama import OllamaEmbedding

    made = OllamaEmbedding(model_name="encoder", base_url=host)
    assert len(made.get_text_embedding_batch(["the sky is blue", "a boat"])) == 2


# ---------------------------------------------------------------- litellm

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.mark.parametrize("prefix", ["ollama", "ollama_chat", "openai"])
def test_litellm(host: str, prefix: str) -> None:
    import litellm

    base = f"{host}/v1" if prefix == "openai" else host
    given: dict[str, Any] = {"model": f"{prefix}/{MODEL}", "api_base": base, "temperature": 0, "max_tokens": 200, "api_key": "x"}
    given |= {"messages": [{"role": "user", "content": STORY}]}
    whole = litellm.completion(**given)
    assert whole.choices[0].message.content or whole.choices[0].message.reasoning_content
    assert whole.usage.completion_tokens > 0
    parts = [part.choices[0].delta for part in litellm.completion(stream=True, **given)]
    assert "".join((part.content or "") + (getattr(part, "reasoning_content", "") or "") for part in parts)


@pytest.mark.parametrize("prefix", ["ollama_chat", "openai"])
def test_litellm_tools(host: str, prefix: str) -> None:
    import litellm

    base = f"{host}/v1" if prefix == "openai" else host
    given: dict[str, Any] = {"model": f"{prefix}/{MODEL}", "api_base": base, "temperature": 0, "max_tokens": 300, "api_key": "x"}
    messages: list[Any] = [{"role": "user", "content": WEATHER}]
    message = litellm.completion(messages=messages, tools=[TOOL], **given).choices[0].message
    (call,) = message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    messages += [message, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    following = litellm.completion(messages=messages, tools=[TOOL], **given).choices[0].message
    assert following.content or following.reasoning_content
    form = {"type": "json_schema", "json_schema": {"name": "trip", "schema": Trip.model_json_schema()}}
    asked = [{"role": "user", "content": "Book a trip."}]
    content = litellm.completion(messages=asked, response_format=form, **given | {"max_tokens": 500}).choices[0].message.content
    assert Trip.model_validate_json(content)


def test_litellm_embeddings(host: str) -> None:
    import litellm

    found = litellm.embedding(model="ollama/encoder", api_base=host, input=["a", "b"])
    assert len(found.data) == 2
    given = {"api_base": f"{host}/v1", "api_key": "x", "encoding_format": "float"}
    assert len(litellm.embedding(model="openai/encoder", input=["a", "b"], **given).data) == 2


# ---------------------------------------------------------------- pydantic-ai, instructor


@pytest.fixture
def pydantic_model(host: str) -> Any:
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.ollama import OllamaProvider

    return OpenAIChatModel(MODEL, provider=OllamaProvider(base_url=f"{host}/v1"))


SETTINGS: Any = {"temperature": 0.0, "max_tokens": 500, "openai_reasoning_effort": "none"}


async def test_pydantic_ai_text(pydantic_model: Any) -> None:
    from pydantic_ai import Agent

    agent = Agent(pydantic_model, model_settings=SETTINGS)
    assert (await agent.run(STORY)).output
    async with agent.run_stream(STORY) as stream:
        assert await stream.get_output()


async def test_pydantic_ai_output_tool(pydantic_model: Any) -> None:
    """It forces the call of a tool by `tool_choice: required`."""
    from pydantic_ai import Agent

    found = await Agent(pydantic_model, output_type=Trip, model_settings=SETTINGS).run("Hello!")
    assert isinstance(found.output, Trip)


async def test_pydantic_ai_native_output(pydantic_model: Any) -> None:
    from pydantic_ai import Agent, NativeOutput

    found = await Agent(pydantic_model, output_type=NativeOutput(Trip), model_settings=SETTINGS).run("Hello!")
    assert isinstance(found.output, Trip)


async def test_pydantic_ai_tools(pydantic_model: Any) -> None:
    from pydantic_ai import Agent

    agent, called = Agent(pydantic_model, model_settings=SETTINGS), []

    @agent.tool_plain(name="get_weather", description="Get the weather of a city")
    def weather(city: str) -> str:
        called.append(city)
        return "sunny, 21 degrees"

    assert (await agent.run(WEATHER)).output
    assert called == ["Paris"]


@pytest.mark.parametrize("mode", ["TOOLS", "JSON", "JSON_SCHEMA"])
def test_instructor(host: str, mode: str) -> None:
    import instructor
    import openai

    client = instructor.from_openai(openai.OpenAI(base_url=f"{host}/v1", api_key="x"), mode=instructor.Mode[mode])
    asked: Any = [{"role": "user", "content": "Book a trip to Rome for 3 days."}]
    given: dict[str, Any] = {"model": MODEL, "messages": asked, "temperature": 0, "max_tokens": 300, "max_retries": 1}
    if mode == "JSON":  # any object is allowed there, and the small model does not fill in the fields
        with pytest.raises(Exception, match="validation"):
            client.chat.completions.create(response_model=Trip, extra_body={"reasoning_effort": "none"}, **given)
        return
    found = client.chat.completions.create(response_model=Trip, extra_body={"reasoning_effort": "none"}, **given)
    assert isinstance(found, Trip)


# ---------------------------------------------------------------- Haystack


def test_haystack(host: str) -> None:
    from haystack.dataclasses import ChatMessage
    from haystack.tools import create_tool_from_function
    from haystack_integrations.components.generators.ollama import OllamaChatGenerator

    tool = create_tool_from_function(get_weather, description="Get the weather of a city")
    options = {"temperature": 0, "num_predict": 200}
    generator = OllamaChatGenerator(model=MODEL, url=host, generation_kwargs=options, tools=[tool], think=False)
    asked = [ChatMessage.from_user(WEATHER)]
    (answer,) = generator.run(asked)["replies"]
    (call,) = answer.tool_calls
    assert (call.tool_name, call.arguments) == ("get_weather", {"city": "Paris"})
    (following,) = generator.run([*asked, answer, ChatMessage.from_tool("sunny", origin=call)])["replies"]
    assert following.text
    parts: list[str] = []
    streaming = OllamaChatGenerator(
        model=MODEL, url=host, generation_kwargs=options, think=False, streaming_callback=lambda part: parts.append(part.content)
    )
    (whole,) = streaming.run([ChatMessage.from_user(STORY)])["replies"]
    assert "".join(parts) == whole.text != ""
    formed = OllamaChatGenerator(
        model=MODEL, url=host, generation_kwargs=options, think=False, response_format=Trip.model_json_schema()
    )
    assert Trip.model_validate_json(formed.run(asked)["replies"][0].text)


def test_haystack_embeddings(host: str) -> None:
    from haystack_integrations.components.embedders.ollama import OllamaTextEmbedder

    assert len(OllamaTextEmbedder(model="encoder", url=host).run("a boat")["embedding"]) == 128


# ---------------------------------------------------------------- llm


@pytest.fixture
def llm(host: str, tmp_path: Path) -> Any:
    """Runs the command `llm`."""
    environ = os.environ | {"OLLAMA_HOST": host, "LLM_USER_PATH": str(tmp_path)}
    del environ["PYTHONPATH"]

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "llm", *arguments]
        given: dict[str, Any] = {"env": environ, "capture_output": True, "text": True, "stdin": subprocess.DEVNULL}
        done = subprocess.run(command, timeout=120, check=False, **given)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_llm(llm: Any) -> None:
    assert MODEL in llm("ollama", "models")
    options = ("-o", "temperature", "0", "-o", "num_predict", "100", "-o", "think", "false")
    assert llm("-m", f"ollama/{MODEL}:latest", STORY, *options).strip()
    assert llm("-m", f"ollama/{MODEL}:latest", STORY, "--no-stream", *options).strip()
    schema = json.dumps(Trip.model_json_schema())
    assert Trip.model_validate_json(llm("-m", f"ollama/{MODEL}:latest", "Book a trip.", "--schema", schema, *options))
    assert len(json.loads(llm("embed", "-m", "ollama/encoder:latest", "-c", "a boat"))) == 128


def test_llm_tools(llm: Any) -> None:
    source = 'def get_weather(city: str) -> str:\n    "Get the weather of a city"\n    return f"sunny in {city}"\n'
    options = ("-o", "temperature", "0", "-o", "think", "false")
    told = llm("-m", f"ollama/{MODEL}:latest", WEATHER, "--functions", source, "--td", *options)
    assert told.strip()


# ---------------------------------------------------------------- the official clients once more, side by side


async def test_many_at_once(host: str) -> None:
    import anthropic
    import ollama
    import openai

    asked: Any = [{"role": "user", "content": STORY}]
    async with (
        openai.AsyncOpenAI(base_url=f"{host}/v1", api_key="x") as first,
        anthropic.AsyncAnthropic(base_url=host, api_key="x") as second,
    ):
        third = ollama.AsyncClient(host=host)
        answers = await asyncio.gather(
            first.chat.completions.create(model=MODEL, messages=asked, max_tokens=30),
            second.messages.create(model=MODEL, messages=asked, max_tokens=30),
            third.chat(MODEL, asked, options={"num_predict": 30}),
        )
        await third._client.aclose()
    assert all(answers)
