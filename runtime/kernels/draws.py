"""Drawing a token by the usual samplers: top_k, top_p, min_p, temperature. Two loops, between which NumPy takes exponentials.

NumPy has an `exp` of its own, another one for each kind of CPU. Only with that, and with each step and the order of additions as
in `runtime.sampling`, does the same random number mean the same token here and there.

A token's rank is an integer that is greater where the token comes sooner: its logit is higher, or as high and its id lower.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.core import FloatArray
from runtime.kernels.jit import njit
from runtime.kernels.masked import Mask, part, spread

Integers = npt.NDArray[np.signedinteger[Any]]
Ids = npt.NDArray[np.int64]

_WORD, _WHOLE = 32, 0xFFFFFFFF  # tokens of a mask's word, and one that permits them all
_ID_BITS, _LAST = 31, (1 << 31) - 1
_MINUS_ZERO = -(1 << 31)  # its bits
_INFINITE, _LOWEST = 0x7F800000, -0x7F800001  # keys of both infinities; those of NaNs lie beyond
_SPARSE = 16  # a mask is read word by word where of so many one permits something
_GROUPS, _LONGEST = 6, 64  # so many groups for each token that is wanted, but of no more tokens each
_SPARE = 32  # so many more than are wanted may be sorted


@part
def _key(bits: int) -> int:
    """An integer that is greater where the number with these bits is. Both zeros have the same."""
    return 0 if bits == _MINUS_ZERO else bits ^ ((bits >> 31) & 0x7FFFFFFF)


@part
def _compare(logits: FloatArray, mask: Mask, highest: FloatArray) -> None:
    """Find of each group the highest permitted logit, or a NaN if there is one. Groups are interleaved, so that one row of
    tokens after the other is compared with all groups."""
    size = len(highest)
    for at in range(size):
        highest[at] = -np.inf
    permits = spread(mask, len(logits) if len(mask) else 0)
    for first in range(0, len(logits), size):
        row = logits[first : first + size]
        if len(mask) == 0:
            for at in range(len(row)):
                old, new = highest[at], row[at]
                highest[at] = old if (old >= new) | (old != old) else new
        else:
            kept = permits[first : first + size]
            for at in range(len(row)):
                old, new = highest[at], row[at]
                highest[at] = old if (kept[at] == 0) | (old >= new) | (old != old) else new


@part
def _bound(values: Ids, least: int, most: int) -> int:
    """A value that at least `least` of them reach, and no more than `most` unless these are equal."""
    low, high = int(values[0]), int(values[0])
    for value in values:
        low, high = min(low, value), max(high, value)
    high += 1
    while high - low > 1:  # enough reach low, too few high
        middle = low + ((high - low) >> 1)
        count = 0
        for value in values:
            count += value >= middle
        if count < least:
            high = middle
        else:
            low = middle
            if count <= most:
                break
    return low


@part
def _find_all(bits: Integers, mask: Mask, found: Ids) -> int:
    """Find the ranks of the permitted tokens, in the order of ids. Returns how many there are; 0 if one has a NaN."""
    words = mask.view(np.uint32)
    count, low, high = 0, 0, 0
    for first in range(0, len(bits), _WORD):
        place = first // _WORD
        word = np.uint32(_WHOLE) if len(words) == 0 else words[place] if place < len(words) else np.uint32(0)
        for token in range(first, min(first + _WORD, len(bits)) if word else first):
            if (word >> (token - first)) & 1 != 0:
                key = _key(bits[token])
                low, high = min(low, key), max(high, key)
                found[count] = (key << _ID_BITS) | (_LAST - token)
                count += 1
    return count if low >= _LOWEST and high <= _INFINITE else 0


@part
def _find_above(logits: FloatArray, mask: Mask, highest: FloatArray, bound: np.float32, found: Ids) -> int:
    """Find the ranks of the permitted tokens that reach a bound. `highest`: of each group. Returns how many there are."""
    bits, count = logits.view(np.int32), 0
    for group in range(len(highest)):
        if highest[group] >= bound:
            for token in range(group, len(logits), len(highest)):
                if logits[token] >= bound:
                    byte = mask[token >> 3] if token >> 3 < len(mask) else np.uint8(0)
                    if len(mask) == 0 or (byte >> (token & 7)) & 1 != 0:
                        found[count] = (_key(bits[token]) << _ID_BITS) | (_LAST - token)
                        count += 1
    return count


@part
def _group_bound(logits: FloatArray, mask: Mask, highest: FloatArray, k: int) -> np.float32:
    """A logit that more than k tokens reach, for so many groups do; minus infinity if there are not as many, a NaN if
    there is one."""
    _compare(logits, mask, highest)
    bits, keys, lowest = highest.view(np.int32), np.empty(len(highest), np.int64), np.float32(np.inf)
    for group in range(len(keys)):
        keys[group] = _key(bits[group])
    enough = _bound(keys, k + 1, k + 1 + _SPARE // 4)
    for group in range(len(keys)):
        best = highest[group]
        if best != best:
            return np.float32(best)
        if keys[group] >= enough and best < lowest:
            lowest = best
    return lowest


@part
def _find(logits: FloatArray, mask: Mask, k: int, found: Ids) -> int:
    """Find the ranks of more than k of the likeliest permitted tokens; if there are not as many, of all in the order of ids.
    Returns how many there are; 0 if one of the permitted has a NaN."""
    rows, some, bound = min(max(len(logits) // (_GROUPS * k), 1), _LONGEST), 0, np.float32(-np.inf)
    for word in mask.view(np.uint32):
        some += word != 0
    highest = np.empty(max(len(logits) // rows // _WORD, 1) * _WORD, np.float32)
    if len(highest) > k and (len(mask) == 0 or _SPARSE * _WORD * some >= len(logits)):
        bound = _group_bound(logits, mask, highest, k)
    if bound != bound:
        return 0
    if bound > -np.inf:
        return _find_above(logits, mask, highest, bound, found)
    return _find_all(logits.view(np.int32), mask, found)


@part
def _sort(found: Ids, ids: Ids) -> None:
    """Leave the tokens of the highest ranks, falling, as many as there is room for."""
    count = len(found)
    if count > len(ids) + _SPARE:
        bound, count = _bound(found, len(ids), len(ids) + _SPARE), 0
        for rank in found:
            if rank >= bound:
                found[count] = rank
                count += 1
    for rank in found[:count]:
        place = 0
        for other in found[:count]:
            place += other > rank
        if place < len(ids):
            ids[place] = _LAST - (rank & _LAST)


@njit(nogil=True, cache=True, error_model="numpy")
def head(logits: FloatArray, mask: Mask, ids: Ids, steps: FloatArray, temperature: float, floor: float) -> int:
    """Find the likeliest permitted tokens, of equal ones the lowest.

    `mask`: empty if all are permitted. `ids`: (k,), k < 256, gets the tokens, falling. `steps`: (3, k), gets how far their logits
    are from the best; that divided by the temperature; if no others are permitted, the first once more, but in the order of ids.
    `floor`: how far min_p lets them be. Returns how many tokens there are, plus 256 times how many min_p leaves, plus 65536 if
    no others are permitted; 0 if none is possible or one has what is no finite number and no minus infinity.
    """
    ranks = np.empty(len(logits), np.int64)
    found = ranks[: _find(logits, mask, len(ids), ranks)]
    if len(found) == 0:
        return 0
    few = len(found) <= len(ids)
    count, likely, tops = min(len(found), len(ids)), 0, 0
    _sort(found, ids)
    top = logits[ids[0]]
    if not np.isfinite(top):
        return 0
    least = top + np.float32(floor)
    for place in range(count):
        logit = logits[ids[place]]
        steps[0, place] = logit - top
        steps[1, place] = (logit - top) / np.float32(temperature)
        if few:
            steps[2, place] = logits[_LAST - (found[place] & _LAST)] - top
        likely += logit >= least
        tops += logit == top
    return count + 256 * (likely or tops) + 65536 * few


@part
def _sum(weights: FloatArray) -> float:
    """As NumPy adds up to 128 numbers: eight sums side by side."""
    total, whole = 0.0, len(weights) // 8 * 8
    if whole:
        lanes = np.zeros(8)
        for at in range(whole):
            lanes[at & 7] += weights[at]
        total = ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]))
    for at in range(whole, len(weights)):
        total += weights[at]
    return total


@part
def _reached(weights: FloatArray, share: float, total: float) -> int:
    """The place where the sum of weights reaches a share of the total, if it does."""
    target, reached, place = share * total, 0.0, 0
    while place < len(weights):
        reached += weights[place]
        if reached >= target:
            break
        place += 1
    return place


@part
def _added(weights: FloatArray) -> float:
    """One after the other."""
    total = 0.0
    for weight in weights:
        total += weight
    return total


@njit(nogil=True, cache=True, error_model="numpy")
def draw(ids: Ids, weights: FloatArray, counts: int, top_p: float, chance: float) -> int:
    """A token. `weights`: (3, k), the exponentials of what `head` has found, which has returned `counts`. `chance`: in [0, 1)."""
    count, kept = counts & 255, (counts >> 8) & 255
    if top_p < 1:
        total = _sum(weights[2, :count]) if counts >> 16 else _added(weights[0, :count])
        kept = min(kept, _reached(weights[0, :count], top_p, total) + 1)
    warm = weights[1, :kept]
    return int(ids[_reached(warm, chance, _added(warm))])


def compile_all() -> None:
    """Compile the loops, or load them from the cache."""
    logits, mask = np.zeros(8, np.float32), np.full(4, 255, np.uint8)
    ids, steps = np.zeros(4, np.int64), np.zeros((3, 4), np.float32)
    draw(ids, steps, head(logits, mask, ids, steps, 0.8, 0.0), 0.9, 0.5)
