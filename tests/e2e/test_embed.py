"""Embedding models as a user has them: created from a GGUF file, asked by Ollama's client, held to llama.cpp's vectors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import ollama
import pytest
import tiny_gguf
from serving import Server

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
TEXTS = ["a", "Why is the sky blue?", "the sky is the sky, " * 12, "w1 w2 w3 looking"]  # those of golden/make.py


@pytest.fixture
def client(server: Server) -> Iterator[ollama.Client]:
    client = ollama.Client(host=server.host)
    yield client
    client._client.close()


@pytest.fixture(params=["qwen3-embedding", "bert", "nomic-bert"])
def model(request: pytest.FixtureRequest, client: ollama.Client, tmp_path: Path) -> Iterator[str]:
    """A model of that kind, by its name."""
    name = f"e2e-{request.param}"
    path = tiny_gguf.write(tmp_path / "model.gguf", tiny_gguf.variant(request.param, "F16"))
    client.create(name, files={"model.gguf": client.create_blob(path)})
    yield name
    client.delete(name)


def cosines(vectors: object, expected: np.ndarray) -> np.ndarray:
    found = np.array(vectors, np.float64)
    lengths = np.linalg.norm(found, axis=-1) * np.linalg.norm(expected, axis=-1)
    return np.asarray((found * expected).sum(-1) / lengths)


def test_vectors_are_those_of_llama_cpp(client: ollama.Client, model: str) -> None:
    golden = np.load(GOLDEN / f"tiny-{model.removeprefix('e2e-')}-F16.npz")
    assert "embedding" in (client.show(model).capabilities or [])
    answer = client.embed(model, TEXTS)
    assert (cosines(answer.embeddings, golden["vectors"]) >= 0.9999).all()
    np.testing.assert_allclose(np.linalg.norm(np.array(answer.embeddings), axis=-1), 1, atol=1e-5)
    assert answer.prompt_eval_count == golden["lengths"].sum()
    for text, vector in zip(TEXTS, answer.embeddings, strict=True):
        np.testing.assert_array_equal(client.embed(model, text).embeddings[0], vector)
    short = client.embed(model, TEXTS[1], dimensions=32).embeddings[0]
    assert (cosines([short], golden["vectors"][1:2, :32]) >= 0.9999).all()


def test_the_older_route_agrees(client: ollama.Client, model: str) -> None:
    new, old = client.embed(model, TEXTS[1]).embeddings[0], client.embeddings(model, TEXTS[1]).embedding
    assert cosines([new], np.array([old])) >= 0.999999
    assert (abs(np.linalg.norm(old) - 1) < 1e-4) == ("nomic" not in model)  # which Ollama always gave as they come


def test_a_text_that_is_too_long(client: ollama.Client, model: str) -> None:
    words = "sky " * 5000
    cut = client.embed(model, words, options={"num_ctx": 64})
    assert cut.prompt_eval_count <= 64
    with pytest.raises(ollama.ResponseError, match="the input length exceeds the context length") as error:
        client.embed(model, words, truncate=False)
    assert error.value.status_code == 400


def test_a_model_that_makes_text_refuses_what_is_too_long_first(client: ollama.Client) -> None:
    client.create("e2e-tight", from_="demo-moe", parameters={"num_ctx": 1})
    for options, status, message in (
        ({}, 400, "input after truncation exceeds maximum context length"),
        ({"num_ctx": 8}, 501, "does not support embeddings"),
        ({"num_ctx": 0}, 501, "does not support embeddings"),
    ):
        with pytest.raises(ollama.ResponseError, match=message) as error:
            client.embed("e2e-tight", "Why is the sky blue?", options=options)
        assert error.value.status_code == status
    client.generate("e2e-tight", keep_alive=0)  # else others, which have the same weights, are listed as it
    client.delete("e2e-tight")
