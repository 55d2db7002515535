"""JSON schemas of mixed difficulty, made up by a seed: what people write for structured output, and what they should not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Schema = dict[str, Any]

NAMES = ("name", "age", "tags", "kind", "x", "first name", "größe", "is_ok", "id", "$weird", "items", "type")
WORDS = ("red", "green", "a b", "", "é", 'quo"te', "back\\slash", "Rome")
PATTERNS = (r"^[a-z]{1,4}$", r"^\d{3}-\d{4}$", "^(yes|no)$", r"^[A-Z][a-z]*$", r"[0-9]+", r"^#[0-9a-f]{6}$")
FORMATS = ("date", "time", "date-time", "uuid", "ipv4", "email", "hostname", "uri", "duration", "ipv6", "color")
LEVELS = ("easy", "medium", "hard")


class Maker:
    """Makes one schema."""

    def __init__(self, seed: int, level: str) -> None:
        self._random = np.random.default_rng(seed)
        self._level = LEVELS.index(level)
        self._defs: dict[str, Schema] = {}

    def schema(self) -> Schema:
        """The whole schema, with its definitions."""
        root = self._object(3) if self._chance(0.8) else self._any(3)
        return root | ({"$defs": self._defs} if self._defs else {})

    def _chance(self, share: float) -> bool:
        return bool(self._random.random() < share)

    def _whole(self, low: int, high: int) -> int:
        return int(self._random.integers(low, high + 1))

    def _pick(self, choices: Any) -> Any:
        return choices[self._whole(0, len(choices) - 1)]

    def _some(self, choices: Any, low: int, high: int) -> list[Any]:
        count = min(self._whole(low, high), len(choices))
        return [choices[int(at)] for at in self._random.permutation(len(choices))[:count]]

    def _any(self, depth: int) -> Schema:
        makers: list[Callable[[int], Schema]] = [self._string, self._number, self._plain, self._enum]
        if depth > 0:
            makers += [self._object, self._array]
            makers += [self._any_of, self._ref, self._tuple, self._nullable] * (self._level > 0)
            makers += [self._one_of, self._all_of, self._map, self._refused] * (self._level > 1)
        made: Schema = self._pick(makers)(depth - 1)
        return made | ({"description": "what it is", "title": "T", "default": None} if self._chance(0.1) else {})

    # ------------------------------------------------------------ scalars

    def _string(self, depth: int) -> Schema:
        made: Schema = {"type": "string"}
        how = self._whole(0, 5) if self._level else self._whole(0, 2)
        if how == 1:
            made["maxLength"] = self._whole(0, 12)
        elif how == 2:
            made |= {"minLength": self._whole(0, 3), "maxLength": self._whole(3, 9)}
        elif how == 3:
            made["pattern"] = self._pick(PATTERNS)
        elif how == 4:
            made["format"] = self._pick(FORMATS)
        return made

    def _number(self, depth: int) -> Schema:
        made: Schema = {"type": self._pick(("integer", "number"))}
        low = self._whole(-50, 50) / (1 if made["type"] == "integer" else 4)
        if self._chance(0.5):
            made[self._pick(("minimum", "exclusiveMinimum"))] = low
        if self._chance(0.5):
            width = self._pick((0.25, 0.5)) if made["type"] == "number" and self._chance(0.3) else self._whole(3, 200)
            made[self._pick(("maximum", "exclusiveMaximum"))] = low + width
        if self._level > 1 and self._chance(0.2):
            made["multipleOf"] = self._pick((2, 5, 0.5))
        return made

    def _plain(self, depth: int) -> Schema:
        return {"type": self._pick(("boolean", "null", "boolean", "string"))}

    def _enum(self, depth: int) -> Schema:
        values = [*WORDS, 1, 2.5, -7, True, None, *([[1, "a"], {"k": [None]}] if self._level > 1 else [])]
        return {"const": self._pick(values)} if self._chance(0.3) else {"enum": self._some(values, 1, 4)}

    def _nullable(self, depth: int) -> Schema:
        return {"type": self._some(("string", "integer", "null", "boolean", "array"), 1, 3)}

    # ------------------------------------------------------------ objects and arrays

    def _object(self, depth: int) -> Schema:
        names = self._some(NAMES, 1, 4)
        made: Schema = {"type": "object", "properties": {name: self._any(depth) for name in names}}
        if self._chance(0.8):
            made["required"] = self._some(names, 0 if self._level else 1, len(names))
        if self._chance(0.5):
            made["additionalProperties"] = self._any(0) if self._level > 1 and self._chance(0.3) else False
        elif self._level and self._chance(0.1):
            made["required"] = [*made.get("required", []), "not described"]
        return made

    def _map(self, depth: int) -> Schema:
        made: Schema = {"type": "object"}
        if self._chance(0.5):
            made["patternProperties"] = {"^k[0-9]$": self._any(0)}
            made["additionalProperties"] = False
        else:
            made["additionalProperties"] = self._any(0)
        if self._chance(0.4):
            made[self._pick(("minProperties", "maxProperties"))] = self._whole(1, 2)
        return made

    def _array(self, depth: int) -> Schema:
        made: Schema = {"type": "array", "items": self._any(depth)}
        if self._chance(0.6):
            made["maxItems"] = self._whole(1, 4)
        if self._chance(0.3):
            made["minItems"] = self._whole(0, 1)
        return made

    def _tuple(self, depth: int) -> Schema:
        return {"type": "array", "prefixItems": [self._any(depth) for _ in range(self._whole(1, 3))], "items": False}

    # ------------------------------------------------------------ combinations

    def _any_of(self, depth: int) -> Schema:
        return {"anyOf": [self._any(depth) for _ in range(self._whole(1, 3))]}

    def _ref(self, depth: int) -> Schema:
        name = f"D{len(self._defs)}"
        self._defs[name] = {}
        made = self._object(depth) if self._chance(0.7) else self._any(depth)
        if self._chance(0.2) and "properties" in made:
            made["properties"]["again"] = {"anyOf": [{"$ref": f"#/$defs/{name}"}, {"type": "null"}]}
        self._defs[name] = made
        return {"$ref": f"#/$defs/{name}"}

    def _one_of(self, depth: int) -> Schema:
        if self._chance(0.5):
            return {"oneOf": [self._any(depth) for _ in range(self._whole(1, 3))]}
        branches = []
        for kind in self._some(WORDS, 2, 3):
            made = self._object(depth)
            made["properties"]["kind"] = {"const": kind}
            made["required"] = [*made.get("required", []), *(["kind"] if "kind" not in made.get("required", []) else [])]
            branches.append(made)
        return {"oneOf": branches}

    def _all_of(self, depth: int) -> Schema:
        parts = [self._object(0) for _ in range(self._whole(1, 2))]
        if self._chance(0.4):
            return {"allOf": parts, "properties": {"own": self._any(0)}}
        return {"allOf": parts}

    def _refused(self, depth: int) -> Schema:
        """Mostly what no grammar can hold an answer to."""
        return self._pick(
            (
                {"not": {"type": "string"}},
                {"type": "array", "items": {"enum": [1, 2]}, "uniqueItems": True},
                {"if": {"type": "string"}, "then": {"maxLength": 2}},
                {"type": "array", "contains": {"const": 1}},
                {"type": "object", "properties": {"a": {}, "b": {}}, "dependentRequired": {"a": ["b"]}},
                {"type": "object", "propertyNames": {"pattern": "^a"}},
                {"type": "string", "pattern": "(?=a)b"},
                {"type": "array", "items": {"type": "null"}, "uniqueItems": False},
                {"type": "objekt"},
            )
        )


def schemas(count: int) -> list[tuple[str, Schema]]:
    """So many schemas, a third of each level: (level, schema)."""
    return [(level, Maker(seed, level).schema()) for seed in range(count) for level in (LEVELS[seed % 3],)]
