"""Places in JSON that conforms to a schema (see runtime.places): the open containers, and the value that is not whole yet.

Values are forgotten when they are whole, figures and letters as soon as only those that follow matter. Schemas in which a value
may decide about what comes after it have no map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from runtime.string_places import StringAt, Strings, letters

Frame = tuple[str, Any]
"""An open container: "{" and its keys so far, or "[" and how many of its items are whole."""

_SPACE = b" \n\r\t"
_FIGURES = b"0123456789"
_GAP = 23  # bytes of white space after which others will hardly write as much
_SHORT = 3  # bytes of a number after which others will hardly write the same one
_OTHER = b"*"  # for all keys that the schema does not name
_DECIDING = ("allOf", "patternProperties", "minProperties", "maxProperties")
_BOUNDING = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")


class JsonAt(NamedTuple):
    """A place. `phase`: what is written or may come; `raw`: its text so far, or what is left of that."""

    frames: tuple[Frame, ...]
    phase: str
    raw: bytes = b""
    string: StringAt | None = None


class JsonMap:
    """For a schema that `runtime.json_schema` has read, and that `has_map`."""

    start = JsonAt((), "value")
    marks = b'"\\,:[]{}'
    exact = False

    def __init__(self, schema: dict[str, Any]) -> None:
        nodes = [*_nodes(schema)]
        names = {name for node in nodes if isinstance(node.get("properties"), dict) for name in node["properties"]}
        names |= {name for node in nodes if isinstance(node.get("required"), list) for name in map(str, node["required"])}
        values = [value for node in nodes for value in _values(node)]
        self._strings = Strings(nodes, names, [value for value in values if isinstance(value, str)])
        self.counts = self._strings.counts
        self._any_number = not any(isinstance(value, (int, float)) for value in values)  # True and False do no harm
        self._any_number &= not any(key in node for node in nodes for key in _BOUNDING)
        counts = [node[key] for node in nodes for key in ("minItems", "maxItems") if isinstance(node.get(key), (int, float))]
        counts += [len(node["prefixItems"]) for node in nodes if isinstance(node.get("prefixItems"), list)]
        self._countable = 1 + int(max(counts, default=0))  # items after which arrays are all the same
        self._steps: dict[str, Callable[[JsonAt, int], JsonAt | None]] = {
            "value": self._value,
            "first key": self._first_key,
            "next key": self._next_key,
            "colon": self._colon,
            "after": self._after,
            "after word": self._after,
            "scalar": self._scalar,
            "string": self._string,
            "key": self._key,
        }

    def lasting(self, at: JsonAt) -> bool:
        """Whether others will come here."""
        if at.string is not None:
            return self._strings.lasting(at.string)
        if at.phase != "scalar":
            return len(at.raw) <= _GAP
        return self._any_number or len(at.raw) <= _SHORT

    def distance(self, at: JsonAt) -> float:
        """Letters that may come in a string before it is at a bound."""
        return 0 if at.string is None else self._strings.distance(at.string)

    def behind_bound(self, at: JsonAt) -> JsonAt:
        """The first place after the same bounds."""
        return at if at.string is None else at._replace(string=self._strings.behind_bound(at.string))

    def letters(self, text: bytes) -> int:
        """How many there are, if it is only letters of a string."""
        return len(text.decode()) if letters(text, 0) == len(text) else 0

    def walk(self, at: JsonAt, text: bytes) -> JsonAt | None:
        """Where a text leads; None: off the map."""
        place = 0
        while place < len(text):
            further: JsonAt | None
            if at.string is not None and not at.string.letter and (end := letters(text, place)) > place:
                further = JsonAt(at.frames, at.phase, b"", self._strings.after(at.string, text[place:end]))
            else:
                end = place + 1
                further = self._steps[at.phase](at, text[place])
            if further is None:
                return None
            at, place = further, end
        return at

    # ------------------------------------------------------------ between values

    def _value(self, at: JsonAt, byte: int) -> JsonAt | None:
        match chr(byte):
            case "{":
                return JsonAt((*at.frames, ("{", ())), "first key")
            case "[":
                return JsonAt((*at.frames, ("[", 0)), "value")
            case '"':
                return JsonAt(at.frames, "string", string=self._strings.start)
            case "]":
                return self._closed(at)
        return self._spaced(at, byte) or self._figure(JsonAt(at.frames, "scalar"), byte)

    def _first_key(self, at: JsonAt, byte: int) -> JsonAt | None:
        return self._closed(at) if byte == ord("}") else self._next_key(at, byte)

    def _next_key(self, at: JsonAt, byte: int) -> JsonAt | None:
        return JsonAt(at.frames, "key", string=self._strings.start) if byte == ord('"') else self._spaced(at, byte)

    def _colon(self, at: JsonAt, byte: int) -> JsonAt | None:
        return JsonAt(at.frames, "value") if byte == ord(":") else self._spaced(at, byte)

    def _after(self, at: JsonAt, byte: int) -> JsonAt | None:
        if byte == ord(",") and at.frames:
            return JsonAt(at.frames, "next key" if at.frames[-1][0] == "{" else "value")
        return self._closed(at) if byte in b"]}" else self._spaced(at, byte)

    def _spaced(self, at: JsonAt, byte: int) -> JsonAt | None:
        return JsonAt(at.frames, at.phase, at.raw + bytes([byte])) if byte in _SPACE else None

    def _closed(self, at: JsonAt) -> JsonAt | None:
        return self._whole(at.frames[:-1]) if at.frames else None

    def _whole(self, frames: tuple[Frame, ...]) -> JsonAt:
        """After a value."""
        if frames and frames[-1][0] == "[":
            frames = (*frames[:-1], ("[", min(frames[-1][1] + 1, self._countable)))
        return JsonAt(frames, "after")

    # ------------------------------------------------------------ values and keys

    def _scalar(self, at: JsonAt, byte: int) -> JsonAt | None:
        if byte not in b",]}" + _SPACE:
            return self._figure(at, byte)
        whole = self._whole(at.frames)
        return self._after(whole._replace(phase="after word") if at.raw[-1:].isalpha() else whole, byte)

    def _figure(self, at: JsonAt, byte: int) -> JsonAt:
        """Further in a number, or a word. Of any numbers, all figures but a leading zero are the same."""
        if self._any_number and byte in _FIGURES:
            if at.raw[-1:].isdigit():
                return at
            byte = byte if byte == ord("0") and at.raw in (b"", b"-") else ord("1")
        return JsonAt(at.frames, at.phase, at.raw + bytes([byte]))

    def _string(self, at: JsonAt, byte: int) -> JsonAt | None:
        assert at.string is not None
        if self._strings.ends(at.string, byte):
            return self._whole(at.frames)
        return JsonAt(at.frames, at.phase, b"", self._strings.further(at.string, byte))

    def _key(self, at: JsonAt, byte: int) -> JsonAt | None:
        assert at.string is not None
        if not self._strings.ends(at.string, byte):
            return JsonAt(at.frames, at.phase, b"", self._strings.further(at.string, byte))
        if not at.string.told:  # it may be a name in other letters
            return None
        keys, name = at.frames[-1][1], at.string.raw if at.string.raw in self._strings.names else _OTHER
        keys = keys if name == _OTHER and keys[-1:] == (_OTHER,) else (*keys, name)
        return JsonAt((*at.frames[:-1], ("{", keys)), "colon")


# ---------------------------------------------------------------- schemas


def has_map(schema: dict[str, Any]) -> bool:
    """Whether values of a schema leave no trace in what may follow them."""
    return all(_is_plain(node) for node in _nodes(schema))


def _is_plain(node: dict[str, Any]) -> bool:
    if any(key in node for key in _DECIDING) or any(isinstance(value, (list, dict)) for value in _values(node)):
        return False
    branches = [branch for key in ("anyOf", "oneOf") if isinstance(node.get(key), list) for branch in node[key]]
    return all(sum(_may_be(branch, kind) for branch in branches) <= 1 for kind in ("object", "array"))


def _may_be(branch: Any, kind: str) -> bool:
    """Whether a value of this kind may conform to a schema, as far as its own keywords say."""
    if not isinstance(branch, dict):
        return branch is not False
    if "enum" in branch or "const" in branch:
        return False  # of plain values, or there is no map
    kinds = branch.get("type", kind)
    return kind in kinds if isinstance(kinds, list) else kind == kinds


def _values(node: dict[str, Any]) -> list[Any]:
    """Those that a schema lists."""
    values = node.get("enum")
    return [*(values if isinstance(values, list) else ()), *([node["const"]] if "const" in node else ())]


def _nodes(node: Any) -> Iterator[dict[str, Any]]:
    """All schemas in one, and objects that are none: too many do no harm."""
    if isinstance(node, dict):
        yield node
    for part in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _nodes(part)
