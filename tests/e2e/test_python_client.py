"""The real `ollama` Python client against the real server and the embedded model."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import ollama
import pytest
from serving import Server

MODEL = "demo-moe"
GREEDY = {"temperature": 0, "num_predict": 40}


@pytest.fixture
def client(server: Server) -> Iterator[ollama.Client]:
    client = ollama.Client(host=server.host)
    yield client
    client._client.close()


@pytest.fixture
async def async_client(server: Server) -> AsyncIterator[ollama.AsyncClient]:
    client = ollama.AsyncClient(host=server.host)
    yield client
    await client._client.aclose()


def weather_tool() -> dict[str, object]:
    city = {"type": "string", "description": "The city"}
    place = {"type": "object", "properties": {"city": city}, "required": ["city"]}
    function = {"name": "get_weather", "description": "Get the weather of a city", "parameters": place}
    return {"type": "function", "function": function}


def test_chat(client: ollama.Client) -> None:
    answer = client.chat(MODEL, [{"role": "user", "content": "What is the capital of France?"}], think=False, options=GREEDY)
    assert answer.message.role == "assistant"
    assert answer.message.content
    assert not answer.message.thinking
    assert answer.done
    assert answer.done_reason in ("stop", "length")
    assert answer.prompt_eval_count > 0
    assert answer.eval_count > 0


def test_chat_stream_equals_chat(client: ollama.Client) -> None:
    messages = [{"role": "user", "content": "Tell me a story about a boat."}]
    whole = client.chat(MODEL, messages, think=False, options=GREEDY)
    parts = list(client.chat(MODEL, messages, think=False, options=GREEDY, stream=True))
    assert "".join(part.message.content for part in parts) == whole.message.content
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert parts[-1].message.content == ""
    assert parts[-1].eval_count == whole.eval_count


def test_thinking_on_and_off(client: ollama.Client) -> None:
    messages = [{"role": "user", "content": "What is 12 plus 30?"}]
    options = {"temperature": 0, "num_predict": 300}
    with_thoughts = client.chat(MODEL, messages, think=True, options=options)
    without = client.chat(MODEL, messages, think=False, options=options)
    assert with_thoughts.message.thinking
    assert "<think>" not in (with_thoughts.message.content or "")
    assert not without.message.thinking
    assert without.message.content


def test_tool_round_trip(client: ollama.Client) -> None:
    messages: list[dict[str, object]] = [{"role": "user", "content": "What is the weather in Paris?"}]
    options = {"temperature": 0, "num_predict": 200}
    asked = client.chat(MODEL, messages, tools=[weather_tool()], think=False, options=options)
    assert asked.message.tool_calls, asked.message
    call = asked.message.tool_calls[0].function
    assert call.name == "get_weather"
    assert call.arguments == {"city": "Paris"}
    messages.append(asked.message.model_dump(exclude_none=True))
    messages.append({"role": "tool", "tool_name": "get_weather", "content": "sunny, 21 degrees"})
    answer = client.chat(MODEL, messages, tools=[weather_tool()], think=False, options=options)
    assert answer.message.content
    assert not answer.message.tool_calls


def test_generate(client: ollama.Client) -> None:
    answer = client.generate(MODEL, "Say hello.", think=False, options=GREEDY)
    assert answer.response
    assert answer.context
    follow = client.generate(MODEL, "And once more.", context=answer.context, think=False, options=GREEDY)
    assert len(follow.context) > len(answer.context)
    assert follow.prompt_eval_count > answer.prompt_eval_count


def test_generate_stream_equals_generate(client: ollama.Client) -> None:
    whole = client.generate(MODEL, "Once upon a time", raw=True, options=GREEDY)
    parts = list(client.generate(MODEL, "Once upon a time", raw=True, options=GREEDY, stream=True))
    assert "".join(part.response for part in parts) == whole.response


def test_seed_makes_text_repeatable(client: ollama.Client) -> None:
    def text(seed: int) -> str:
        options = {"seed": seed, "temperature": 1.5, "num_predict": 30}
        return client.generate(MODEL, "Once upon a time", raw=True, options=options).response

    assert text(1) == text(1)
    assert len({text(seed) for seed in range(4)}) > 1


def test_stop_string_ends_the_text(client: ollama.Client) -> None:
    options = {"temperature": 0, "num_predict": 60}
    whole = client.generate(MODEL, "Once upon a time", raw=True, options=options).response
    stop = whole[20:24]
    cut = client.generate(MODEL, "Once upon a time", raw=True, options=options | {"stop": [stop]})
    assert cut.response == whole[: whole.index(stop)]
    assert cut.done_reason == "stop"


def test_logprobs(client: ollama.Client) -> None:
    options = {"temperature": 0, "num_predict": 10}
    answer = client.generate(MODEL, "Once upon a time", raw=True, options=options, logprobs=True, top_logprobs=3)
    assert len(answer.logprobs) == 10
    for entry in answer.logprobs:
        assert entry.logprob <= 0
        assert len(entry.top_logprobs) == 3
        assert entry.top_logprobs[0].logprob == pytest.approx(entry.logprob)


def test_list_show_ps(client: ollama.Client) -> None:
    client.generate(MODEL, keep_alive="1m")
    listed = {model.model: model for model in client.list().models}
    assert f"{MODEL}:latest" in listed
    shown = client.show(MODEL)
    assert {"completion", "tools", "thinking"} <= set(shown.capabilities)
    assert shown.modelinfo["general.architecture"] == "qwen3moe"
    running = {model.model: model for model in client.ps().models}
    assert running[f"{MODEL}:latest"].digest == listed[f"{MODEL}:latest"].digest
    assert running[f"{MODEL}:latest"].size > 12_000_000


def test_create_copy_delete(client: ollama.Client) -> None:
    client.generate(MODEL)
    created = client.create("pirate", from_=MODEL, system="You are a pirate.", parameters={"temperature": 0, "num_predict": 20})
    assert created.status == "success"
    assert client.show("pirate").modelfile.count("You are a pirate.") == 1
    assert client.chat("pirate", [{"role": "user", "content": "Who are you?"}]).message
    client.copy("pirate", "sailor")
    assert {"pirate:latest", "sailor:latest"} <= {model.model for model in client.list().models}
    client.delete("pirate")
    client.delete("sailor")
    with pytest.raises(ollama.ResponseError) as error:
        client.show("pirate")
    assert error.value.status_code == 404


def test_create_from_a_gguf_file(client: ollama.Client, demo_model: Path) -> None:
    digest = client.create_blob(demo_model)
    assert digest == "sha256:" + hashlib.sha256(demo_model.read_bytes()).hexdigest()
    statuses = [part.status for part in client.create("mine", files={"demo.gguf": digest}, stream=True)]
    assert statuses[-1] == "success"
    assert client.generate("mine", "Hi", think=False, options=GREEDY).response
    client.delete("mine")


def test_unload(client: ollama.Client) -> None:
    client.generate(MODEL)
    assert client.generate(MODEL, keep_alive=0).done_reason == "unload"
    assert not [model for model in client.ps().models if model.model == f"{MODEL}:latest"]


def test_missing_model_is_a_404(client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError) as error:
        client.chat("no-such-model", [{"role": "user", "content": "hi"}])
    assert error.value.status_code == 404
    assert error.value.error == "model 'no-such-model' not found"


async def test_leaving_a_stream_frees_the_model(async_client: ollama.AsyncClient) -> None:
    options = {"temperature": 0, "num_predict": 2000}
    stream = await async_client.generate(MODEL, "Once upon a time", raw=True, options=options, stream=True)
    async for _ in stream:
        break
    await stream.aclose()
    answer = await asyncio.wait_for(async_client.generate(MODEL, "Hi", raw=True, options={"num_predict": 5}), 20)
    assert answer.done


async def test_hundred_streams(async_client: ollama.AsyncClient) -> None:
    async def one(number: int) -> tuple[str, bool]:
        text, done = "", False
        options = {"seed": number, "num_predict": 30}
        async for part in await async_client.generate(MODEL, f"Story number {number}:", raw=True, options=options, stream=True):
            text, done = text + part.response, part.done
        return text, done

    answers = await asyncio.gather(*(one(number) for number in range(100)))
    assert all(done for _, done in answers)
    assert sum(bool(text) for text, _ in answers) >= 95  # a model may end at once
