"""Structured output with the real `ollama` Python client, as its README shows it: pydantic models as formats."""

from __future__ import annotations

import json
from collections.abc import Iterator
from enum import Enum
from typing import Any, Literal

import ollama
import pytest
from pydantic import BaseModel, Field
from serving import Server

MODEL = "demo-moe"
QUESTION = [{"role": "user", "content": "Tell me about a country. Answer as JSON."}]
WARM = {"temperature": 1.5, "num_predict": 1500}


class Climate(Enum):
    WARM = "warm"
    COLD = "cold"


class City(BaseModel):
    name: str = Field(max_length=20)
    size: int = Field(ge=1, le=9)


class Country(BaseModel):
    kind: Literal["country"]
    capital: City
    cities: list[City] = Field(min_length=1, max_length=2)
    climate: Climate
    coast: bool | None
    share: float = Field(ge=0, le=1)
    motto: str | None = Field(default=None, max_length=12)


@pytest.fixture
def client(server: Server) -> Iterator[ollama.Client]:
    client = ollama.Client(host=server.host)
    yield client
    client._client.close()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("think", [False, True])
def test_a_pydantic_model_comes_back(client: ollama.Client, seed: int, think: bool) -> None:
    schema, options = Country.model_json_schema(), WARM | {"seed": seed}
    answer = client.chat(MODEL, QUESTION, format=schema, think=think, options=options)
    assert answer.done_reason == "stop", answer
    Country.model_validate_json(answer.message.content or "")


def test_streamed(client: ollama.Client) -> None:
    options = {"temperature": 0, "num_predict": 500}
    whole = client.generate(MODEL, "A country, please.", format=Country.model_json_schema(), think=False, options=options)
    stream = client.generate(
        MODEL, "A country, please.", format=Country.model_json_schema(), think=False, options=options, stream=True
    )
    parts = list(stream)
    assert "".join(part.response for part in parts) == whole.response
    assert len(parts) > 5
    Country.model_validate_json(whole.response)
    assert list(json.loads(whole.response)) == list(Country.model_fields)[: len(json.loads(whole.response))]


@pytest.mark.parametrize("seed", range(3))
def test_any_json(client: ollama.Client, seed: int) -> None:
    options = {"temperature": 1, "seed": seed, "num_predict": 1500}
    answer = client.chat(MODEL, QUESTION, format="json", think=False, options=options)
    if answer.done_reason == "stop":
        assert isinstance(json.loads(answer.message.content or ""), dict)
    assert (answer.message.content or "").startswith("{")


@pytest.mark.parametrize(
    ("schema", "status", "told"),
    [({"type": "nope"}, 400, "unrecognized type nope"), ({"type": "array", "uniqueItems": True}, 400, "uniqueItems")],
)
def test_a_schema_that_cannot_be_enforced_is_refused(client: ollama.Client, schema: Any, status: int, told: str) -> None:
    with pytest.raises(ollama.ResponseError) as error:
        client.chat(MODEL, QUESTION, format=schema)
    assert error.value.status_code == status
    assert told in error.value.error
