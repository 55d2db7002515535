"""A thousand made-up schemas: what is accepted is enforced, what is not is refused and says why."""

from __future__ import annotations

import collections
import functools
import json
import re
from typing import Any

import jsonschema
import numpy as np
import pytest
from schema_maker import LEVELS, Schema, schemas
from toy_model import EOS, make_tokenizer

from runtime.following import GrammarError
from runtime.frames import SCHEMA_FAILED
from runtime.grammar import Constraint, Grammars
from runtime.kernels import masked

COUNT, CHUNK = 1000, 100
TOKENIZER = make_tokenizer()
GRAMMARS = Grammars(TOKENIZER)
TEXT = [TOKENIZER.token_bytes(token) for token in range(TOKENIZER.n_vocab)]
CLOSING = np.isin(np.arange(TOKENIZER.n_vocab), [*b'"}],', EOS])
PLAIN = np.isin(np.arange(TOKENIZER.n_vocab), [*range(32, 127)])
LONGEST = 500  # tokens
FORMATS = jsonschema.Draft202012Validator.FORMAT_CHECKER


@functools.cache
def made() -> list[tuple[str, Schema]]:
    return schemas(COUNT)


def answer(constraint: Constraint, seed: int) -> str | None:
    """What a model says that prefers to come to an end, and else says anything; None: it did not come to one."""
    random, said = np.random.default_rng(seed), b""
    for _ in range(LONGEST):
        if constraint.complete:
            return said.decode()
        mask = constraint.mask()
        assert mask is not None
        allowed = np.isin(np.arange(TOKENIZER.n_vocab), masked.permitted(np.zeros(TOKENIZER.n_vocab, np.float32), mask)[0])
        assert allowed.any()
        ids = np.flatnonzero(_preferred(allowed, random))
        token = int(random.choice(ids))
        if token == EOS:
            return said.decode()
        constraint.accept(token)
        said += TEXT[token]
    return None


def _preferred(allowed: Any, random: np.random.Generator) -> Any:
    for preferred, share in ((CLOSING, 0.5), (PLAIN, 0.9)):
        if (allowed & preferred).any() and random.random() < share:
            return allowed & preferred
    return allowed


def refused(schema: Schema) -> str | None:
    """Why it is; None when it is not."""
    try:
        GRAMMARS.constraint(json.dumps(schema))
    except GrammarError as error:
        return str(error)
    return None


@pytest.mark.parametrize("first", range(0, COUNT, CHUNK))
def test_what_is_accepted_is_enforced(first: int) -> None:
    for number, (_, schema) in enumerate(made()[first : first + CHUNK], first):
        refusal = refused(schema)
        if refusal is not None:
            assert re.match(SCHEMA_FAILED + r".{10}", refusal, re.DOTALL)
            continue
        said = answer(GRAMMARS.constraint(json.dumps(schema)), number)
        if said is not None:
            validator = jsonschema.Draft202012Validator(schema, format_checker=FORMATS)
            assert not [error.message for error in validator.iter_errors(json.loads(said))], (schema, said)


def test_few_are_refused() -> None:
    counts = collections.Counter(level for level, schema in made() if refused(schema) is not None)
    assert counts["easy"] == counts["medium"] == 0
    assert 0 < counts["hard"] < COUNT / len(LEVELS) * 0.45


OPEN, CLOSED = {"type": "object"}, {"type": "object", "additionalProperties": False}
CAT = {"type": "object", "properties": {"kind": {"const": "cat"}, "lives": {"type": "integer"}}}
DOG = {"type": "object", "properties": {"kind": {"const": "dog"}, "name": {"type": "string"}}}
TAGGED = ["kind"]


@pytest.mark.parametrize(
    ("branches", "exclusive"),
    [
        ([{"type": "string"}], True),
        ([{"type": "string"}, {"type": ["integer", "null"]}], True),
        ([{"type": "string"}, {"type": "string", "maxLength": 3}], False),
        ([{"type": "integer"}, {"type": "number"}], False),
        ([{"type": "integer", "maximum": 4}, {"type": "number", "minimum": 5}], True),
        ([{"enum": [1, "a"]}, {"enum": [2, "b"]}], True),
        ([{"enum": [1, "a"]}, {"enum": [1.0, "b"]}], False),
        ([{"const": 1}, {"type": "string"}], True),
        ([{"const": [1.0]}, {"const": [1]}], False),
        ([CAT | {"required": TAGGED}, DOG | {"required": TAGGED}], True),
        ([CAT | {"required": TAGGED}, DOG], True),
        ([CAT, DOG], False),
        ([CLOSED | {"properties": {"a": {}}, "required": ["a"]}, {"type": "object", "required": ["b"]}], True),
        ([OPEN | {"properties": {"a": {}}, "required": ["a"]}, OPEN | {"properties": {"b": {}}, "required": ["b"]}], True),
        ([OPEN | {"properties": {"a": {}}, "required": ["a"]}, OPEN | {"properties": {"b": {}}}], False),
        ([{"anyOf": [{"type": "null"}, {"type": "string"}]}, {"type": "boolean"}], True),
        ([{"anyOf": [{"type": "null"}, {"type": "string"}]}, {"type": ["boolean", "null"]}], False),
        ([{"$ref": "#/$defs/s"}, {"type": "integer"}], True),
        ([{"$ref": "#/$defs/s"}, {"type": "string"}], False),
        ([{"$ref": "#/$defs/loop"}, {"type": "string"}], False),
        ([{"allOf": [{"$ref": "#/$defs/s"}]}, {"type": "null"}], True),
        ([{}, {"type": "null"}], False),
    ],
)
def test_one_of(branches: list[Schema], exclusive: bool) -> None:
    defs = {"s": {"type": "string"}, "loop": {"$ref": "#/$defs/loop"}}
    schema = {"type": "object", "properties": {"x": {"oneOf": branches}}, "$defs": defs}
    refusal = refused(schema)
    assert (refusal is None) == exclusive
    assert exclusive or "oneOf is only supported" in str(refusal)


def test_a_tag_that_tells_alternatives_apart_is_always_there() -> None:
    """As pydantic writes unions whose tag has a default."""
    pets = {"oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}], "discriminator": {"propertyName": "kind"}}
    schema = {"type": "object", "properties": {"pet": pets}, "required": ["pet"], "$defs": {"Cat": CAT, "Dog": DOG}}
    for seed in range(10):
        said = answer(GRAMMARS.constraint(json.dumps(schema)), seed)
        assert said is None or json.loads(said)["pet"]["kind"] in ("cat", "dog")
