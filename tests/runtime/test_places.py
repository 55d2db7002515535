"""runtime.places and the maps: an answer can go on in the same ways whether llguidance is asked everywhere or at new places."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from grammar_maker import grammars
from schema_maker import schemas
from toy_model import EOS, N_VOCAB, make_tokenizer

from runtime import json_places, places
from runtime.following import Following, GrammarError
from runtime.frames import CallForm
from runtime.grammar import Constraint, Grammars
from runtime.json_places import JsonMap
from runtime.kernels import masked
from runtime.sampling.masks import Mask
from runtime.text_places import TextMap

TOKENIZER = make_tokenizer()
GRAMMARS = Grammars(TOKENIZER)
TEXT = [TOKENIZER.token_bytes(token) for token in range(N_VOCAB)]
LIKELY = np.isin(np.arange(N_VOCAB), [*b'"",:{}[]\\\\u01aebn.- \n', "é".encode()[0]])

STRING = {"type": "string"}
TOWN = {"type": "string", "pattern": "^[A-Z][a-z]{2,5}$"}


def listing(items: Any, **fields: Any) -> dict[str, Any]:
    return {"type": "array", "items": items} | fields


def record(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


MAPPED: dict[str, Any] = {
    "strings": listing(STRING),
    "long strings": listing(STRING | {"minLength": 12}),
    "short strings": listing(STRING | {"maxLength": 3}),
    "bounded strings": listing({"anyOf": [STRING | {"minLength": 14, "maxLength": 30}, {"type": "null"}, {"const": "hello"}]}),
    "strings of many lengths": record(a=STRING | {"maxLength": 9}, b=STRING | {"minLength": 1}, c=STRING | {"minLength": 25}),
    "patterns": listing({"anyOf": [TOWN, {"type": "string", "pattern": "^[0-9]+(-[0-9]+)?$"}]}),
    "patterns or any": listing({"anyOf": [TOWN, STRING | {"minLength": 4}]}),
    "alternatives": listing({"type": "string", "pattern": "^[a-z]+@(he|ll)[(|]?$"}),
    "alternatives that are not anchored": listing({"type": "string", "pattern": "^(he)|[)]ll$"}),
    "an odd pattern": listing({"type": "string", "pattern": "(?i)x|^y"}),
    "dates": listing({"type": "string", "format": "date"}),
    "some or any": listing({"anyOf": [{"enum": ["he", 'h"e', "hél\\lo", 1, 12, None]}, STRING]}),
    "numbers": listing({"type": "number"}),
    "few numbers": listing({"anyOf": [{"const": 12.5}, {"type": "integer", "minimum": 3, "maximum": 45}]}),
    "tuples": listing({"type": "boolean"}, prefixItems=[STRING, {"type": "number"}], maxItems=4),
    "records": listing(record(he=STRING, hell=listing({"type": "null"}), b={"type": "boolean"}) | {"required": ["he"]}),
    "other keys": record(he=STRING, b=STRING) | {"additionalProperties": STRING},
    "objects": listing({"type": "object"}),
    "anything": {"type": "object"},
    "trees": {"$ref": "#/$defs/T", "$defs": {"T": record(v=STRING, kids=listing({"$ref": "#/$defs/T"}))}},
    "one or none": listing({"anyOf": [record(he=STRING), {"type": "null"}, listing(STRING)]}),
}
DECIDING: list[Any] = [
    {"anyOf": [record(kind={"const": "a"}, x=STRING), record(kind={"const": "b"}, y=STRING)]},
    {"enum": [[1], {"a": 1}]},
    {"allOf": [record(a=STRING), record(b=STRING)]},
    {"type": "object", "patternProperties": {"^a": STRING}},
    {"type": "object", "maxProperties": 2},
]
TEXTS = {
    "sentences": 'root ::= ([A-Z] [a-z]* ([ ,]+ [a-z]+)* [.!?] " ")+ "he"',
    "rules": 'root ::= a b{2,3}\na ::= [^"\\\\\\n]* | "\\x41é"\nb ::= "hello" | "he\\"" [^a]',
    "expression": "start: /[a-z]+(, [a-z]+)*!/\n",
    "recursion": 'root ::= [a-z]+ | "(" root ")"',
    "left recursion": 'start: start "," /[a-z]+/ | "he"\n',
    "greedy terminals": 'start: (WORD MARK? | "(" start ")")+ "!"\nWORD: /[A-Za-z]+/ | "hell("\nMARK: /[ ,.]+/',
    "empty terminals": 'start: A B? "x" | (B "y" C)*\nA: /a*/\nB: "b"? /[^ab]*/\nC: A B',
    "beyond ASCII": "start: /(xa|y(a|é))*/\n",
    "beyond ASCII by exclusion": "start: /(x[^b]|y[\\x00-ac-\\x7f])*/\n",
    "case does not count": 'start: "he"i /[a-z]+/i\n',
}


def calls(begin: str) -> CallForm:
    return CallForm([{"name": "he", "parameters": record(a=STRING), "strict": True}], begin, "</t>", forced=False, several=True)


def twins(made: Grammars, kind: str | CallForm) -> tuple[Following, Following]:
    """One that follows by a map, if there is one, and one that asks everywhere."""
    mapped = made.constraint(kind)
    assert isinstance(mapped, Following)
    return mapped, Following(mapped._matcher.deep_copy(), TEXT, {EOS}, None)


def permitted(mask: Mask) -> npt.NDArray[np.int64]:
    return masked.permitted(np.zeros(N_VOCAB, np.float32), mask)[0]


def go(mapped: Constraint, plain: Constraint, random: np.random.Generator, tokens: int = 60) -> None:
    """A random answer, by both."""
    for _ in range(tokens):
        mask = plain.mask()
        assert mask is not None
        if random.random() < 0.5:
            assert (mapped.mask() == mask).all()
        ids = permitted(mask)
        refused = np.setdiff1d(np.arange(N_VOCAB), ids)
        for token in random.choice(refused, min(3, len(refused))):
            # a text that is forced may come in other tokens than the mask has
            if len(ids) > 1 and token != EOS:
                assert not mapped.take(int(token))
        likely = ids[LIKELY[ids]]
        token = int(random.choice(likely if len(likely) and random.random() < 0.7 else ids))
        assert mapped.take(token)
        if token == EOS:
            return
        plain.accept(token)
        assert list(mapped.forced()) == list(plain.forced())
        assert not (mapped.has_choice and mapped.forced())
        assert mapped.complete == plain.complete
        if plain.complete:
            return


def text_of(kind: Any) -> str | CallForm:
    return kind if isinstance(kind, (str, CallForm)) else json.dumps(kind)


@pytest.mark.parametrize("kind", ["json", *MAPPED.values(), *TEXTS.values(), calls("<t>"), calls("he")], ids=str)
def test_answers_are_the_same(kind: Any) -> None:
    random = np.random.default_rng(1)
    for _ in range(25):
        go(*twins(GRAMMARS, text_of(kind)), random)


@pytest.mark.parametrize("first", range(0, 300, 100))
def test_answers_to_made_up_schemas_are_the_same(first: int) -> None:
    random = np.random.default_rng(first)
    for _, schema in schemas(300)[first : first + 100]:
        try:
            GRAMMARS.constraint(json.dumps(schema))
        except GrammarError:
            continue
        for _ in range(2):
            go(*twins(GRAMMARS, json.dumps(schema)), random)


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_answers_by_made_up_grammars_are_the_same(first: int) -> None:
    random, mapped = np.random.default_rng(first), 0
    for text in grammars(200)[first : first + 50]:
        try:
            one, _ = twins(GRAMMARS, text)
        except GrammarError:
            continue
        mapped += one._places is not None
        for _ in range(4):
            go(*twins(GRAMMARS, text), random, 40)
    assert mapped > 10


@pytest.mark.parametrize("seed", range(3))
def test_a_full_table_begins_anew(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "_ROOM", 0)  # 64 places
    made, random = Grammars(TOKENIZER), np.random.default_rng(seed)
    for pair in [twins(made, json.dumps(MAPPED["records"])) for _ in range(30)]:
        go(*pair, random)


class Silent:
    """A matcher that nobody may ask."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(name)


def said(constraint: Constraint, text: str) -> Iterator[int]:
    for token in TOKENIZER.encode(text, add_special=False):
        assert constraint.take(token)
        yield from constraint.forced()
        assert not constraint.complete


@pytest.mark.parametrize(
    ("kind", "first", "second"),
    [
        ("json", '{"a": [12, true ,\t"b"], "c":{ \n', '{"xy": [1222, true ,\t"zz d"], "e":{ \n'),
        (MAPPED["strings"], '["hello", "a"', '["x", "everything else"'),
        (MAPPED["numbers"], "[-12.5, 7", "[-1222.5, 7"),
        (MAPPED["alternatives"], '["abc@h', '["acbbdc@h'),
        (MAPPED["records"], '[{"he": "xa"', '[{"he": "x yz"'),
        (TEXTS["sentences"], "A bc. De", "Xyz cb. Efgh"),
        (TEXTS["recursion"], "((ab", "((xyz"),
        (TEXTS["greedy terminals"], "ab (c d", "x (yz,, bc"),
        (calls("<t>"), "hello <b", "and so on, <b>"),
    ],
    ids=str,
)
def test_places_are_known_to_later_answers(kind: Any, first: str, second: str) -> None:
    made = Grammars(TOKENIZER)
    for text in (first, first.replace("b", "d")):
        [*said(made.constraint(text_of(kind)), text)]
    later = made.constraint(text_of(kind))
    assert isinstance(later, Following)
    later._matcher = Silent()  # type: ignore[assignment]
    [*said(later, second)]


@pytest.mark.parametrize("kind", [MAPPED["strings"], TEXTS["expression"]], ids=str)
def test_an_end_that_comes_too_soon_is_asked_for_once(kind: Any) -> None:
    made = Grammars(TOKENIZER)
    first, later = made.constraint(text_of(kind)), made.constraint(text_of(kind))
    assert isinstance(later, Following)
    assert not first.take(EOS)
    later._matcher = Silent()  # type: ignore[assignment]
    assert not later.take(EOS)


@pytest.mark.parametrize("schema", MAPPED.values(), ids=MAPPED)
def test_schemas_with_a_map(schema: Any) -> None:
    assert json_places.has_map(schema)


@pytest.mark.parametrize("schema", DECIDING, ids=str)
def test_values_that_decide_what_follows(schema: Any) -> None:
    assert not json_places.has_map(schema)
    assert not json_places.has_map(listing(schema))


def test_what_a_map_forgets() -> None:
    chart = JsonMap(MAPPED["records"])

    def at(text: str) -> Any:
        return chart.walk(chart.start, text.encode())

    assert at('[{}, {"he": "x') == at('[{}, {"he": "yz", "b": true}, {"he": "help') == at('[{}, {"he": "a\\n\\"')
    assert at('[{"he": "x"') != at('[{"he": "x')
    assert at('[{"he": "x", ') != at('[{"b": true, ')
    assert at('[{"he": "x"}') != at('[{"he": "x"} ')
    assert at('[{"he": "\\u0041"') == at('[{"he": "x"')
    assert not chart.lasting(at('[{"he": "\\u0041'))
    assert at("[1]]") is None


def test_what_matches_no_pattern_is_any_string() -> None:
    chart = JsonMap(MAPPED["patterns or any"])
    places = [chart.walk(chart.start, text) for text in (b'["Abc', b'["Abc d', b'["Abcdefghi, \\n', '["été'.encode())]
    assert [chart.distance(place) for place in places] == [0, math.inf, math.inf, 0]


def test_how_much_of_a_tag_stands_there() -> None:
    chart = TextMap(b"<tool>")
    assert [chart.walk(b"", text) for text in (b"a <to", b"<t<too", b"a<b", b"<tool>x", "é".encode()[:1])] == [
        *(b"<to", b"<too", b"", None),
        "é".encode()[:1],
    ]
    assert chart.walk(b"<to", b"ol> ") is None
    assert chart.walk(b"<to", b"ad") == b""


def test_following_without_places_asks_everywhere() -> None:
    constraint = GRAMMARS.constraint(json.dumps(MAPPED["strings"]))
    assert isinstance(constraint, Following)
    own = Following(constraint._matcher.deep_copy(), TEXT, {EOS}, None)
    for token in b'["ab"':
        assert own.take(token)
    assert not own.take(ord("x"))
    assert not own.complete
