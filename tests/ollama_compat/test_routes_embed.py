"""POST /api/embed and /api/embeddings: inputs, what reaches the runner, and errors in Ollama's words."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pytest
from store_files import TOKENS, chunks, write_gguf

from ollama_compat.resident import LARGEST_CONTEXT

MODEL = "vectors"
TRUNCATE, NORMALIZE, NUM_CTX, DIMENSIONS = 1, 2, 3, 4  # places in the vectors of the fake worker; 0: words


@pytest.fixture
async def vectors(start: Any, tmp_path: Path) -> Any:
    """A server with a model that makes vectors."""
    live = await start("--embed")
    await _store(live, write_gguf(tmp_path / "vectors.gguf", "qwen3", (*TOKENS, ("qwen3.pooling_type", "uint32", 1))), MODEL)
    return live


async def embed(live: Any, **fields: Any) -> tuple[int, Any]:
    answer: tuple[int, Any] = await live.post("/api/embed", **({"model": MODEL} | fields))
    return answer


async def test_one_text_is_one_vector(vectors: Any) -> None:
    status, answer = await embed(vectors, input="the sky is blue")
    assert status == 200
    assert list(answer) == ["model", "embeddings", "total_duration", "load_duration", "prompt_eval_count"]
    assert answer["model"] == MODEL
    assert [vector[0] for vector in answer["embeddings"]] == [4]
    assert answer["prompt_eval_count"] == 4
    assert answer["total_duration"] >= answer["load_duration"] > 0


async def test_vectors_come_in_the_order_of_the_texts(vectors: Any) -> None:
    texts = ["word " * (1 + number % 7) + "end" for number in range(2500)]  # more than one frame holds
    _, answer = await embed(vectors, input=texts)
    assert [vector[0] for vector in answer["embeddings"]] == [2 + number % 7 for number in range(2500)]
    assert answer["prompt_eval_count"] == sum(2 + number % 7 for number in range(2500))


@pytest.mark.parametrize("fields", [{"input": ""}, {"input": []}, {"input": None}, {}])
async def test_without_text_the_model_is_loaded(fields: dict[str, Any], vectors: Any) -> None:
    assert await embed(vectors, **fields) == (200, {"model": MODEL, "embeddings": []})
    _, answer = await vectors.ask("GET", "/api/ps")
    assert [model["name"] for model in answer["models"]] == ["vectors:latest"]


@pytest.mark.parametrize("value", [3, True, {"a": 1}, [1], ["x", None], [["x"]], ["x", 2.5]])
async def test_an_input_of_another_type(value: Any, vectors: Any) -> None:
    assert await embed(vectors, input=value) == (400, {"error": "invalid input type"})


async def test_what_is_wrong_with_an_input_comes_before_a_missing_model(vectors: Any) -> None:
    assert await embed(vectors, model="nobody", input=3) == (400, {"error": "invalid input type"})


async def test_models_that_are_not_there(vectors: Any) -> None:
    assert await embed(vectors, model="nobody", input="x") == (404, {"error": 'model "nobody" not found, try pulling it first'})
    assert await embed(vectors, model="", input="x") == (404, {"error": "model '' not found"})
    status, answer = await vectors.post("/api/embeddings", model="nobody", prompt="x")
    assert (status, answer) == (404, {"error": 'model "nobody" not found, try pulling it first'})


@pytest.mark.parametrize(
    ("fields", "place", "expected"),
    [
        ({}, TRUNCATE, 1),
        ({"truncate": True}, TRUNCATE, 1),
        ({"truncate": False}, TRUNCATE, 0),
        ({}, NORMALIZE, 1),
        ({"dimensions": 64}, DIMENSIONS, 64),
        ({}, DIMENSIONS, 0),
        ({"options": {"num_ctx": 77}}, NUM_CTX, 77),
    ],
)
async def test_what_the_runner_is_asked_for(fields: dict[str, Any], place: int, expected: float, vectors: Any) -> None:
    _, answer = await embed(vectors, input="x", **fields)
    assert answer["embeddings"][0][place] == expected


@pytest.mark.parametrize("num_ctx", [0, -1])
async def test_a_context_of_nothing(num_ctx: int, vectors: Any) -> None:
    """It is the smallest one, and what does not fit is not cut."""
    status, answer = await embed(vectors, input="x", options={"num_ctx": num_ctx})
    assert (status, answer["embeddings"][0][NUM_CTX], answer["embeddings"][0][TRUNCATE]) == (200, 4, 0)
    status, answer = await vectors.post("/api/embeddings", model=MODEL, prompt="x", options={"num_ctx": num_ctx})
    assert (status, answer["embedding"][NUM_CTX]) == (200, 4)
    told = {"error": "input exceeds maximum context length and cannot be truncated further"}
    assert await embed(vectors, input="exceeds()", options={"num_ctx": num_ctx}) == (400, told)
    told = {"error": "the input length exceeds the context length"}
    assert await embed(vectors, input="exceeds()", truncate=False, options={"num_ctx": num_ctx}) == (400, told)


@pytest.mark.parametrize("num_ctx", [0, -1])
async def test_a_model_that_asks_for_no_context(num_ctx: int, vectors: Any) -> None:
    await vectors.post("/api/create", model="none", parameters={"num_ctx": num_ctx}, stream=False, **{"from": MODEL})
    for options, expected in ({}, [4, 0]), ({"num_ctx": 9}, [9, 1]):
        _, answer = await embed(vectors, model="none", input="x", options=options)
        assert [answer["embeddings"][0][place] for place in (NUM_CTX, TRUNCATE)] == expected


@pytest.mark.parametrize("num_ctx", [0, 4, 1 << 40])
async def test_of_a_model_that_makes_text_the_engine_alone_looks_at_the_length(num_ctx: int, start: Any) -> None:
    """The older route only; the newer one looks itself, unless it is asked for no context."""
    live = await start("--embed")
    _, answer = await live.post("/api/embeddings", model="demo-moe", prompt="x", options={"num_ctx": num_ctx})
    assert (answer["embedding"][NUM_CTX], answer["embedding"][TRUNCATE]) == (LARGEST_CONTEXT, 1)
    _, answer = await embed(live, model="demo-moe", input="x", truncate=False, options={"num_ctx": num_ctx})
    limit = 4 if num_ctx == 4 else LARGEST_CONTEXT
    assert [answer["embeddings"][0][place] for place in (NUM_CTX, TRUNCATE)] == [limit, 0]


async def test_a_context_for_the_borders_alone(vectors: Any) -> None:
    told = {"error": "input after truncation exceeds maximum context length"}
    assert await embed(vectors, input="noroom()", options={"num_ctx": 1}) == (400, told)
    told = {"error": "the input length exceeds the context length"}
    assert await vectors.post("/api/embeddings", model=MODEL, prompt="noroom()", options={"num_ctx": 1}) == (500, told)


@pytest.mark.parametrize(("text", "status"), [("long()", 400), ("nan()", 400), ("oom()", 500)])
async def test_failures_of_the_runner(text: str, status: int, vectors: Any) -> None:
    got, answer = await embed(vectors, input=["fine", text])
    assert got == status
    assert list(answer) == ["error"]
    if status == 400:
        assert answer["error"] == {"long()": "too long", "nan()": "not a number"}[text]
    assert (await embed(vectors, input="fine"))[0] == 200


async def test_the_older_route_gives_the_same_errors_as_500(vectors: Any) -> None:
    assert await vectors.post("/api/embeddings", model=MODEL, prompt="long()") == (500, {"error": "too long"})


async def test_a_model_that_makes_text(live: Any) -> None:
    assert await embed(live, model="demo-moe", input="x") == (501, {"error": "this model cannot embed"})


async def test_the_older_route_never_cuts(vectors: Any) -> None:
    status, answer = await vectors.post("/api/embeddings", model=MODEL, prompt="a b c", options={"num_ctx": 50})
    assert (status, list(answer)) == (200, ["embedding"])
    assert answer["embedding"] == [3, 0, 1, 50, 0]
    assert await vectors.post("/api/embeddings", model=MODEL, prompt="") == (200, {"embedding": []})


async def _store(live: Any, path: Path, name: str) -> None:
    data = path.read_bytes()  # noqa: ASYNC240
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    await live.services.store.write_blob(digest, chunks(data))
    status, _ = await live.post("/api/create", model=name, files={"m.gguf": digest}, stream=False)
    assert status == 200


WORD_PIECES = (("tokenizer.ggml.model", "string", "bert"), *TOKENS[1:])


@pytest.mark.parametrize(
    ("architecture", "pairs", "normalized"),
    [
        ("bert", WORD_PIECES, True),
        ("bert", (*WORD_PIECES, ("bert.normalize_embeddings", "bool", False)), False),
        ("bert", (*WORD_PIECES, ("bert.normalize_embeddings", "bool", True)), True),
        ("bert", TOKENS, False),  # RoBERTa's vocabulary
        ("nomic-bert", WORD_PIECES, False),
        ("nomic-bert", (*WORD_PIECES, ("nomic-bert.normalize_embeddings", "bool", True)), True),
        ("qwen3", TOKENS, True),
    ],
)
async def test_which_models_the_older_route_asks_for_raw_vectors(
    architecture: str, pairs: Any, normalized: bool, vectors: Any, tmp_path: Path
) -> None:
    pooled = (f"{architecture}.pooling_type", "uint32", 1)
    await _store(vectors, write_gguf(tmp_path / "m.gguf", architecture, (*pairs, pooled)), "mine")
    _, answer = await vectors.post("/api/embeddings", model="mine", prompt="x")
    assert answer["embedding"][NORMALIZE] == normalized
    _, answer = await embed(vectors, model="mine", input="x")
    assert answer["embeddings"][0][NORMALIZE] == 1


async def test_a_client_that_leaves_takes_its_request_along(vectors: Any) -> None:
    await embed(vectors, input="x")
    asking = asyncio.create_task(embed(vectors, input="hang()"))
    await vectors.until_running(1)
    assert (await embed(vectors, input="others go on"))[0] == 200
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await vectors.until_running(0)


async def test_keep_alive(vectors: Any) -> None:
    await embed(vectors, input="x", keep_alive=0)
    async with asyncio.timeout(10):
        while (await vectors.ask("GET", "/api/ps"))[1]["models"]:  # noqa: ASYNC110  (a request tells it, not an event)
            await asyncio.sleep(0.01)


async def test_bodies_that_are_none(vectors: Any) -> None:
    for path in ("/api/embed", "/api/embeddings"):
        assert await vectors.ask("POST", path) == (400, {"error": "missing request body"})
        async with vectors.session.post(path, data=b"{") as response:
            assert response.status == 400
