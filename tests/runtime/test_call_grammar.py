"""runtime.call_grammar: what a model that says anything says when it has to call tools."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from toy_model import Runs, ToyExecutor, chaos, make_tokenizer

from runtime.following import GrammarError
from runtime.frames import CallForm, Failed, Generate, Sampling
from runtime.grammar import Constraint, Grammars
from runtime.sampling import masks

TOKENIZER = make_tokenizer()
GRAMMARS = Grammars(TOKENIZER)
CITY = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 3}}, "required": ["city"]}
NONE: dict[str, Any] = {"type": "object", "properties": {}}
IMPOSSIBLE = {"type": "object", "properties": {"x": {"type": "array", "uniqueItems": True}}}
UNFOLDABLE = {"type": "object", "properties": {"x": {"type": "string", "pattern": "(?=a)b"}}}


def tool(name: str, parameters: dict[str, Any] | None, strict: bool = False) -> dict[str, Any]:
    return {"name": name, "parameters": parameters, "strict": strict}


def answer(form: CallForm, seed: int, **fields: Any) -> str:
    runs = Runs(ToyExecutor(chaos))
    sampling = Sampling(temperature=1.5, top_k=0, top_p=1.0, seed=seed)
    runs.run(Generate(1, "hello", calls=form, sampling=sampling, num_predict=400, preserved=["<call>"], **fields))
    return runs.text(1)


def takes(constraint: Constraint, text: str) -> bool:
    for token in TOKENIZER.encode(text, add_special=False):
        mask = constraint.mask()
        if mask is not None and not masks.permits(mask, token):
            return False
        constraint.accept(token)
    return True


def called(text: str) -> tuple[str, Any]:
    value = json.loads(text)
    assert set(value) == {"name", "arguments"}
    return value["name"], value["arguments"]


@pytest.mark.parametrize("seed", range(6))
def test_one_forced_call(seed: int) -> None:
    name, arguments = called(answer(CallForm([tool("f", CITY), tool("g", NONE)]), seed))
    assert name in ("f", "g")
    assert set(arguments) == ({"city"} if name == "f" else set())


@pytest.mark.parametrize("end", ["</call>", "<end>"])
@pytest.mark.parametrize("seed", range(4))
def test_calls_between_tags(seed: int, end: str) -> None:
    """The first tag is a token of its own, the other one is text."""
    text = answer(CallForm([tool("f", CITY), tool("g", NONE)], "<call>", end, several=True), seed)
    found = re.findall(rf"<call>\s?(\{{.*?\}})\s?{end}(?:\s|$|(?=<call>))", text, re.DOTALL)
    assert found
    assert {called(call)[0] for call in found} <= {"f", "g"}


@pytest.mark.parametrize("begin", ["<call>", "<<"])
def test_text_with_calls(begin: str) -> None:
    """Whatever stands before a call, the call itself is one."""
    constraint = GRAMMARS.constraint(CallForm([tool("f", CITY, strict=True)], begin, ">>", forced=False, several=True))
    assert takes(constraint, "well { < let me see: ")
    assert takes(constraint, begin)
    assert takes(constraint, ' {"name": "f", "arguments": {"city": "Rom"}}>> and then ')
    assert takes(constraint, begin + '{"name": "f", "arguments": ')
    assert not takes(constraint, '{"town"')


def test_arguments_that_cannot_be_enforced() -> None:
    """They are free where they need not be strict, and refused where they have to be."""
    for schema in (IMPOSSIBLE, UNFOLDABLE):
        assert takes(GRAMMARS.constraint(CallForm([tool("f", schema)])), '{"name": "f", "arguments": {"x": 1}}')
        with pytest.raises(GrammarError):
            GRAMMARS.constraint(CallForm([tool("f", schema, strict=True)]))
    runs = Runs(ToyExecutor(chaos))
    runs.run(Generate(1, "x", calls=CallForm([tool("f", IMPOSSIBLE, strict=True)])))
    (failed,) = runs.frames[1]
    assert isinstance(failed, Failed)
    assert "uniqueItems is not supported" in failed.message


def test_names_are_quoted() -> None:
    odd = 'a"b\\c\u00e9'
    assert called(answer(CallForm([tool(odd, NONE)]), 0))[0] == odd
