"""runtime.grammar: masks against a naive twin, and answers of a model that says anything."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from toy_model import EOS, N_VOCAB, WORDS, Runs, ToyExecutor, chaos, make_tokenizer

from runtime.core import FloatArray
from runtime.frames import Generate, Sampling
from runtime.grammar import Constraint, Grammars
from runtime.kernels import masked
from runtime.sampling import masks

TOKENIZER = make_tokenizer()
GRAMMARS = Grammars(TOKENIZER)
TEXT: list[bytes] = [bytes([i]) for i in range(256)] + [b""] * 3 + [word.encode() for word in WORDS]

STRING: dict[str, Any] = {"type": "string"}
SHORT = STRING | {"maxLength": 4}
INTEGER: dict[str, Any] = {"type": "integer"}
BOOLEAN: dict[str, Any] = {"type": "boolean"}


def listing(required: Sequence[str] = (), **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


def compiled(grammar: str | dict[str, Any], start: str = "", opening: str = "") -> Constraint:
    return GRAMMARS.constraint(grammar if isinstance(grammar, str) else json.dumps(grammar), start, opening)


def permitted(mask: masks.Mask) -> npt.NDArray[np.int64]:
    return masked.permitted(np.zeros(N_VOCAB, np.float32), mask)[0]


# ---------------------------------------------------------------- the twin

SPACE = re.compile(r"| |\n{1,2}[ \t]{0,20}")  # every beginning of a match is one
Part = Sequence[str] | None  # alternatives; None: white space


def may_begin(parts: Sequence[Part], text: str) -> bool:
    """Whether `text` is the beginning of something that consists of the parts."""
    if not parts or not text:
        return not text
    if parts[0] is not None:
        return any(
            option.startswith(text) or (text.startswith(option) and may_begin(parts[1:], text[len(option) :]))
            for option in parts[0]
        )
    if SPACE.fullmatch(text):
        return True
    return any(SPACE.fullmatch(text[:end]) and may_begin(parts[1:], text[end:]) for end in range(len(text)))


def is_whole(parts: Sequence[Part], text: str) -> bool:
    return may_begin([*parts, ["$"]], text + "$")


LANGUAGES: list[tuple[dict[str, Any] | str, list[Part]]] = [
    ({"enum": ["he", "hell", "hello"]}, [['"he"', '"hell"', '"hello"']]),
    (BOOLEAN | {"description": "?"}, [["true", "false"]]),
    (
        listing(["he", "b"], he={"enum": [1, 12, None]}, b={"type": "boolean"}),
        [
            *(["{"], None, ['"he"'], None, [":"], None, ["1", "12", "null"], None),
            *([","], None, ['"b"'], None, [":"], None, ["true", "false"], None, ["}"]),
        ],
    ),
    (
        {"type": "array", "items": {"const": 7}, "minItems": 2, "maxItems": 2},
        [["["], None, ["7"], None, [","], None, ["7"], None, ["]"]],
    ),
    ('root ::= ("hell" | "he" | "ll") [xy]', [["hell", "he", "ll"], ["x", "y"]]),
    ('root ::= many "l"\nmany ::= [l]{1,3}', [["l", "ll", "lll"], ["l"]]),
    ('start: "hello" | /[ab]l{0,2}/', [["hello", "a", "al", "all", "b", "bl", "bll"]]),
]


@pytest.mark.parametrize(("grammar", "parts"), LANGUAGES, ids=range(len(LANGUAGES)))
@pytest.mark.parametrize("seed", range(6))
def test_masks_are_those_of_the_twin(grammar: str | dict[str, Any], parts: list[Part], seed: int) -> None:
    random = np.random.Generator(np.random.SFC64(seed))
    constraint, text = compiled(grammar), ""
    for _ in range(100):
        mask = constraint.mask()
        assert mask is not None
        expected = [bool(piece) and piece.isascii() and may_begin(parts, text + piece.decode()) for piece in TEXT]
        expected[EOS] = is_whole(parts, text)
        ids = permitted(mask)
        if len(ids) == 1:  # a text that is forced comes in the tokens that the tokenizer would choose
            assert expected[ids[0]]
        else:
            assert ids.tolist() == np.flatnonzero(expected).tolist()
        token = int(random.choice(ids))
        if token == EOS:
            break
        constraint.accept(token)
        text += TEXT[token].decode()
    assert is_whole(parts, text)


@pytest.mark.parametrize(
    ("grammar", "start", "opening"), [(LANGUAGES[2][0], "", ""), (LANGUAGES[4][0], "ll", ""), ("json", "x", "he")]
)
@pytest.mark.parametrize("seed", range(4))
def test_a_token_is_taken_where_it_is_allowed(grammar: str | dict[str, Any], start: str, opening: str, seed: int) -> None:
    """A text that is forced may also come in other tokens than those that the mask has."""
    random = np.random.Generator(np.random.SFC64(seed))
    taking, accepting = compiled(grammar, start, opening), compiled(grammar, start, opening)
    for _ in range(60):
        mask = accepting.mask()
        ids = np.arange(N_VOCAB) if mask is None else permitted(mask)
        if 1 < len(ids) < N_VOCAB:
            assert not taking.take(int(random.choice(np.setdiff1d(np.arange(N_VOCAB), ids))))
        token = int(random.choice(ids))
        assert taking.take(token)
        accepting.accept(token)
        assert taking.complete == accepting.complete
        if token == EOS or accepting.complete:
            break


# ---------------------------------------------------------------- answers

PERSON = listing(["name", "age"], name=SHORT, age={"type": "integer", "minimum": 0, "maximum": 150}, email=SHORT)
KIDS = {"type": "array", "items": {"$ref": "#/$defs/N"}, "maxItems": 2}
TREE = {"$ref": "#/$defs/N", "$defs": {"N": listing(["v"], v=BOOLEAN, kids=KIDS)}}
SHAPE = {
    "oneOf": [
        listing(["kind", "r"], kind={"const": "circle"}, r={"type": "number", "minimum": 0, "maximum": 9}),
        listing(["kind", "w"], kind={"const": "square"}, w={"type": ["integer", "null"]}),
    ],
    "discriminator": {"propertyName": "kind"},
}
INHERITED = {"allOf": [{"$ref": "#/$defs/A"}, listing(["b"], b=BOOLEAN)], "$defs": {"A": listing(["a"], a=INTEGER)}}


def is_person(value: Any) -> bool:
    return set(value) - {"email"} == {"name", "age"} and len(value["name"]) <= 4 and 0 <= value["age"] <= 150


def is_tree(value: Any) -> bool:
    return set(value) <= {"v", "kids"} and isinstance(value["v"], bool) and all(map(is_tree, value.get("kids", [])))


def is_shape(value: Any) -> bool:
    if value["kind"] == "circle":
        return set(value) == {"kind", "r"} and 0 <= value["r"] <= 9
    return set(value) == {"kind", "w"} and (value["w"] is None or isinstance(value["w"], int))


SCHEMAS: list[tuple[dict[str, Any], Callable[[Any], bool]]] = [
    (PERSON, is_person),
    (TREE, is_tree),
    (SHAPE, is_shape),
    (INHERITED, lambda v: list(v) == ["a", "b"]),
    ({"type": "array", "items": SHORT, "minItems": 1, "maxItems": 3}, lambda v: 1 <= len(v) <= 3 and all(len(x) <= 4 for x in v)),
    ({"type": "array", "items": [BOOLEAN, {"type": "null"}]}, lambda v: len(v) == 2 and isinstance(v[0], bool) and v[1] is None),
    ({"enum": ['ä"\\\n', "b", 3, None, [1]]}, lambda v: v in ['ä"\\\n', "b", 3, None, [1]]),
    ({"anyOf": [INTEGER, {"type": "null"}, BOOLEAN]}, lambda v: v is None or isinstance(v, int)),
    ({"type": "string", "pattern": "^[a-c]{2}-\\d$"}, lambda v: re.fullmatch(r"[a-c]{2}-\d", v) is not None),
    ({"type": "string", "format": "date"}, lambda v: re.fullmatch(r"\d{4}-\d\d-\d\d", v) is not None),
    ({"type": "object", "additionalProperties": BOOLEAN, "maxProperties": 2}, lambda v: set(v.values()) <= {True, False}),
    ({"type": "number", "exclusiveMinimum": 0, "maximum": 2}, lambda v: 0 < v <= 2),
    ({"type": "integer", "multipleOf": 5, "minimum": 1, "maximum": 20}, lambda v: v in (5, 10, 15, 20)),
]


def talkative(tokens: Sequence[int]) -> FloatArray:
    """Anything, but nothing goes on for ever."""
    logits = chaos(tokens)
    logits[[ord(letter) for letter in '"]}']] += 4
    logits[EOS] = 4
    return logits


def answer(grammar: str, seed: int, formula: Callable[[Sequence[int]], FloatArray] = talkative, **fields: Any) -> Runs:
    runs = Runs(ToyExecutor(formula, n_blocks=128), num_ctx=4096)
    runs.run(Generate(1, "hello", grammar=grammar, sampling=Sampling(temperature=2, seed=seed), num_predict=3000, **fields))
    return runs


@pytest.mark.parametrize(("schema", "fits"), SCHEMAS, ids=range(len(SCHEMAS)))
@pytest.mark.parametrize("seed", range(4))
def test_any_answer_fits_its_schema(schema: dict[str, Any], fits: Callable[[Any], bool], seed: int) -> None:
    runs = answer(json.dumps(schema), seed)
    assert runs.done(1).reason == "stop"
    assert fits(json.loads(runs.text(1))), runs.text(1)


@pytest.mark.parametrize("seed", range(8))
def test_any_object(seed: int) -> None:
    runs = answer("json", seed)
    assert runs.done(1).reason == "stop"
    assert isinstance(json.loads(runs.text(1)), dict)


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ('{ \n\t "a": [1.5e3 , null , {}\n\n\n]}', False),  # as by Ollama's grammar: after numbers and strings it is the end
        ('{ \n\t "a": [1.5e3, null , {}\n\n\n]}', True),
        ('{"a" : 1}', False),
        ('{"a": "b" , "c": 1}', False),
        ('{"a": "b"' + "\n" * 50 + "}", True),
        ('{"a":\r1}', False),
        ('{"a": 01}', False),
        ('{"\\u00e9\\/": -0.0E-7}', True),
        ("[1]", False),
    ],
)
def test_white_space_in_any_object(text: str, fits: bool) -> None:
    constraint = compiled("json")
    assert all(constraint.take(token) for token in text.encode()) == fits
    assert constraint.complete == fits


def test_the_best_token_that_is_allowed() -> None:
    def keen(tokens: Sequence[int]) -> FloatArray:
        logits = np.zeros(N_VOCAB, np.float32)
        logits[[ord("!"), ord("f"), ord("t")]] = 3, 2, 1
        return logits

    runs = Runs(ToyExecutor(keen))
    greedy = Sampling(temperature=0)
    runs.run(Generate(1, "hello", grammar='{"type": "boolean"}', sampling=greedy, logprobs=0))
    assert runs.text(1) == "false"
    first = runs.tokens(1)[0].logprobs[0]
    assert first.logprob == pytest.approx(2 - np.log(np.exp([3, 2, 1]).sum() + N_VOCAB - 3), abs=1e-4)  # by the model alone


def test_the_limit_cuts_an_answer() -> None:
    runs = Runs(ToyExecutor())
    runs.run(Generate(1, "hello", grammar="json", num_predict=1))
    assert (runs.text(1), runs.done(1).reason) == ("{", "length")


def test_requests_do_not_share_their_place_in_a_grammar() -> None:
    runs = Runs(ToyExecutor(talkative, n_blocks=256), num_ctx=4096)
    schema = json.dumps(PERSON)
    runs.run(*(Generate(i, f"{i}", grammar=schema, sampling=Sampling(temperature=2, seed=i), num_predict=3000) for i in range(6)))
    assert all(is_person(json.loads(runs.text(i))) for i in range(6))
    assert len({runs.text(i) for i in range(6)}) > 1


# ---------------------------------------------------------------- tokens without an alternative

NAMES = listing(["hello", "hell"], hello=STRING | {"maxLength": 3}, hell={"enum": ["abc", "abd"]})


def steps_and_tokens(several: bool, **fields: Any) -> tuple[int, list[int], str]:
    executor = ToyExecutor(talkative, n_blocks=128)
    executor.several = several
    runs = Runs(executor, num_ctx=fields.pop("num_ctx", 4096))
    runs.run(Generate(1, "hello", grammar=json.dumps(NAMES), **{"num_predict": 3000} | fields))
    told = [token for frame in runs.tokens(1) for token in frame.tokens]
    assert len(told) == runs.done(1).eval_tokens - (EOS in told)
    return len(executor.rows), told, runs.done(1).reason


SAMPLINGS = [
    Sampling(temperature=0),
    Sampling(temperature=0, repeat_penalty=1.3, repeat_last_n=8, presence_penalty=0.5),
    Sampling(temperature=1.5, seed=3),
    Sampling(temperature=2, seed=4, frequency_penalty=0.7, dry_multiplier=0.8),
]


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=range(len(SAMPLINGS)))
@pytest.mark.parametrize("fields", [{}, {"num_predict": 4}, {"stop": ["ll"]}, {"num_ctx": 24}], ids=str)
def test_forced_tokens_share_a_step(sampling: Sampling, fields: dict[str, Any]) -> None:
    """And change nothing: the answer is that of one step for each token."""
    fields = {"sampling": sampling, "shift": False} | fields
    (few, told, reason), (many, expected, its_reason) = steps_and_tokens(True, **fields), steps_and_tokens(False, **fields)
    assert (told, reason) == (expected, its_reason)
    assert few < many == len(told) or len(told) < 3


def test_the_best_answer_is_that_of_the_masks() -> None:
    """Few masks are computed, but all of them are obeyed."""
    executor = ToyExecutor(talkative, n_blocks=128)
    runs = Runs(executor, num_ctx=4096)
    runs.run(Generate(1, "hello", grammar=json.dumps(NAMES), sampling=Sampling(temperature=0), num_predict=3000))
    told = [token for frame in runs.tokens(1) for token in frame.tokens]
    constraint, tokens = compiled(NAMES), TOKENIZER.encode("hello")
    for token in told:
        mask = constraint.mask()
        assert mask is not None
        ids = permitted(mask)
        assert token == ids[talkative(tokens)[ids].argmax()]
        constraint.accept(token)
        tokens.append(token)
    assert constraint.complete


@pytest.mark.parametrize("fields", [{"logprobs": 2}, {"sampling": Sampling(temperature=1, mirostat=2)}], ids=str)
def test_who_wants_to_see_all_logits_does(fields: dict[str, Any]) -> None:
    steps, told, _ = steps_and_tokens(True, **fields)
    assert steps == len(told)


# ---------------------------------------------------------------- after reasoning


def reciting(text: str, n_prompt: int = 3) -> Callable[[Sequence[int]], FloatArray]:
    """Wants to say `text`, then whatever."""

    def formula(tokens: Sequence[int]) -> FloatArray:
        logits = talkative(tokens)
        said = len(tokens) - n_prompt
        if said < len(text):
            logits[ord(text[said])] += 50
        return logits

    return formula


SCHEMA = json.dumps(listing(["ok"], ok=BOOLEAN))


@pytest.mark.parametrize("thought", ["Hm { no }</think>", "</think>", "a</think\n</think>"])
def test_the_grammar_waits_for_its_start(thought: str) -> None:
    runs = answer(SCHEMA, 1, reciting(thought), grammar_start="</think>")
    assert runs.text(1).startswith(thought)
    assert json.loads(runs.text(1).removeprefix(thought)).keys() == {"ok"}


def test_line_breaks_may_follow_the_reasoning() -> None:
    runs = answer(SCHEMA, 1, reciting("x</think>\n\n\n\n"), grammar_start="</think>")
    assert runs.text(1).startswith("x</think>\n\n{")


def test_a_model_may_reason_first_or_not_at_all() -> None:
    fields = {"grammar_start": "</think>", "grammar_opening": "<think>"}
    thinks = answer(SCHEMA, 1, reciting("<think>So?</think>"), **fields).text(1)
    assert json.loads(thinks.removeprefix("<think>So?</think>")).keys() == {"ok"}
    straight = answer(SCHEMA, 1, reciting('{"ok":true}'), **fields).text(1)
    assert straight == '{"ok":true}'
    swerves = answer(SCHEMA, 1, reciting("<b>?</think>"), **fields).text(1)
    assert swerves.startswith("<think>")  # whoever begins so goes on so


@pytest.mark.parametrize(
    ("grammar", "text"),
    [
        (r'root ::= [\u0430-\u0432] "\u0431" "\x41"', "бб" + "A"),
        (r'root ::= "\U0001F600" [^\U0001F601\u005d]', "😀x"),
        (r'root ::= "\u0022\u005c" [\u005b\u002f]', '"\\['),
        (r'root ::= "\\u0041"', r"\u0041"),
    ],
)
def test_characters_of_gbnf_by_their_numbers(grammar: str, text: str) -> None:
    constraint = compiled(grammar)
    assert all(constraint.take(byte) for byte in text.encode())
    assert constraint.take(EOS)


def test_a_token_may_reach_into_the_answer() -> None:
    constraint = compiled('root ::= "ll" "x"', start="he")
    constraint.accept(259 + WORDS.index("hell"))
    mask = constraint.mask()
    assert mask is not None
    assert permitted(mask).tolist() == [ord("x")]


# ---------------------------------------------------------------- what goes wrong

EXPLOSIVE = [
    json.dumps(STRING | {"pattern": "(a{1,1000}){1,1000}(b{1,1000}){1,1000}"}),
    'root ::= ("a" root | root "a" | root root | "a")',
    json.dumps({"anyOf": [STRING | {"pattern": f"(x|y)*x(x|y){{{i}}}$"} for i in range(40)]}),
]


@pytest.mark.parametrize("grammar", EXPLOSIVE, ids=range(3))
def test_a_grammar_that_explodes_does_no_harm(grammar: str) -> None:
    runs = Runs(ToyExecutor())
    runs.run(Generate(1, "hello", grammar=grammar, num_predict=50), Generate(2, "hello", num_predict=3))
    assert runs.done(2).reason == "length"
    last = runs.frames[1][-1]
    assert getattr(last, "kind", "bad_request") == "bad_request"
