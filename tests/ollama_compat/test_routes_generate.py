from __future__ import annotations

import asyncio
from typing import Any

import pytest

MODEL = "demo-moe"


async def generate(live: Any, text: str, **fields: Any) -> tuple[int, Any]:
    answer: tuple[int, Any] = await live.post("/api/generate", **({"model": MODEL, "prompt": text, "think": False} | fields))
    return answer


async def rendered(live: Any, text: str, **fields: Any) -> str:
    _, answer = await generate(live, text, _debug_render_only=True, **fields)
    assert (answer["response"], answer["done"]) == ("", False)
    shown: str = answer["_debug_info"]["rendered_template"]
    return shown


async def derived(live: Any, **fields: Any) -> str:
    status, _ = await live.post("/api/create", model="go", **{"from": MODEL}, stream=False, **fields)
    assert status == 200
    return "go"


async def test_the_client_is_told_how_much_of_a_prompt_was_left_out(start: Any) -> None:
    live = await start("--train=20")
    told = []
    for prompt in ("word " * 30, "word"):
        body = {"model": "demo-moe", "prompt": prompt, "raw": True}
        async with live.session.post("/api/generate", json=body) as response:
            assert response.status == 200
            told.append(response.headers.get("X-Moellama-Truncated"))
    assert told == ["11 tokens", None]


async def test_a_stream_ends_with_numbers_and_context(live: Any) -> None:
    status, lines = await generate(live, "say(Hello there.)")
    assert status == 200
    assert [line["response"] for line in lines] == ["Hello", " there.", ""]
    assert list(lines[0]) == ["model", "created_at", "response", "done"]
    assert list(lines[-1])[3:] == [
        "done",
        "done_reason",
        "context",
        "total_duration",
        "load_duration",
        "prompt_eval_count",
        "prompt_eval_duration",
        "eval_count",
        "eval_duration",
    ]


async def test_without_stream_the_answer_is_one_object(live: Any) -> None:
    _, answer = await generate(live, "say(Hello there.)", stream=False)
    assert (answer["response"], answer["done"], answer["done_reason"]) == ("Hello there.", True, "stop")


async def test_reasoning_is_split_off(live: Any) -> None:
    _, answer = await generate(live, "say(<think>\nHm.\n</think>\n\nYes.)", think=True, stream=False)
    assert (answer["response"], answer["thinking"]) == ("Yes.", "Hm.\n")
    assert list(answer)[2:5] == ["response", "thinking", "done"]


async def test_raw_is_the_prompt_itself_and_gives_no_context(live: Any) -> None:
    assert await rendered(live, "<|im_start|>x", raw=True) == "<|im_start|>x"
    _, answer = await generate(live, "say(<think>a</think>)", raw=True, stream=False)
    assert answer["response"] == "<think>a</think>"
    assert "context" not in answer


@pytest.mark.parametrize("field", [{"system": "S"}, {"template": "T"}, {"context": [1]}])
async def test_raw_excludes_what_changes_a_prompt(live: Any, field: dict[str, Any]) -> None:
    answer = await generate(live, "x", raw=True, **field)
    assert answer == (400, {"error": "raw mode does not support template, system, or context"})


async def test_context_goes_in_front(live: Any) -> None:
    _, first = await generate(live, "say(One)", stream=False)
    _, second = await generate(live, "say(Two)", context=first["context"], stream=False)
    assert second["context"][: len(first["context"])] == first["context"]
    assert second["prompt_eval_count"] > first["prompt_eval_count"]


async def test_a_rendered_prompt_shows_the_context_too(live: Any) -> None:
    _, first = await generate(live, "say(One)", stream=False)
    text = await rendered(live, "say(Two)", context=first["context"])
    assert "say(One)" in text.removesuffix(await rendered(live, "say(Two)"))


async def test_the_prompt_is_that_of_a_conversation(live: Any) -> None:
    text = await rendered(live, "hi", system="Be kind.")
    assert text.startswith("<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")


async def test_a_template_of_the_request(live: Any) -> None:
    assert await rendered(live, "hi", template="Q {{ .Prompt }} A") == "Q hi A"
    assert await generate(live, "hi", template="{{ .Prompt") == (500, {"error": "template: :1: unclosed action"})
    assert await generate(live, "hi", template="{{ nope }}", stream=False) == (
        500,
        {"error": 'template: :1: function "nope" not defined'},
    )


async def test_suffix(go: Any) -> None:
    live = go
    assert await generate(live, "a", suffix="b") == (
        400,
        {"error": "registry.ollama.ai/library/demo-moe:latest does not support insert"},
    )
    model = await derived(live, template="{{ if .Suffix }}<P>{{ .Prompt }}<S>{{ .Suffix }}<M>{{ else }}{{ .Prompt }}{{ end }}")
    assert await rendered(live, "a", suffix="b", model=model, think=None) == "<P>a<S>b<M>"


async def test_what_the_model_brings_along(go: Any) -> None:
    live = go
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    template = "{{ range .Messages }}[{{ .Role }}:{{ .Content }}]{{ end }}"
    model = await derived(live, template=template, system="S", messages=messages)
    assert await rendered(live, "x", model=model, think=None) == "[system:S][user:q][assistant:a][user:x]"
    assert await rendered(live, "x", model=model, think=None, system="T") == "[system:T][user:q][assistant:a][user:x]"
    assert await rendered(live, "x", model=model, think=None, context=[]) == "[system:S][user:x]"


async def test_no_prompt_loads_and_unloads(live: Any) -> None:
    status, answer = await live.post("/api/generate", model=MODEL)
    assert (status, answer["response"], answer["done"], answer["done_reason"]) == (200, "", True, "load")
    assert len(live.services.residency.list()) == 1
    for fields in ({"keep_alive": 0}, {"keep_alive": "0s", "prompt": "", "stream": True}):
        _, answer = await live.post("/api/generate", model=MODEL, **fields)
        assert answer["done_reason"] == "unload"
        assert live.services.residency.list() == []


async def test_log_probabilities_are_last(live: Any) -> None:
    _, answer = await generate(live, "say(Hi)", logprobs=True, stream=False)
    assert answer["logprobs"] == [{"token": "Hi", "logprob": -0.5, "bytes": [72, 105]}]
    assert list(answer)[-1] == "logprobs"


@pytest.mark.parametrize(
    ("fields", "status", "error"),
    [
        ({"model": ""}, 404, "model '' not found"),
        ({"model": "nope"}, 404, "model 'nope' not found"),
        ({"model": "a b"}, 400, "invalid model name"),
        ({"model": "x:cloud"}, 403, "ollama cloud is disabled: remote model is unavailable"),
        ({"top_logprobs": -1}, 400, "top_logprobs must be between 0 and 20"),
        ({"options": {"stop": "x"}}, 500, 'option "stop" must be of type array'),
        ({"format": 5}, 500, 'invalid format: "5"; expected "json" or a valid JSON Schema object'),
        ({"keep_alive": "30"}, 400, 'time: missing unit in duration "30"'),
    ],
)
async def test_refusals(live: Any, fields: dict[str, Any], status: int, error: str) -> None:
    for streamed in (True, False):
        assert await generate(live, "x", stream=streamed, **fields) == (status, {"error": error})


async def test_pictures_are_refused_by_a_model_that_cannot_see(live: Any) -> None:
    status, answer = await generate(live, "see", images=["aGk="])
    assert status == 400
    assert "does not support multimodal requests" in answer["error"]


@pytest.mark.parametrize("name", ["DEMO-MOE", " demo-moe ", "demo-moe:latest", "library/demo-moe", "demo-moe:local"])
async def test_names_in_all_their_forms_are_echoed(live: Any, name: str) -> None:
    status, answer = await generate(live, "x", model=name, stream=False)
    assert (status, answer["model"]) == (200, name)


async def test_a_full_queue_is_told_in_ollamas_words(start: Any) -> None:
    live = await start("--hang", max_queue=1)
    body = {"model": "demo-moe", "prompt": "x"}
    waiting = [asyncio.create_task(live.post("/api/generate", **body)) for _ in range(2)]
    async with asyncio.timeout(10):
        while live.services.residency.queued < 2:  # noqa: ASYNC110  (a count tells it, not an event)
            await asyncio.sleep(0.01)
    for streamed in (True, False):
        expected = {"error": "server busy, please try again.  maximum pending requests exceeded"}
        assert await live.post("/api/generate", stream=streamed, **body) == (503, expected)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_load_that_makes_no_progress_is_given_up(start: Any) -> None:
    live = await start("--hang", load_timeout=0.2)
    status, answer = await live.post("/api/generate", model="demo-moe", prompt="x", stream=False)
    assert (status, answer) == (500, {"error": "timed out waiting for the model runner to start - no progress was made"})
    assert live.services.residency.list() == []


async def test_pictures_of_the_models_own_messages_count(live: Any) -> None:
    model = await derived(live, messages=[{"role": "user", "content": "a", "images": ["aGk="]}])
    _, answer = await generate(live, "b", model=model, images=["aGk="], truncate=False, _debug_render_only=True)
    assert answer["_debug_info"]["image_count"] == 2
    status, answer = await generate(live, "b", model=model, truncate=False, stream=False)
    assert (status, "does not support multimodal requests" in answer["error"]) == (400, True)


@pytest.mark.parametrize("debug", [False, True])
async def test_pictures_among_several_messages_are_refused_where_these_are_counted(live: Any, debug: bool) -> None:
    status, answer = await generate(live, "b", system="x", images=["aGk="], stream=False, _debug_render_only=debug)
    assert (status, "image input is not supported" in answer["error"]) == (500, True)
