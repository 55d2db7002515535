"""/api/tokenize and /api/detokenize over HTTP, with a runner whose tokens are words."""

from __future__ import annotations

from typing import Any


async def test_there_and_back(live: Any) -> None:
    status, found = await live.post("/api/tokenize", model="demo-moe", content="one two one")
    assert (status, list(found)) == (200, ["model", "tokens", "total_duration", "load_duration"])
    assert (found["model"], len(found["tokens"])) == ("demo-moe", 3)
    status, back = await live.post("/api/detokenize", model="demo-moe", tokens=found["tokens"])
    assert (status, back["content"]) == (200, "one two one")


async def test_other_names_for_content(live: Any) -> None:
    names = ("content", "text", "prompt")
    found = [(await live.post("/api/tokenize", model="demo-moe", **{name: "a b"}))[1]["tokens"] for name in names]
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 2


async def test_nothing(live: Any) -> None:
    assert (await live.post("/api/tokenize", model="demo-moe", content=""))[1]["tokens"] == []
    assert (await live.post("/api/detokenize", model="demo-moe", tokens=[]))[1]["content"] == ""


async def test_no_content(live: Any) -> None:
    for body in ({}, {"content": None}, {"input": "a"}):
        assert await live.post("/api/tokenize", model="demo-moe", **body) == (400, {"error": "content is required"})
    assert await live.post("/api/detokenize", model="demo-moe") == (400, {"error": "tokens is required"})
    assert live.services.residency.list() == []


async def test_keep_alive(live: Any) -> None:
    await live.post("/api/tokenize", model="demo-moe", content="a", keep_alive=0)
    assert live.services.residency.list() == []


async def test_errors(live: Any) -> None:
    assert await live.post("/api/tokenize", content="a") == (400, {"error": "model is required"})
    assert await live.post("/api/tokenize", model="nope", content="a") == (404, {"error": "model 'nope' not found"})
    status, body = await live.post("/api/detokenize", model="demo-moe", tokens=["a"])
    assert (status, body) == (
        400,
        {"error": "json: cannot unmarshal string into Go struct field DetokenizeRequest.tokens of type int"},
    )
