"""What is asked: prompts of given lengths that share no beginning, and the cells that fit the time and the model's context."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

SHORT, LENGTHS = 64, (64, 2048, 8192)  # tokens of a prompt
USERS = (1, 4, 16)
ANSWER = 64  # tokens
MARGIN = 16  # tokens by which a prompt may turn out longer than planned
TASK = ". Write a long story with these words."
ROUNDS, FEWEST, FULL_ROUNDS = 7, 3, 9
BUDGET = 540.0  # seconds that a run plans for, so that it ends within 10 minutes
TEXTS = 4  # answers of each side that are compared afterwards

_TEXT = """
river lantern winter garden copper silent market thunder meadow bridge harbour candle forest
violin marble falcon orchard pepper mirror saddle tunnel velvet walnut anchor basket canyon
desert engine feather glacier hammer island jacket kettle ladder magnet needle oyster pillow
quarry ribbon shadow temple umbrella valley window yellow zipper almond beacon
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """One thing to measure: so many users at a time, each with a prompt of so many tokens."""

    prompt: int
    users: int

    @property
    def name(self) -> str:
        """For tables."""
        users = f", {self.users} users" if self.users > 1 else ""
        return f"{'short' if self.prompt == SHORT else self.prompt} prompt{users}"


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What is measured, how often, and what is left out and why."""

    cells: tuple[Cell, ...]
    rounds: int
    left_out: tuple[str, ...]
    num_ctx: int

    def without(self, cell: Cell, rounds: int) -> Plan:
        """No longer with that cell, after so many rounds."""
        rest = tuple(other for other in self.cells if other != cell)
        lost = f"{cell.name}: not measured again after round {rounds}, it took too long (--full measures it)"
        return dataclasses.replace(self, cells=rest, left_out=(*self.left_out, lost))

    def measured(self, cells: Sequence[Cell]) -> Plan:
        """What became of it: these cells."""
        lost = [f"{cell.name}: no time was left for it (--full measures it)" for cell in self.cells if cell not in cells]
        return dataclasses.replace(self, cells=tuple(cells), left_out=(*self.left_out, *lost))

    def ended(self, rounds: int, why: str) -> Plan:
        """After so many rounds already."""
        lost = f"{self.rounds - rounds} of {self.rounds} rounds: {why}"
        return dataclasses.replace(self, rounds=rounds, left_out=(*self.left_out, lost))


class Prompts:
    """Texts of about so many tokens, no two with the same beginning: a server's prefix cache helps neither side."""

    def __init__(self, seed: int = 0, tokens_a_word: float = 2.0) -> None:
        self._seed, self._draw, self._words = seed, random.Random(seed), _TEXT.split()
        self.tokens_a_word = tokens_a_word  # until `learn` has seen a count

    def of_round(self, number: int) -> Prompts:
        """Others, the same for everybody who takes part in a round."""
        return Prompts(self._seed + 1 + number, self.tokens_a_word)

    def learn(self, words: int, tokens: int) -> None:
        """How a tokenizer counted a text of so many words."""
        if words and tokens:
            self.tokens_a_word = tokens / words

    def words(self, tokens: int) -> int:
        """Words of a text of about so many tokens, without those of the task."""
        return max(4, int(tokens / self.tokens_a_word) - len(TASK.split()) + 1)  # the full stop is no word

    def text(self, tokens: int) -> str:
        """A new one: words, and what to do with them."""
        return " ".join(self._draw.choices(self._words, k=self.words(tokens))) + TASK


@dataclasses.dataclass(frozen=True, slots=True)
class Pace:
    """A side's first short measurement."""

    prefill: float  # tokens a second
    decode: float
    load: float  # seconds

    def seconds(self, cell: Cell) -> float:
        """What a cell will take at the most: users one after the other."""
        return cell.users * (cell.prompt / max(self.prefill, 1e-6) + ANSWER / max(self.decode, 1e-6))


def plan(context: int, paces: Sequence[Pace], *, full: bool, budget: float = BUDGET, rounds: int = 0) -> Plan:
    """All cells that the context has room for; without `full` the longest are left out until the rest fits the budget.
    `rounds`: how many, where somebody says."""
    wanted = [Cell(prompt, 1) for prompt in LENGTHS] + [Cell(SHORT, users) for users in USERS if users > 1]
    cells = [cell for cell in wanted if cell.prompt + ANSWER + MARGIN <= context]
    left_out = [
        f"{cell.name}: the model's context of {context} tokens has no room for it and an answer"
        for cell in wanted
        if cell not in cells
    ]
    if not full:
        budget -= afterwards(paces)
        while len(cells) > 1 and (rounds or FEWEST) * _round(cells, paces) > budget:
            slowest = max(cells[1:], key=lambda cell: sum(pace.seconds(cell) for pace in paces))
            cells.remove(slowest)
            left_out.append(f"{slowest.name}: it would take too long (--full measures it)")
    fitting = FULL_ROUNDS if full else max(1, min(ROUNDS, int(budget / max(_round(cells, paces), 1e-6))))
    longest = max((cell.prompt for cell in cells), default=SHORT)
    return Plan(tuple(cells), rounds or fitting, tuple(left_out), min(context, -(-(longest + ANSWER + MARGIN) // 1024) * 1024))


def afterwards(paces: Sequence[Pace]) -> float:
    """Seconds that comparing answers takes, when all is measured."""
    return TEXTS * sum(pace.seconds(Cell(SHORT, 1)) for pace in paces)


def _round(cells: Sequence[Cell], paces: Sequence[Pace]) -> float:
    """Seconds of a turn of each side."""
    return sum(pace.load + sum(pace.seconds(cell) for cell in cells) for pace in paces)
