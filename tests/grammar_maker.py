"""Grammars in GBNF and Lark, made up at random: recursive ones, terminals that overlap, parts that may be empty."""

from __future__ import annotations

import random

_LITERALS = ["a", "b", "ab", "aa", "he", "ll", "(", ")", ",", "é", '\\"', "x\\n"]
_CLASSES = ["[ab]", "[a-z]", "[^a]", "[^ab\\n]", "[0-9]", "[é-ü]", "[a-é]"]
_TIMES = ["", "", "", "*", "+", "?", "{2}", "{1,2}", "{0,3}", "{2,}"]


def grammars(count: int) -> list[str]:
    """So many, the same ones each time."""
    return [_lark(random.Random(seed)) if seed % 2 else _gbnf(random.Random(seed)) for seed in range(count)]


def _gbnf(chance: random.Random) -> str:
    names = ["root", *"cde"[: chance.randrange(4)]]
    return "".join(f'{name} ::= {_expansions(chance, 3, _CLASSES, names)} | "e"\n' for name in names)


def _lark(chance: random.Random) -> str:
    rules, terminals = ["start", *"cd"[: chance.randrange(3)]], [*"ABC"[: chance.randrange(1, 4)]]
    classes = [f"/{text}{times}/" for text in _CLASSES for times in ("", "+", "*", "{2}")]
    lines = [f'{name}: {_expansions(chance, 3, classes, rules + 2 * terminals)} | "e"' for name in rules]  # all come to an end
    for at, name in enumerate(terminals):
        lines.append(f"{name}: {_expansions(chance, 2, classes, terminals[at + 1 :])}")
    return "\n".join(lines) + "\n"


def _expansions(chance: random.Random, depth: int, classes: list[str], names: list[str]) -> str:
    return " | ".join(_sequence(chance, depth, classes, names) for _ in range(chance.choice((1, 1, 2, 3))))


def _sequence(chance: random.Random, depth: int, classes: list[str], names: list[str]) -> str:
    parts = []
    for _ in range(chance.choice((1, 2, 2, 3))):
        kind = chance.randrange(8 if depth else 6)
        if kind < 3 or (kind == 5 and not names):
            part = f'"{chance.choice(_LITERALS)}"'
        elif kind < 5:
            part = chance.choice(classes)
        elif kind == 5:
            part = chance.choice(names)
        else:
            part = f"({_expansions(chance, depth - 1, classes, names)})"
        parts.append(part + chance.choice(_TIMES))
    return " ".join(parts)
