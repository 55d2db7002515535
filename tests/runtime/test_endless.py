"""runtime.endless: schemas whose values would never end are refused, and no others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runtime import json_schema
from runtime.schema_values import SchemaError

LOOP = {"$ref": "#/$defs/loop"}
LEAF = {"$ref": "#/$defs/leaf"}


def holding(part: Any, required: bool = True) -> dict[str, Any]:
    return {"type": "object", "properties": {"x": part}, "required": ["x"] if required else []}


def array(*parts: Any, **fields: Any) -> dict[str, Any]:
    return {"type": "array", "prefixItems": list(parts)} | fields


ENDLESS = [
    LOOP,
    {"allOf": [LEAF, LOOP]},
    {"anyOf": [LOOP, holding(LOOP)]},
    holding(holding(LOOP)),
    array(LEAF, LOOP),
    {"type": "array", "items": LOOP, "minItems": 1},
    array(LEAF, minItems=2, items=LOOP),
]
ENDING = [
    LEAF,
    {"anyOf": [LOOP, LEAF]},
    {"oneOf": [holding(LOOP), {"type": "null"}]},
    holding(LOOP, required=False),
    holding(LOOP) | {"type": ["object", "null"]},
    {"type": "array", "items": LOOP},
    array(LEAF, items=LOOP),
    array(LEAF, LOOP, minItems=1),
    {"const": {"$ref": "#/$defs/loop"}},
    holding({"type": "array", "items": holding(LOOP, required=False)}),
    {"type": "object", "properties": {"enum": LEAF, "$ref": {"type": "string"}}, "required": ["enum", "$ref", "other"]},
]


def read(loop: dict[str, Any]) -> dict[str, Any]:
    defs = {"loop": loop, "leaf": {"type": "integer"}}
    return json_schema.read(json.dumps({"type": "object", "properties": {"a": LOOP}, "required": ["a"], "$defs": defs}))


@pytest.mark.parametrize("loop", ENDLESS, ids=range(len(ENDLESS)))
def test_what_demands_itself_is_refused(loop: dict[str, Any]) -> None:
    with pytest.raises(SchemaError, match="no value of it ends"):
        read(loop)


@pytest.mark.parametrize("loop", ENDING, ids=range(len(ENDING)))
def test_what_may_end_is_not(loop: dict[str, Any]) -> None:
    assert "$defs" in read(loop)


def test_the_document_itself() -> None:
    with pytest.raises(SchemaError, match="no value of it ends"):
        json_schema.read('{"$ref": "#"}')
    json_schema.read('{"anyOf": [{"type": "array", "items": {"$ref": "#"}}, {"type": "null"}]}')


def test_long_chains_take_no_time() -> None:
    for step in (1, -1):
        chain = {f"d{i}": holding({"$ref": f"#/$defs/d{i + step}"}) for i in range(1, 400)}
        ends = {"d0": {"type": "null"}, "d400": {"type": "null"}}
        json_schema.read(json.dumps({"$ref": "#/$defs/d200", "$defs": chain | ends}))
