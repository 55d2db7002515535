"""runtime.json_schema: what schemas mean, and which are refused."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
from toy_model import EOS, Runs, ToyExecutor, make_tokenizer

from runtime.frames import Generate
from runtime.grammar import GrammarError, Grammars
from runtime.sampling import masks

TOKENIZER = make_tokenizer()
GRAMMARS = Grammars(TOKENIZER)

STRING: dict[str, Any] = {"type": "string"}
INTEGER: dict[str, Any] = {"type": "integer"}
BOOLEAN: dict[str, Any] = {"type": "boolean"}


def listing(required: Sequence[str] = (), **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


INHERITED = {"allOf": [{"$ref": "#/$defs/A"}, listing(["b"], b=BOOLEAN)], "$defs": {"A": listing(["a"], a=INTEGER)}}

RECORD: dict[str, Any] = {"type": "object", "additionalProperties": INTEGER}  # as zod and pydantic write maps
DECIMAL = {"anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"}]}  # as pydantic does


def accepts(schema: dict[str, Any], text: str) -> bool:
    """Whether a text is a whole answer, byte by byte."""
    constraint = GRAMMARS.constraint(json.dumps(schema))
    for token in TOKENIZER.encode(text, parse_special=False, add_special=False):
        mask = constraint.mask()
        assert mask is not None
        if not masks.permits(mask, token):
            return False
        constraint.accept(token)
    mask = constraint.mask()
    assert mask is not None
    return masks.permits(mask, EOS)


@pytest.mark.parametrize(
    ("schema", "text", "fits"),
    [
        ({}, "{}", True),
        ({}, "[]", False),
        (listing(a=STRING), '{"z":1}', False),  # closed
        (listing(a=STRING) | {"additionalProperties": True}, '{"z":1}', True),
        ({"type": "object"}, '{"z":1}', True),
        (listing(a=STRING, b=STRING), '{"b":"","a":""}', False),  # in the order of the schema
        (listing(a=STRING, b=STRING), '{"b":""}', True),
        (listing(a=STRING, b=STRING) | {"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}, "{}", False),
        (listing(a=STRING) | {"anyOf": [listing(b=INTEGER), listing(c=INTEGER)]}, '{"a":"","c":1}', True),
        ({"properties": {"a": STRING}}, "3", False),  # structure implies a type
        ({"type": "array", "items": [STRING, INTEGER]}, '["",1]', True),
        ({"type": "array", "items": [STRING, INTEGER]}, '[""]', False),
        ({"type": "array", "prefixItems": [STRING], "items": INTEGER}, '["",1,2]', True),
        (INTEGER, "9007199254740992", False),
        (INTEGER, "-9007199254740991", True),
        (INTEGER | {"minimum": 10**17}, str(10**17), True),
        ({"type": "number", "minimum": 0, "exclusiveMinimum": True}, "0", False),
        ({"type": "number"}, "-1.5e-7", True),
        (STRING | {"format": "password"}, '"x"', True),  # unknown formats say nothing
        (STRING | {"format": "uuid4"}, '"x"', False),
        (STRING, '"\\u00e9\\ud83d\\ude00 é😀"', True),
        (STRING, '"\\ud83d"', False),
        (STRING, '"a\nb"', False),
        (BOOLEAN | {"nullable": True, "deprecated": True, "x-guidance": {"lenient": True}}, "true", True),
        ({"type": "array", "uniqueItems": False, "items": BOOLEAN}, "[true,true]", True),
        (listing(**{"not": STRING, "if": STRING}), '{"not":"","if":""}', True),  # names of properties are no keywords
        ({"allOf": [{"$ref": "#/$defs/A"}], "$defs": {"A": listing(a=STRING)}}, '{"z":1}', False),
        (INHERITED, '{"a":1,"b":true,"c":1}', False),
        (listing(["a", "z"], a=STRING), '{"a":""}', False),  # a name that is required is there, described or not
        (listing(["a", "z"], a=STRING), '{"a":"","z":[1]}', True),
        (listing(["z"], a=STRING) | {"additionalProperties": INTEGER}, '{"a":"","z":"1"}', False),
        (listing(["z"], a=STRING) | {"additionalProperties": INTEGER}, '{"z":1,"y":2}', True),
        ({"type": "object", "required": ["z"]}, '{"z":1,"y":2}', True),
        ({"type": "object", "required": ["z"]}, '{"zz":1}', False),
        ({"required": ["z"], "anyOf": [{"type": "object"}, {"type": "null"}]}, '{"zz":1}', False),
        ({"properties": {"a": STRING | {"required": True}, "b": {"required": False}}}, '{"b":1}', False),  # as in draft 3
        ({"properties": {"a": STRING | {"required": True}, "b": {"required": False}}}, '{"a":"","b":1}', True),
        (listing(["a"], a=BOOLEAN | {"enum": None, "pattern": None, "anyOf": None}), '{"a":true}', True),  # null says nothing
        ({"type": "null", "const": None}, "null", True),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 0.5}, "0", False),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 0.5}, "0.000001", True),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1e-30}, "0.0", False),
        ({"type": "number", "exclusiveMinimum": 2, "exclusiveMaximum": 2.25}, "2", False),
        ({"type": "number", "exclusiveMinimum": 2, "exclusiveMaximum": 2.25}, "2.01", True),
        ({"type": "number", "minimum": -2.5, "exclusiveMaximum": -2}, "-2", False),
        ({"type": "number", "minimum": -2.5, "exclusiveMaximum": -2}, "-2.5", True),
        ({"type": "number", "minimum": -0.5, "exclusiveMaximum": 0}, "-0", False),
        ({"type": "number", "exclusiveMinimum": 100}, "100.0", False),
        ({"type": "number", "exclusiveMinimum": 100}, "100.5", True),
        ({"allOf": [{"type": "number", "exclusiveMinimum": 0}, {"exclusiveMaximum": 0.5}]}, "0", False),
        (INTEGER | {"minimum": -(1 << 63), "maximum": (1 << 63) - 1}, "-5", True),  # 64 bits
        ({"type": "number", "minimum": -1.7976931348623157e308, "maximum": 1.7976931348623157e308}, "1e5", True),
        (INTEGER | {"multipleOf": 3600.0}, "7200", True),
        (INTEGER | {"multipleOf": 3600}, "7201", False),
        (BOOLEAN, " true", False),
        ({"$ref": "#/$defs/größe", "$defs": {"größe": INTEGER}}, "1", True),
        ({"$ref": "#/$defs/gr%C3%B6%C3%9Fe", "$defs": {"größe": INTEGER}}, "1", True),
        ({"$ref": "#/$defs/a%20b", "$defs": {"a%20b": INTEGER, "a b": STRING}}, "1", True),  # as it is, if there is such a name
        ({"$ref": "#/$defs/a~1b c~0", "$defs": {"a/b c~": INTEGER}}, "1", True),
        ({"$ref": "#/components/schemas/A", "components": {"schemas": {"A": INTEGER}}}, "1", True),  # as in OpenAPI
        ({"$ref": "#/components/schemas/A", "components": {"schemas": {"A": INTEGER}}}, '"1"', False),
        ({"items": [INTEGER, {"$ref": "#/items/0"}], "$defs": {"place-0": STRING}}, "[1,2]", True),
        (listing(["a"], a={"$ref": "#/x/b"}) | {"x": {"b": {"$ref": "#/x/c"}, "c": BOOLEAN}}, '{"a":true}', True),
        ({"x": {"anyOf": [{"type": "null"}, listing(["a"], a={"$ref": "#/x"})]}, "$ref": "#/x"}, '{"a":{"a":null}}', True),
        (STRING | {"minLength": 2.0}, '"ab"', True),
        (STRING | {"minLength": 2.0}, '"a"', False),
        (DECIMAL, "1.5", True),
        (DECIMAL, '"1.5"', False),  # what the string has to look like cannot be enforced
        (RECORD | {"propertyNames": STRING | {"title": "Name"}}, '{"z":1}', True),
        (RECORD | {"propertyNames": STRING | {"title": "Name"}}, '{"z":"1"}', False),
        (RECORD | {"propertyNames": {"$ref": "#/$defs/E"}, "$defs": {"E": {"enum": ["a", "b"]}}}, '{"b":1}', True),
        (RECORD | {"propertyNames": {"$ref": "#/$defs/E"}, "$defs": {"E": {"enum": ["a", "b"]}}}, '{"c":1}', False),
        (RECORD | {"propertyNames": {"pattern": "^[xy]$"}}, '{"x":1}', True),
        (RECORD | {"propertyNames": {"pattern": "^[xy]$"}}, '{"a":1}', False),
        (RECORD | {"propertyNames": {"minLength": 1}}, '{"a":1}', True),
        (RECORD | {"propertyNames": {"minLength": 1}}, '{"":1}', False),
        (listing(a=STRING, b=STRING) | {"propertyNames": {"const": "b"}}, '{"b":""}', True),
        (listing(a=STRING, b=STRING) | {"propertyNames": {"const": "b"}}, '{"a":""}', False),
        (listing(a=STRING) | {"propertyNames": {"enum": ["a", "c"]}, "additionalProperties": BOOLEAN}, '{"a":"","c":true}', True),
        (listing(a=BOOLEAN), '{ "a" : true }', True),
        (listing(a=BOOLEAN), '{\n  "a":   true}', False),
    ],
)
def test_a_schema_means(schema: dict[str, Any], text: str, fits: bool) -> None:
    assert accepts(schema, text) is fits


def deep(levels: int) -> str:
    return '{"items":' * levels + "{}" + "}" * levels


def fan(levels: int) -> str:
    """A small schema whose parts are the same ones again and again, twice as many at each level."""
    twice = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(levels)}
    return json.dumps({"$defs": twice | {f"d{levels}": listing(a=STRING)}, "$ref": "#/$defs/d0"})


def wide(branches: int) -> str:
    return json.dumps({"oneOf": [listing(["k"], k={"const": number}) for number in range(branches)]})


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        ('{"type": "nope"}', "JSON schema error at #: unrecognized type nope"),
        ('{"properties": {"a": {"items": {"type": "nope"}}}}', "error at #/properties/a/items: unrecognized type nope"),
        ('{"type": 5}', "JSON schema error at #: type must be a string or an array of strings"),
        ('{"type": []}', "JSON schema error at #: type must not be empty"),
        ('{"oneOf": []}', "JSON schema error at #/oneOf: must not be empty"),
        ('{"type": "integer", "minimum": "x"}', "JSON schema error at #: minimum must be a number"),
        ('{"type": "string", "pattern": 1}', "JSON schema error at #: pattern must be a string"),
        ('{"items": {"maxItems": 1.5}}', "JSON schema error at #/items: maxItems must be a non-negative integer"),
        ('{"additionalProperties": 5}', "JSON schema error at #: additionalProperties must be a boolean or a schema"),
        ('{"enum": []}', "enum must be a non-empty array"),
        ('{"anyOf": {}}', "JSON schema error at #/anyOf: must be an array of schemas"),
        ('{"properties": []}', "properties must be an object"),
        ('{"properties": {"a": 1}}', "JSON schema error at #/properties/a: schema must be an object"),
        ('{"items": "x"}', "JSON schema error at #/items: schema must be an object"),
        ('{"format": 1}', "format must be a string"),
        ('{"uniqueItems": true}', "uniqueItems is not supported"),
        ('{"not": {}}', "not is not supported"),
        ('{"propertyNames": {"format": "date"}}', "propertyNames is not supported"),
        ('{"propertyNames": {"type": "integer"}}', "propertyNames is not supported"),
        ('{"propertyNames": {"pattern": "a"}, "properties": {"b": {}}}', "propertyNames is not supported"),
        ('{"propertyNames": {"$ref": "#/x"}, "x": {"$ref": "#/x"}}', "propertyNames is not supported"),
        ('{"properties": {"a": {"pattern": "a(?!b)"}}}', "error at #/properties/a: looking around in a pattern is not supported"),
        ('{"anyOf": [{"pattern": "a(?!b)"}, {"type": "null"}]}', "#/anyOf/0: looking around in a pattern is not supported"),
        ('{"$ref": "#/$defs/X"}', "JSON schema error at #: cannot resolve $ref #/$defs/X, $defs not found"),
        ('{"$ref": "#/anyOf/1", "anyOf": [{}]}', "cannot resolve $ref #/anyOf/1, 1 is out of range"),
        (
            '{"$ref": "http://127.0.0.1:1/x"}',
            "unsupported $ref http://127.0.0.1:1/x, only references into the same document are supported",
        ),
        ('{"$ref": 3}', "JSON schema error at #: $ref must be a string"),
        ('{"type": "string", "pattern": "("}', "unclosed group"),
        ('{"type": "integer", "minimum": 3, "maximum": 2}', "Unsatisfiable"),
        ('{"type": "string", "minLength": -1}', "JSON schema error at #: minLength must be a non-negative integer"),
        ('{"enum": [1e999]}', "JSON schema error at #: a number is out of range"),
        (f'{{"oneOf": [{{"const": {10**400}}}, {{"const": 1}}]}}', "JSON schema error at #: a number is out of range"),
        ('{"allOf": 5}', "JSON schema error at #/allOf: must be an array of schemas"),
        ('{"required": "a"}', "JSON schema error at #: required must be an array of strings"),
        ('{"items": {"required": ["a", 1]}}', "JSON schema error at #/items: required must be an array of strings"),
        ('{"discriminator": {"propertyName": "a"}, "oneOf": [{"properties": 5}]}', "#/oneOf/0: properties must be an object"),
        ('{"type": "number", "multipleOf": -1}', "JSON schema error at #: multipleOf must be greater than 0"),
        ('{"type": "integer", "multipleOf": 123456789}', "multipleOf is not supported with digits beyond 5000"),
        ('{"type": "integer", "minimum": 1e308}', "JSON schema error at #: minimum is beyond 64 bits"),
        ('{"$ref": "#/x", "x": 5}', "JSON schema error at #/x: schema must be an object"),
        ('{"required": ["a"], "properties": {}, "additionalProperties": false}', "Unsatisfiable"),
        (fan(40), "JSON schema error at #: too large"),
        (wide(900), "JSON schema error at #: too large"),
        (deep(150), "nested too deeply"),
        (deep(50_000), "nested too deeply"),
        ("{", "JSON schema error at #"),
        ("root ::= (", "the grammar does not compile"),
        ("root ::= x", "the grammar does not compile"),
        ("start: x", "the grammar does not compile"),
        ("%%%", "the grammar does not compile"),
    ],
)
def test_what_is_refused(grammar: str, message: str) -> None:
    with pytest.raises(GrammarError, match=re.escape(message)):
        GRAMMARS.constraint(grammar)


KEYWORDS = (
    *("type", "properties", "patternProperties", "additionalProperties", "required", "propertyNames", "minProperties", "items"),
    *("prefixItems", "additionalItems", "minItems", "uniqueItems", "contains", "minLength", "pattern", "format", "minimum"),
    *("exclusiveMaximum", "multipleOf", "enum", "const", "anyOf", "oneOf", "allOf", "not", "$ref", "$defs", "discriminator"),
)
ODD = (None, True, 0, -1, 1.5, 1e300, "", "x", [], [1], ["x"], [None], [[]], {}, {"a": 1}, {"a": []}, [{"type": {}}])


@pytest.mark.parametrize("keyword", KEYWORDS)
@pytest.mark.parametrize("around", ["{}", '{"oneOf": [{}, {}]}', '{"allOf": [{}], "properties": {}}', '{"propertyNames": {}}'])
def test_whatever_a_keyword_says_it_is_understood_or_refused(keyword: str, around: str) -> None:
    for value in ODD:
        text = around.replace("{}", json.dumps({keyword: value}))
        with contextlib.suppress(GrammarError):
            GRAMMARS.constraint(text)


def test_a_refusal_ends_only_its_request() -> None:
    runs = Runs(ToyExecutor())
    runs.run(Generate(1, "hello", grammar='{"type": "nope"}'), Generate(2, "hello", num_predict=3))
    failed = runs.failed(1)
    assert failed.kind == "bad_request"
    failure = "JSON schema conversion failed:\nJSON schema error at #: unrecognized type nope"
    assert failed.message == f"Field 'json_schema': \"json_schema\": {failure}"
    assert runs.done(2).reason == "length"
