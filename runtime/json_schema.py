"""JSON schemas as people write them for Ollama, made ready for a grammar library that takes the specification literally.

Read as llama.cpp reads them: an object that lists its properties has no others unless it says so, a tuple has exactly its
items, structure implies a type, and `oneOf` means `anyOf` where its schemas exclude each other. Keywords that only describe are
dropped, and so are formats that nobody knows; keywords that would restrict the value but cannot be enforced are refused.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from typing import Any

from runtime.disjoint import disjoint
from runtime.endless import endless
from runtime.patterns import in_rust, unreadable
from runtime.property_names import told_otherwise
from runtime.required_names import described
from runtime.schema_bounds import settle
from runtime.schema_values import COUNTS, LISTS, MAPS, MAX_DEPTH, SINGLE, Document, SchemaError, fail

Schema = dict[str, Any]

_TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
_FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri")
_KEPT = (
    *("$ref", "$id", "id", "$anchor", "const", "enum", "type", "minItems", "maxItems", "required"),
    *("minProperties", "maxProperties", "minLength", "maxLength", "pattern", "format"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
)
_DEFINITIONS = ("$defs", "definitions")
_REFUSED: dict[str, Any] = {  # and the value with which it says nothing
    "not": False,
    "if": True,
    "uniqueItems": False,
    "contains": None,
    "dependentRequired": {},
    "dependentSchemas": {},
    "dependencies": {},
    "propertyNames": True,
    "unevaluatedProperties": True,
    "unevaluatedItems": True,
    "$dynamicRef": None,
    "$recursiveRef": None,
}
_IMPLIED = {
    "object": ("properties", "patternProperties", "required"),
    "array": ("items", "prefixItems"),
    "string": ("pattern", "minLength", "maxLength"),
}
_DECIDED = ("type", "$ref", "enum", "const", "anyOf", "oneOf", "allOf")  # with one of these no type is implied
_MERGED = {"properties", "required", "type", "allOf"}  # what parts of an allOf may hold to be merged here
_RESTRICTING = {*_KEPT, *MAPS, *LISTS, *SINGLE, *_REFUSED} - {"$defs", "definitions", "$id", "$anchor", "id"}


def read(text: str) -> Schema:
    """The schema to enforce for that of a request. Raises SchemaError."""
    try:
        root = json.loads(text, parse_float=_finite, parse_int=_integer)
    except RecursionError:
        raise SchemaError("JSON schema error at #: nested too deeply") from None
    except ValueError as error:
        raise SchemaError(f"JSON schema error at #: {error}") from None
    if root == {}:
        return {"type": "object"}
    schema = _Reader(Document(root)).whole()
    if endless(schema):
        fail(["#"], "no value of it ends: each holds another one")
    return schema


def _finite(digits: str) -> float:
    if math.isinf(value := float(digits)):
        raise ValueError("a number is out of range")
    return value


def _integer(digits: str) -> int:
    _finite(digits)
    return int(digits)


class _Reader:
    def __init__(self, document: Document) -> None:
        self._document = document
        self._resolve = document.resolve
        self._moved: dict[str, str] = {}  # places of the document to the definitions that stand for them

    def whole(self) -> Schema:
        """The schema of the whole document, with definitions for what is referred to elsewhere in it."""
        schema = self.schema(self._document.root, ["#"])
        assert isinstance(schema, dict)
        moved: Schema = {}
        while len(moved) < len(self._moved):
            for place, name in [*self._moved.items()][len(moved) :]:
                moved[name] = self.schema(self._document.follow(place, ["#"])[0], place.split("/"))
        return schema | ({"$defs": schema.get("$defs", {}) | moved} if moved else {})

    def schema(self, node: Any, path: list[str], closed: bool = True) -> Schema | bool:
        """The schema at `path`. `closed`: an object that does not speak of additional properties has none."""
        if isinstance(node, bool) and len(path) > 1:
            return node
        if not isinstance(node, dict):
            fail(path, "schema must be an object")
        if len(path) > MAX_DEPTH:
            fail(path[:4], "nested too deeply")
        self._document.spend()
        node = described(self._without_all_of(self._with_tags(told_otherwise(node, self._resolve))))
        apart = "properties" in node and any(_shapes(branch) for branch in _branches(node))
        fields: Schema = {}
        for key, value in node.items():
            self._field(fields, key, value, path, closed=closed and not apart and not len(node.get("allOf", ())) > 1)
        _finish(fields, path)
        if closed and not apart and "properties" in fields and "patternProperties" not in fields:
            fields.setdefault("additionalProperties", False)
        return fields

    def _field(self, fields: Schema, key: str, value: Any, path: list[str], closed: bool) -> None:
        here = [*path, key]
        if key in MAPS:
            named = in_rust if key == "patternProperties" else str
            fields[key] = {named(name): self.schema(part, [*here, name]) for name, part in value.items()}
        elif key in LISTS or (key == "items" and isinstance(value, list)):  # the latter is how tuples were written earlier
            open_or_closed = closed if key in ("anyOf", "oneOf", "allOf") else True
            name = "prefixItems" if key == "items" else key
            if key == "oneOf":
                self._check_exclusive(value, path, open_or_closed)
            value = _readable(value) if key == "anyOf" else value
            fields[name] = [self.schema(part, [*here, str(i)], open_or_closed) for i, part in enumerate(value)]
        elif key in SINGLE:
            fields[key] = self.schema(value, here)
        elif key == "additionalItems" and isinstance(value, (dict, bool)):
            fields.setdefault("items", self.schema(value, here))
        elif key in _KEPT:
            fields[key] = self._kept(key, value, path)
        elif key in _REFUSED and value != _REFUSED[key]:
            fail(path, f"{key} is not supported")

    def _kept(self, key: str, value: Any, path: list[str]) -> Any:
        if key == "pattern" and (why := unreadable(value)):
            fail(path, f"{why} in a pattern is not supported")
        if key == "$ref":
            return self._reference(value, path)
        if key in COUNTS:
            return int(value)
        return in_rust(value) if key == "pattern" else value

    def _reference(self, ref: str, path: list[str]) -> str:
        """The same reference within the schema that is made: of all places, it has only definitions for certain."""
        place = self._document.follow(ref, path)[1]
        steps = place.split("/")
        if len(steps) == 1 or (len(steps) == 3 and steps[1] in _DEFINITIONS):
            return place
        taken = self._document.root.get("$defs", {})
        fresh = next(name for number in itertools.count(len(self._moved)) if (name := f"place-{number}") not in taken)
        return "#/$defs/" + self._moved.setdefault(place, fresh)

    def _check_exclusive(self, branches: list[Any], path: list[str], closed: bool) -> None:
        """No two alternatives may have a value in common: a grammar cannot count how many match."""
        for number, branch in enumerate(branches):
            if any(not disjoint(branch, other, self._document, closed) for other in branches[:number]):
                fail(path, "oneOf is only supported where no value can match two of its schemas; anyOf has no such limit")

    def _with_tags(self, node: Schema) -> Schema:
        """The property that tells alternatives apart is always there: generators leave it open where it has a default."""
        tag = node.get("discriminator")
        name = tag.get("propertyName") if isinstance(tag, dict) else None
        if not isinstance(name, str) or not isinstance(node.get("oneOf"), list):
            return node
        return node | {"oneOf": [self._tagged(branch, name) for branch in node["oneOf"]]}

    def _tagged(self, branch: Any, name: str) -> Any:
        target = self._resolve(branch["$ref"]) if isinstance(branch, dict) and isinstance(branch.get("$ref"), str) else branch
        if not isinstance(target, dict) or name not in target.get("properties", {}):
            return branch
        required = target.get("required", [])
        return target | {"required": list(dict.fromkeys([*required, name]))} if isinstance(required, list) else branch

    # ------------------------------------------------------------ allOf

    def _without_all_of(self, node: Schema) -> Schema:
        """Parts of objects made one object, so that it can be closed; what cannot be merged stays as it is."""
        if "allOf" not in node or (len(node["allOf"]) == 1 and "properties" not in node):
            return node
        merged: Schema = {key: value for key, value in node.items() if key not in _MERGED}
        properties: Schema = {}
        required: list[str] = []
        for part in self._parts(node, set()):
            if part is None or _kinds(part) - {"object"}:
                return node
            for name, value in part.get("properties", {}).items():
                properties[name] = {"allOf": [properties[name], value]} if name in properties else value
            required += part["required"] if isinstance(part.get("required"), list) else []
        if not properties:
            return node
        return merged | {"type": "object", "properties": properties, "required": list(dict.fromkeys(required))}

    def _parts(self, node: Schema, seen: set[str]) -> Iterator[Schema | None]:
        """The objects that together make up `node`, in their order; None where something else is part of it."""
        for key in node:
            if key == "allOf":
                for part in node["allOf"]:
                    yield from self._part(part, seen)
            elif key == "properties":
                yield {"properties": node["properties"]}
        yield {key: node[key] for key in ("type", "required") if key in node}

    def _part(self, part: Any, seen: set[str]) -> Iterator[Schema | None]:
        self._document.spend()
        if isinstance(part, dict) and isinstance(ref := part.get("$ref"), str):
            target = None if ref in seen else self._resolve(ref)
            part, seen = target, seen | {ref}
        if not isinstance(part, dict) or any(key in _RESTRICTING and key not in _MERGED for key in part):
            yield None
        else:
            yield from self._parts(part, seen)


def _readable(branches: list[Any]) -> list[Any]:
    """The alternatives without strings whose pattern cannot be enforced, where another one than null is left.

    Decimals come so: as a number, or as a string with a pattern that looks ahead.
    """
    left = [branch for branch in branches if not _has_unreadable_pattern(branch)]
    return left if any(not isinstance(branch, dict) or _kinds(branch) != {"null"} for branch in left) else branches


def _has_unreadable_pattern(branch: Any) -> bool:
    return isinstance(branch, dict) and isinstance(branch.get("pattern"), str) and bool(unreadable(branch["pattern"]))


def _finish(fields: Schema, path: list[str]) -> None:
    """The keywords of one schema, checked, and completed with what the others imply."""
    if "enum" in fields and not (isinstance(fields["enum"], list) and fields["enum"]):
        fail(path, "enum must be a non-empty array")
    if isinstance(fields.get("required"), bool):  # it counts where the property stands
        del fields["required"]
    _finish_format(fields, path)
    if not any(key in fields for key in _DECIDED):
        implied = [kind for kind, keys in _IMPLIED.items() if any(key in fields for key in keys)]
        fields |= {"type": implied[0]} if implied else {}
    kinds = _kinds(fields)
    if unknown := [kind for kind in kinds if kind not in _TYPES]:
        fail(path, f"unrecognized type {unknown[0]}")
    if "type" in fields and not kinds:
        fail(path, "type must be a string or an array of strings")
    if "prefixItems" in fields and "items" not in fields:
        fields["items"] = False
        fields.setdefault("minItems", len(fields["prefixItems"]))
    _finish_counts(fields, path)
    settle(fields, path, integer="integer" in kinds and "number" not in kinds)


def _finish_format(fields: Schema, path: list[str]) -> None:
    known = fields.pop("format", None)
    if known is not None and not isinstance(known, str):
        fail(path, "format must be a string")
    known = "uuid" if known in ("uuid1", "uuid2", "uuid3", "uuid4", "uuid5") else known
    if known in _FORMATS:
        fields["format"] = known


def _finish_counts(fields: Schema, path: list[str]) -> None:
    """How many properties there are at least: a grammar would count one that is written twice as two."""
    least, required = fields.get("minProperties", 0), fields.get("required", ())
    if least <= len(set(map(str, required))):
        fields.pop("minProperties", None)
    elif least > 1:
        fail(path, "minProperties is not supported beyond 1 and what is required")


def _kinds(schema: Schema) -> set[str]:
    """The types that a schema names."""
    kinds = schema.get("type", [])
    return set(map(str, kinds)) if isinstance(kinds, list) else {kinds} if isinstance(kinds, str) else set()


def _branches(node: Schema) -> Iterator[Any]:
    for key in ("anyOf", "oneOf", "allOf"):
        yield from node.get(key, ()) if isinstance(node.get(key), list) else ()
    if "$ref" in node:
        yield {"$ref": node["$ref"]}


def _shapes(branch: Any) -> bool:
    """Whether a branch may name properties."""
    return isinstance(branch, dict) and any(key in branch for key in ("properties", "$ref", "anyOf", "oneOf", "allOf"))
