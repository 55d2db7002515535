"""Drivers of a Mixture of Experts beside the matrix products: choose, plan, combine."""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.config import SIGMOID, SOFTMAX, SOFTMAX_OF_CHOSEN
from runtime.kernels.desk import claim
from runtime.kernels.driver import driver, exp, inline, row_driver
from runtime.kernels.memory import f32, f64, i32, i64

COMBINED = 512  # values of a row that a piece of `combine` makes
OUT = np.float32(-3e38)  # of an expert that is chosen already, or cannot be
LEAST_SUM = np.float32(6.103515625e-5)  # that weights are divided by, as in llama.cpp


def plan_size(n_experts: int, pairs: int) -> int:
    """int32 in a plan: active count, active experts, offsets (one more than experts), the pairs in order of their expert."""
    return 1 + n_experts + n_experts + 1 + pairs


@inline
def _probabilities(p: Any, count: int, gating: int) -> None:
    """A router's logits to what experts are chosen and weighted by."""
    if gating == SIGMOID:
        for e in range(count):
            p[e] = np.float32(1) / (np.float32(1) + exp(min(-p[e], np.float32(80))))
    elif gating == SOFTMAX:
        top = p[0]
        for e in range(count):
            top = max(top, p[e])
        total = np.float32(0)
        for e in range(count):
            p[e] = exp(p[e] - top)
            total += p[e]
        for e in range(count):
            p[e] /= total


@inline
def _score(p: Any, bias: int, e: int) -> Any:
    """What expert e is chosen by; of one that is out, far below all others."""
    return p[e] + f32(bias + 4 * e, 1)[0] if bias != 0 else p[e]


@inline
def _two_best(p: Any, bias: int, first: int, size: int) -> Any:
    """The sum of the two best scores of a group."""
    best = second = OUT
    for e in range(first, first + size):
        score = _score(p, bias, e)
        second = max(second, min(best, score))
        best = max(best, score)
    return best + second


@inline
def _keep_groups(p: Any, bias: int, count: int, groups: int, used: int) -> None:
    """Only the experts of the best groups stay in; of equal groups the first."""
    size = count // groups
    for _ in range(groups - used):
        worst, least = -1, np.float32(0)
        for g in range(groups):
            if p[g * size] != OUT:
                total = _two_best(p, bias, g * size, size)
                if worst < 0 or total <= least:
                    worst, least = g, total
        for e in range(worst * size, (worst + 1) * size):
            p[e] = OUT


@row_driver
def choose(args: int, desk: int, thread: int, threads: int) -> None:
    """Per row: probabilities from the experts' logits, the k best (the lower id first on a tie), their weights.

    Arguments: address of the row count, logits (rows, experts) f32, ids (rows, k) i32, weights (rows, k) f32, experts, k,
    normalise (0 or 1), gating, bias (f32 or 0) that counts in the choice alone, groups, groups used, factors of the experts
    (f32 or 0), scale (f64).
    """
    a = i64(args, 13)
    count, n_experts, k, gating, bias = i64(a[0], 1)[0], a[4], a[5], a[7], a[8]
    scale = np.float32(f64(args, 13)[12])
    while True:
        row = claim(desk, 1)
        if row >= count:
            return
        p = f32(a[1] + 4 * row * n_experts, n_experts)
        ids, weights = i32(a[2] + 4 * row * k, k), f32(a[3] + 4 * row * k, k)
        _probabilities(p, n_experts, gating)
        if a[9] > 1:
            _keep_groups(p, bias, n_experts, a[9], a[10])
        for j in range(k):
            best = 0
            for e in range(n_experts):
                if _score(p, bias, e) > _score(p, bias, best):
                    best = e
            ids[j], weights[j] = best, p[best]
            p[best] = OUT
        if gating == SOFTMAX_OF_CHOSEN:
            top = weights[0]
            for j in range(k):
                weights[j] = exp(weights[j] - top)
        kept = np.float32(0)
        for j in range(k):
            kept += weights[j]
        kept = max(kept, LEAST_SUM) if a[6] != 0 or gating == SOFTMAX_OF_CHOSEN else np.float32(1)
        for j in range(k):
            weights[j] = weights[j] / kept * scale
            if a[11] != 0:
                weights[j] *= f32(a[11], n_experts)[ids[j]]


@row_driver
def plan(args: int, desk: int, thread: int, threads: int) -> None:
    """Sort the (token, expert) pairs by expert, keeping their order. One thread does it. A pair of id -1 is left out.

    Arguments: address of the row count, ids (rows, k) i32, plan, experts, k. Plan: see `plan_size`.
    """
    if claim(desk, 1) != 0:
        return
    a = i64(args, 5)
    n_experts = a[3]
    pairs = i64(a[0], 1)[0] * a[4]
    ids = i32(a[1], pairs)
    active, chosen = i32(a[2], 1), i32(a[2] + 4, n_experts)
    offsets = i32(a[2] + 4 * (1 + n_experts), n_experts + 1)
    order = i32(a[2] + 4 * (2 + 2 * n_experts), pairs)
    for e in range(n_experts + 1):
        offsets[e] = 0
    for p in range(pairs):
        if ids[p] >= 0:
            offsets[ids[p]] += 1
    active[0] = 0
    end = 0
    for e in range(n_experts):
        if offsets[e] > 0:
            chosen[active[0]] = e
            active[0] += 1
        end += offsets[e]
        offsets[e] = end
    offsets[n_experts] = end
    for j in range(pairs):  # from the last pair down, each expert's part fills from its end
        p = pairs - 1 - j
        if ids[p] >= 0:
            offsets[ids[p]] -= 1
            order[offsets[ids[p]]] = p


@driver
def combine(args: int, desk: int, thread: int, threads: int) -> None:
    """out[row] = sum over its k experts of weight * y[pair], in the order of choice; of those whose id is not -1.

    Arguments: address of the row count, y (rows * k, width) f32, ids (rows, k) i32, weights (rows, k) f32, out (rows, width)
    f32, width, k. A piece is COMBINED values of a row, so that a single row keeps several threads busy.
    """
    a = i64(args, 7)
    count, width, k = i64(a[0], 1)[0], a[5], a[6]
    pieces = (width + COMBINED - 1) // COMBINED
    while True:
        piece = claim(desk, 1)
        if piece >= count * pieces:
            return
        row, first = piece // pieces, piece % pieces * COMBINED
        size = min(COMBINED, width - first)
        ids, weights = i32(a[2] + 4 * row * k, k), f32(a[3] + 4 * row * k, k)
        out = f32(a[4] + 4 * (row * width + first), size)
        for i in range(size):
            out[i] = np.float32(0)
        for j in range(k):
            if ids[j] >= 0:
                y, weight = f32(a[1] + 4 * ((row * k + j) * width + first), size), weights[j]
                for i in range(size):
                    out[i] += weight * y[i]
