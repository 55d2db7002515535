"""Known Jinja templates and the edit distance by which they are found."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from ollama_compat.template import detect
from ollama_compat.template.distance import distance
from ollama_compat.template.gotemplate import Template

FIXTURES = Path(__file__).parents[1] / "fixtures" / "templates"
KNOWN = [
    (name, jinja)
    for line in (FIXTURES / "templates.jsonl").read_text("utf-8").splitlines()
    for name, jinja in json.loads(line).items()
]


@pytest.mark.parametrize(("name", "jinja"), KNOWN, ids=[f"{at}-{name}" for at, (name, _) in enumerate(KNOWN)])
def test_known(name: str, jinja: str) -> None:
    assert detect.named(jinja) == name
    assert detect.named("{# x #}" + jinja.replace("content", "c0ntent", 3) + "\n") == name
    template = Template.parse(detect.template(name))
    assert template.variables() & {"messages", "response"}
    assert all(isinstance(stop, str) for stop in detect.params(name)["stop"])


@pytest.mark.parametrize("jinja", ["", "x", "{{ messages }}", "x" * 500, "{% for m in messages %}" * 200])
def test_unknown(jinja: str) -> None:
    assert detect.named(jinja) is None


def test_limit_is_a_hundred_edits() -> None:
    _, jinja = max(KNOWN, key=lambda known: len(known[1]))
    assert detect.named("\0" * 99 + jinja) is not None
    assert detect.named("\0" * 100 + jinja) is None


def test_params() -> None:
    assert detect.params("chatml") == {"stop": ["<|im_start|>", "<|im_end|>"]}
    assert detect.params("no such template") == {}


def plain_distance(a: str, b: str) -> int:
    """By the whole table."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (x != y)))
    return row[-1]


def pairs(count: int) -> list[tuple[str, str]]:
    dice = random.Random(7)
    found = []
    for _ in range(count):
        letters = dice.choice(("ab", "abcdef", "é日a"))
        a = "".join(dice.choices(letters, k=dice.randrange(13)))
        b = list(a) if dice.random() < 0.5 else dice.choices(letters, k=dice.randrange(13))
        for _ in range(dice.randrange(4)):
            b.insert(dice.randrange(len(b) + 1), dice.choice(letters))
            del b[dice.randrange(len(b))]
        found.append((a, "".join(b)))
    return found


def test_distance() -> None:
    for a, b in pairs(1500):
        whole = plain_distance(a, b)
        for limit in {0, 1, 3, max(whole - 1, 0), whole, 30}:
            assert distance(a, b, limit) == (whole if whole <= limit else None), (a, b, limit)
