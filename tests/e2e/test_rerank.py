"""Reranking over HTTP with a tiny cross-encoder of random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import ollama
import pytest
import tiny_gguf
from serving import Server

DOCUMENTS = ["the sky is blue", "is", "the blue w7 sky"]


@pytest.fixture(scope="module")
def ranker(server: Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tiny_gguf.write(tmp_path_factory.mktemp("m") / "m.gguf", tiny_gguf.variant("bert-rank", "F32"))
    client = ollama.Client(host=server.host)
    client.create("ranker", files={"m.gguf": client.create_blob(path)})
    client._client.close()
    return "ranker"


def post(server: Server, path: str, **body: Any) -> tuple[int, Any]:
    answer = httpx.post(server.host + path, json=body, timeout=60)
    return answer.status_code, answer.json()


def test_rerank(server: Server, ranker: str) -> None:
    asked: dict[str, Any] = {"model": ranker, "query": "is the sky blue", "documents": DOCUMENTS}
    status, found = post(server, "/v1/rerank", **asked)
    assert (status, list(found)) == (200, ["model", "object", "usage", "results"])
    scores = [result["relevance_score"] for result in found["results"]]
    assert scores == sorted(scores, reverse=True)
    assert sorted(result["index"] for result in found["results"]) == [0, 1, 2]
    assert found["usage"]["total_tokens"] > 20
    for path in ("/rerank", "/v1/reranking", "/api/rerank"):
        assert post(server, path, **asked)[1]["results"] == found["results"]
    (alone,) = post(server, "/api/rerank", **asked | {"documents": [{"text": DOCUMENTS[2]}]})[1]["results"]
    assert alone["relevance_score"] == pytest.approx(next(r["relevance_score"] for r in found["results"] if r["index"] == 2))


def test_the_best(server: Server, ranker: str) -> None:
    asked: dict[str, Any] = {"model": ranker, "query": "sky", "documents": DOCUMENTS}
    _, found = post(server, "/v1/rerank", top_n=2, return_documents=True, **asked)
    assert [set(result) for result in found["results"]] == [{"index", "relevance_score", "document"}] * 2
    assert all(result["document"]["text"] == DOCUMENTS[result["index"]] for result in found["results"])


def test_refusals(server: Server, ranker: str) -> None:
    for body, message in (
        ({"model": "demo-moe", "query": "x", "documents": ["y"]}, "does not support reranking"),
        ({"model": ranker, "documents": ["y"]}, "query"),
        ({"model": ranker, "query": "x"}, "documents"),
        ({"model": ranker, "query": "x", "documents": ["y", 5]}, "documents"),
    ):
        status, found = post(server, "/v1/rerank", **body)
        assert status == 400
        assert message in found["error"]["message"]
    assert post(server, "/api/rerank", model="nobody", query="x", documents=["y"])[0] == 404
    status, found = post(server, "/api/embed", model=ranker, input="x")
    assert (status, "use /api/rerank" in found["error"]) == (501, True)
