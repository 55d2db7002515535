"""runtime.grammar_trial: grammars that are tried in a process of their own."""

from __future__ import annotations

import queue
import time

import llguidance
import psutil
import pytest
from toy_model import make_tokenizer

from runtime import grammar_trial
from runtime.frames import Generate
from runtime.grammar import GrammarError, Grammars
from runtime.preparation import Preparation

ENDLESS = "start: A\nA: /(.*b.{26})/ & ~/(.*c.{27}.*)/"  # in theory it ends
GRAMMARS = Grammars(make_tokenizer())


def problem(text: str, seconds: float = 120.0, memory: int = grammar_trial.MEMORY) -> str | None:
    return grammar_trial.problem(llguidance.LLMatcher.grammar_from_lark(text), seconds, memory)


def test_what_does_not_end_is_stopped() -> None:
    assert problem(ENDLESS, seconds=1.0) == "the grammar takes longer than 1 s to compile"


def test_what_takes_too_much_memory() -> None:
    assert problem(ENDLESS, memory=256 << 20) == "the grammar does not compile: it takes too much memory"


def _trials() -> list[psutil.Process]:
    """Those of this process, which has servers of other tests too."""
    children = psutil.Process().children()
    return [child for child in children if "runtime.grammar_trial" in (child.as_dict(["cmdline"])["cmdline"] or ())]


def test_a_trial_ends_with_the_request_that_it_is_for() -> None:
    told: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def prepare(request: Generate) -> None:
        told.put(problem(ENDLESS, seconds=600.0, memory=1 << 40))

    preparation = Preparation(prepare, lambda job: None)
    preparation.begin(Generate(1, ""))
    while not (children := _trials()):
        time.sleep(0.01)
    preparation.cancel(1)
    assert told.get(timeout=60) == "nobody waits for the grammar"
    assert psutil.wait_procs(children, timeout=60)[1] == []


@pytest.mark.parametrize("text", ["start: A\nA: /[a-z]+/ & ~/foo/", "start: no such rule"])
def test_what_ends_is_no_problem_of_the_trial(text: str) -> None:
    assert problem(text) is None


def test_grammars_that_exclude_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar_trial, "problem", lambda source: "too long")
    GRAMMARS.constraint("start: /[a-z]+/")
    GRAMMARS.constraint('root ::= "a" [b-z]*')
    with pytest.raises(GrammarError, match="too long"):
        GRAMMARS.constraint(ENDLESS)
