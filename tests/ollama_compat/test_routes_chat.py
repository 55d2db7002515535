from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

MODEL = "demo-moe"
TOOL = {"type": "function", "function": {"name": "f", "description": "", "parameters": {"type": "object", "properties": {}}}}


def user(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


async def chat(live: Any, text: str, **fields: Any) -> tuple[int, Any]:
    answer: tuple[int, Any] = await live.post("/api/chat", **({"model": MODEL, "messages": user(text), "think": False} | fields))
    return answer


async def go_model(live: Any, template: str, **fields: Any) -> str:
    status, _ = await live.post("/api/create", model="go", **{"from": MODEL}, template=template, stream=False, **fields)
    assert status == 200
    return "go"


async def test_a_stream_ends_with_the_numbers(live: Any) -> None:
    status, lines = await chat(live, "say(Hello there.)")
    assert status == 200
    assert [line["message"] for line in lines] == [
        {"role": "assistant", "content": "Hello"},
        {"role": "assistant", "content": " there."},
        {"role": "assistant", "content": ""},
    ]
    assert [line["done"] for line in lines] == [False, False, True]
    numbers = {key: value for key, value in lines[-1].items() if key.endswith(("_count", "_duration"))}
    assert (lines[-1]["done_reason"], numbers["eval_count"], numbers["prompt_eval_duration"]) == ("stop", 2, 1000)
    assert all(type(value) is int for value in numbers.values())
    assert numbers["total_duration"] >= numbers["load_duration"] > 0


async def test_without_stream_the_answer_is_one_object(live: Any) -> None:
    status, answer = await chat(live, "say(Hello there.)", stream=False)
    assert (status, answer["message"], answer["done_reason"]) == (200, {"role": "assistant", "content": "Hello there."}, "stop")
    assert answer["model"] == MODEL


async def test_reasoning_is_split_off(live: Any) -> None:
    said = "say(<think>\nHm, well.\n</think>\n\nYes.)"
    _, answer = await chat(live, said, think=True, stream=False)
    assert answer["message"] == {"role": "assistant", "content": "Yes.", "thinking": "Hm, well.\n"}
    _, lines = await chat(live, said, think=True)
    assert not any(line["message"].get("thinking") and line["message"]["content"] for line in lines)
    assert "".join(line["message"].get("thinking", "") for line in lines) == "Hm, well.\n"


async def test_a_thinking_model_thinks_by_default(live: Any) -> None:
    for think, shown in ((None, False), (True, False), (False, True)):
        body = {"model": MODEL, "messages": user("x"), "think": think, "_debug_render_only": True}
        _, answer = await live.post("/api/chat", **body)
        assert answer["_debug_info"]["rendered_template"].endswith("<think>\n\n</think>\n\n") is shown


async def test_native_tool_calls_come_with_the_last_object(live: Any) -> None:
    said = 'say(<tool_call>\n{"name": "f", "arguments": {"b": 1, "a": [2]}}\n</tool_call>)'
    _, lines = await chat(live, said, tools=[TOOL])
    (call,) = lines[-1]["message"]["tool_calls"]
    assert call["function"] == {"index": 0, "name": "f", "arguments": {"b": 1, "a": [2]}}
    assert list(call["function"]["arguments"]) == ["b", "a"]
    assert call["id"]
    assert (lines[-1]["done_reason"], lines[-1]["message"]["content"]) == ("stop", "")
    _, answer = await chat(live, said, tools=[TOOL], stream=False)
    assert [call["function"]["name"] for call in answer["message"]["tool_calls"]] == ["f"]


async def test_tool_calls_of_a_go_template_come_when_they_are_made(go: Any) -> None:
    live = go
    template = (
        '{{ range .Messages }}{{ .Content }}{{ range .ToolCalls }}{"name": "{{ .Function.Name }}"}{{ end }}{{ end }}{{ .Tools }}'
    )
    model = await go_model(live, template)
    _, lines = await chat(live, 'say({"name": "f", "arguments": {"a": 1}})', model=model, tools=[TOOL], think=None)
    calls = [line["message"]["tool_calls"] for line in lines if "tool_calls" in line["message"]]
    assert [call["function"] for (call,) in calls] == [{"index": 0, "name": "f", "arguments": {"a": 1}}]
    assert calls[0][0]["id"].startswith("call_")
    assert "tool_calls" not in lines[-1]["message"]


async def test_log_probabilities(live: Any) -> None:
    entry = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105]}
    _, answer = await chat(live, "say(Hi)", logprobs=True, stream=False)
    assert answer["logprobs"] == [entry]
    _, answer = await chat(live, "say(Hi)", logprobs=True, top_logprobs=2, stream=False)
    assert answer["logprobs"] == [entry | {"top_logprobs": [entry, entry]}]
    assert list(answer).index("logprobs") < list(answer).index("total_duration")
    _, lines = await chat(live, "say(Hi)", logprobs=True)
    assert lines[0]["logprobs"] == [entry]


async def test_options_reach_the_runner(live: Any) -> None:
    _, answer = await chat(live, "say(one two three)", options={"num_predict": 2}, stream=False)
    assert (answer["message"]["content"], answer["done_reason"]) == ("one two", "length")
    _, answer = await chat(live, "say(one two three)", options={"stop": ["two", ""]}, stream=False)
    assert (answer["message"]["content"], answer["done_reason"]) == ("one", "stop")


async def test_what_the_model_brings_along_comes_first(go: Any) -> None:
    live = go
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    model = await go_model(live, "{{ range .Messages }}[{{ .Role }}:{{ .Content }}]{{ end }}", system="S", messages=messages)
    for given, rendered in (
        ([{"role": "user", "content": "x"}], "[system:S][user:q][assistant:a][user:x]"),
        ([{"role": "system", "content": "T"}, {"role": "user", "content": "x"}], "[user:q][assistant:a][system:T][user:x]"),
    ):
        _, answer = await live.post("/api/chat", model=model, messages=given, _debug_render_only=True)
        assert answer["_debug_info"] == {"rendered_template": rendered}
        assert answer["message"] == {"role": "", "content": ""}


async def test_control_tokens_in_a_clients_text_stay_text(live: Any) -> None:
    seen: list[str] = []
    body = {"model": MODEL, "messages": user("a<|im_end|>b")}
    await live.post("/api/chat", **body, options={"num_predict": 1}, stream=False)
    (resident,) = live.services.residency.list()
    send = resident.runner._send
    resident.runner._send = lambda frame: (seen.append(getattr(frame, "prompt", "")), send(frame))[1]
    await live.post("/api/chat", **body, stream=False)
    assert "a<\ufdd0|im_end|>b<|im_end|>" in "".join(seen)


async def test_old_messages_are_dropped_until_the_rest_fits(start: Callable[..., Any]) -> None:
    live = await start("--train=40", go_template=True)
    model = await go_model(live, "{{ range .Messages }}[{{ .Role }}] {{ .Content }} {{ end }}")
    messages = [{"role": "system", "content": "S"}]
    messages += [{"role": "user", "content": f"{n} " + "word " * 10} for n in range(8)]
    _, answer = await live.post("/api/chat", model=model, messages=messages, _debug_render_only=True)
    text = answer["_debug_info"]["rendered_template"]
    assert text.startswith("[system] S [user] 5 ")
    assert "7 word" in text
    _, answer = await live.post("/api/chat", model=model, messages=messages, truncate=False, _debug_render_only=True)
    assert "0 word" in answer["_debug_info"]["rendered_template"]


@pytest.mark.parametrize("streamed", [True, False])
async def test_the_client_and_the_log_are_told_what_was_left_out(
    start: Callable[..., Any], caplog: pytest.LogCaptureFixture, streamed: bool
) -> None:
    live = await start("--train=40", go_template=True)
    model = await go_model(live, "{{ range .Messages }}[{{ .Role }}] {{ .Content }} {{ end }}")
    messages = [{"role": "user", "content": f"{n} " + "word " * 10} for n in range(8)]
    bodies = ({"messages": messages}, {"messages": messages[:1]})
    told = []
    for body in bodies:
        async with live.session.post("/api/chat", json={"model": model, "stream": streamed, **body}) as response:
            assert response.status == 200
            told.append(response.headers.get("X-Moellama-Truncated"))
    assert told == ["5 messages", None]
    assert "the 5 oldest messages of a conversation are left out: the context has 40 tokens" in caplog.text


async def test_another_context_never_starts_another_runner(live: Any) -> None:
    pids, contexts = set(), []
    for num_ctx in (100, 700, 300, None, 2000, 1_000_000):
        await chat(live, "x", stream=False, options={"num_ctx": num_ctx})
        (resident,) = live.services.residency.list()
        pids.add(resident.runner.pid)
        contexts.append(resident.context_length)
    assert len(pids) == 1
    assert contexts == [100, 700, 300, 768, 2000, 2048]


async def test_a_prompt_that_is_too_long(start: Callable[..., Any]) -> None:
    live = await start("--train=20", go_template=True)
    status, answer = await chat(live, "word " * 30, stream=False)
    assert status == 400
    error = json.loads(answer["error"])["error"]
    assert (error["type"], error["n_ctx"]) == ("exceed_context_size_error", 20)
    model = await go_model(live, "{{ range .Messages }}{{ .Content }}{{ end }}")
    status, answer = await chat(live, "word " * 30, model=model, shift=False, think=None, stream=False)
    assert status == 400
    assert answer["error"].startswith("the prompt is longer than the context length currently available")


async def test_a_smaller_context_is_kept_without_a_reload(live: Any) -> None:
    await chat(live, "x", stream=False)
    pid = live.services.residency.list()[0].runner.pid
    status, answer = await chat(live, "word " * 260, options={"num_ctx": 50}, stream=False)
    assert status == 400
    assert "exceeds the available context size (256 tokens)" in answer["error"]
    status, _ = await chat(live, "word " * 60, options={"num_ctx": 50}, stream=False)
    assert status == 200  # as in Ollama, whose engine has no smaller context
    assert live.services.residency.list()[0].runner.pid == pid


@pytest.mark.parametrize(
    ("fields", "status", "error"),
    [
        ({"model": ""}, 400, "model is required"),
        ({"model": "nope"}, 404, "model 'nope' not found"),
        ({"model": "nope:7b"}, 404, "model 'nope:7b' not found"),
        ({"model": "a b"}, 400, "invalid model name"),
        ({"model": "../../etc/passwd"}, 400, "invalid model name"),
        ({"model": "x:cloud"}, 403, "ollama cloud is disabled: remote model is unavailable"),
        ({"model": "x:local:cloud"}, 400, 'use either :local or :cloud, not both: "x:local:cloud"'),
        ({"top_logprobs": 21}, 400, "top_logprobs must be between 0 and 20"),
        ({"options": {"temperature": "hot"}}, 500, 'option "temperature" must be of type float32'),
        ({"format": "yaml"}, 500, 'invalid format: "\\"yaml\\""; expected "json" or a valid JSON Schema object'),
        ({"format": [1.0]}, 500, 'invalid format: "[1.0]"; expected "json" or a valid JSON Schema object'),
        (
            {"messages": [*user("x"), {"role": "user", "content": "x", "images": ["!"]}]},
            400,
            "illegal base64 data at input byte 0",
        ),
    ],
)
async def test_refusals(live: Any, fields: dict[str, Any], status: int, error: str) -> None:
    for streamed in (True, False):
        assert await chat(live, "x", stream=streamed, **fields) == (status, {"error": error})


async def test_a_conversation_that_no_template_can_end(live: Any) -> None:
    said = [*user("u"), {"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}]
    status, answer = await live.post("/api/chat", model=MODEL, messages=said, stream=False)
    message = "Cannot have 2 or more assistant messages at the end of the list."
    assert (status, json.loads(answer["error"])) == (
        400,
        {"error": {"code": 400, "message": message, "type": "invalid_request_error"}},
    )


async def test_arguments_and_schemas_are_written_as_go_does(live: Any) -> None:
    schema = {"type": "object", "properties": {"b": {"enum": [1.0, None]}, "a": {"items": {"y": 1, "x": {"d": 2.0, "c": 3}}}}}
    tool = {"type": "function", "function": {"name": "f", "description": "", "parameters": schema}}
    call = {"function": {"name": "f", "arguments": {"z": {"b": 1.0, "a": [2.5]}, "y": 1}}}
    said = [*user("u"), {"role": "assistant", "content": "", "tool_calls": [call]}, *user("v")]
    _, answer = await live.post("/api/chat", model=MODEL, messages=said, tools=[tool], _debug_render_only=True)
    prompt = answer["_debug_info"]["rendered_template"]
    assert '{"b": {"enum": [1, null]}, "a": {"items": {"x": {"c": 3, "d": 2}, "y": 1}}}' in prompt
    assert '{"z": {"a": [2.5], "b": 1}, "y": 1}' in prompt


async def test_pictures_are_refused_by_a_model_that_cannot_see(live: Any) -> None:
    status, answer = await live.post("/api/chat", model=MODEL, messages=[{"role": "user", "content": "see", "images": ["aGk="]}])
    assert status == 500
    assert "image input is not supported" in answer["error"]
    messages = [{"role": "user", "content": "see", "images": ["aGk="]}]
    status, answer = await live.post("/api/chat", model=MODEL, messages=messages, format=[1])
    assert (status, answer["error"].partition(";")[0]) == (500, 'invalid format: "[1]"')


async def test_a_wrong_format_of_one_message_is_told_when_the_answer_begins(live: Any) -> None:
    for count, content_type in ((1, "application/json"), (2, "application/json; charset=utf-8")):
        body = {"model": MODEL, "messages": user("see") * count, "format": "yaml"}
        async with live.session.post("/api/chat", json=body) as response:
            assert (response.status, response.headers["Content-Type"]) == (500, content_type)


async def test_what_a_model_cannot_do_is_refused(go: Any) -> None:
    live, model = go, await go_model(go, "{{ .Prompt }}")
    assert await chat(live, "x", model=model, tools=[TOOL], think=None) == (
        400,
        {"error": "registry.ollama.ai/library/go:latest does not support tools"},
    )
    assert await chat(live, "x", model=model, think=True) == (400, {"error": '"go" does not support thinking'})


async def test_no_messages_load_and_unload(live: Any) -> None:
    status, answer = await live.post("/api/chat", model=MODEL, messages=[])
    assert (status, answer["done_reason"], answer["message"]) == (200, "load", {"role": "assistant", "content": ""})
    assert len((await live.ask("GET", "/api/ps"))[1]["models"]) == 1
    status, answer = await live.post("/api/chat", model=MODEL, messages=[], keep_alive=0)
    assert (status, answer["done_reason"], answer["done"]) == (200, "unload", True)
    assert await live.ask("GET", "/api/ps") == (200, {"models": []})


async def test_ps_tells_what_is_loaded(live: Any) -> None:
    await live.post("/api/chat", model=MODEL, messages=[], keep_alive=-1)
    _, answer = await live.ask("GET", "/api/ps")
    (model,) = answer["models"]
    names = ["name", "model", "size", "digest", "details", "expires_at", "size_vram", "context_length"]
    assert list(model) == names
    assert (model["name"], model["context_length"]) == ("demo-moe:latest", 2048)
    assert model["expires_at"] > "2300"
    assert model["details"]["family"] == "qwen3moe"


async def test_ps_tells_what_lies_on_a_card(start: Any) -> None:
    live = await start("--card")
    await live.post("/api/chat", model=MODEL, messages=[])
    (model,) = (await live.ask("GET", "/api/ps"))[1]["models"]
    assert (model["size"], model["size_vram"]) == (1000, 500)
    assert (model["placement"], model["pinned"]) == ("half on GPU 0", False)


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_runner_that_dies_gives_the_typed_error_and_is_replaced(live: Any, streamed: bool) -> None:
    body = {"model": MODEL, "messages": user("slow()"), "stream": streamed}
    request = asyncio.create_task(live.session.post("/api/chat", json=body))
    await live.until_running(1)
    if streamed:
        await (await request).content.readline()
    os.kill(live.services.residency.list()[0].runner.pid, signal.SIGKILL)
    async with await request as response:
        text = await response.text()
    error = (
        "model runner has unexpectedly stopped, this may be due to resource limitations or an internal error, "
        "check ollama server logs for details"
    )
    assert json.loads(text.splitlines()[-1]) == {"error": error}
    assert response.status == (200 if streamed else 500)
    assert (await chat(live, "say(Again)", stream=False))[1]["message"]["content"] == "Again"


async def test_a_runner_that_was_just_killed_costs_no_request(live: Any) -> None:
    for n in range(3):
        assert (await chat(live, f"say(Number {n})", stream=False))[1]["message"]["content"] == f"Number {n}"
        os.kill(live.services.residency.list()[0].runner.pid, signal.SIGKILL)


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_client_that_goes_away_ends_its_request(live: Any, streamed: bool) -> None:
    task = asyncio.create_task(chat(live, "slow()", stream=streamed))
    await live.until_running(1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await live.until_running(0)
    (resident,) = live.services.residency.list()
    assert resident.users == 0


async def test_concurrent_answers_do_not_mix(live: Any) -> None:
    answers = await asyncio.gather(*(chat(live, f"say(canary {n})", stream=n % 2 == 0) for n in range(40)))
    for n, (_, answer) in enumerate(answers):
        parts = answer if n % 2 == 0 else [answer]
        assert "".join(part["message"]["content"] for part in parts) == f"canary {n}"


async def test_a_failed_load_is_an_error_and_the_next_one_works(start: Callable[..., Any]) -> None:
    live = await start("--fail=bad_model")
    assert await chat(live, "x") == (500, {"error": "the load failed"})


async def test_two_names_of_one_file_share_a_runner(live: Any) -> None:
    await chat(live, "x", stream=False)
    await live.ask("POST", "/api/copy", json={"source": MODEL, "destination": "other"})
    await chat(live, "x", model="other", stream=False)
    assert len(live.services.residency.list()) == 1
