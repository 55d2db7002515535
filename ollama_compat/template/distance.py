"""Levenshtein's distance of two texts, as far as a limit."""

from __future__ import annotations

from collections import Counter


def distance(a: str, b: str, limit: int) -> int | None:
    """The number of characters to insert, delete or replace to make `b` of `a`; None when it is above `limit`.

    Landau and Vishkin's diagonals: time is O(limit**2) comparisons of slices plus the length, so that a limit of 100
    costs milliseconds for texts of any length.
    """
    if abs(len(a) - len(b)) > limit or _at_least(a, b) > limit:
        return None
    goal = len(b) - len(a)
    reach = {0: _equal(a, b, 0, 0)}  # for each diagonal, place in b less place in a: how much of a is matched
    for edits in range(limit + 1):
        if reach.get(goal, -1) >= len(a):
            return edits
        reach = _next(a, b, reach, edits + 1)
    return None


def _at_least(a: str, b: str) -> int:
    """A lower bound: characters that one text has more of than the other, wherever they stand."""
    in_a, in_b = Counter(a), Counter(b)
    return max((in_a - in_b).total(), (in_b - in_a).total())


def _next(a: str, b: str, reach: dict[int, int], edits: int) -> dict[int, int]:
    """How far each diagonal gets with one edit more."""
    farther = {}
    for diagonal in range(max(-edits, -len(a)), min(edits, len(b)) + 1):
        start = max(
            reach.get(diagonal, -2) + 1,  # replace
            reach.get(diagonal + 1, -2) + 1,  # delete from a
            reach.get(diagonal - 1, -2),  # insert
        )
        start = min(start, len(a), len(b) - diagonal)
        farther[diagonal] = start + _equal(a, b, start, start + diagonal) if start + diagonal >= 0 <= start else start
    return farther


def _equal(a: str, b: str, at: int, bt: int) -> int:
    """How many characters from `at` and `bt` on are equal, found by doubling and halving."""
    count, step = 0, 1
    end = min(len(a) - at, len(b) - bt)
    while count < end:
        size = min(step, end - count)
        if a[at + count : at + count + size] == b[bt + count : bt + count + size]:
            count += size
            step *= 2
        elif size == 1:
            break
        else:
            step = size // 2
    return count
