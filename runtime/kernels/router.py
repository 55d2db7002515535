"""Drivers of a Mixture of Experts beside the matrix products: choose, plan, combine."""

from __future__ import annotations

import numpy as np

from runtime.kernels.driver import claim, driver, exp
from runtime.kernels.memory import f32, f64, i32, i64

COMBINED = 512  # values of a row that a piece of `combine` makes


def plan_size(n_experts: int, pairs: int) -> int:
    """int32 in a plan: active count, active experts, offsets (one more than experts), the pairs in order of their expert."""
    return 1 + n_experts + n_experts + 1 + pairs


@driver
def choose(args: int, counter: int, thread: int, threads: int) -> None:
    """Per row: softmax over the experts' logits, the k best (the lower id first on a tie), their weights.

    Arguments: address of the row count, logits (rows, experts) f32, ids (rows, k) i32, weights (rows, k) f32, experts, k,
    normalise (0 or 1), scale (f64).
    """
    a = i64(args, 8)
    count, n_experts, k = i64(a[0], 1)[0], a[4], a[5]
    scale = np.float32(f64(args, 8)[7])
    while True:
        row = claim(counter, 1)
        if row >= count:
            return
        p = f32(a[1] + 4 * row * n_experts, n_experts)
        ids, weights = i32(a[2] + 4 * row * k, k), f32(a[3] + 4 * row * k, k)
        top = p[0]
        for e in range(n_experts):
            top = max(top, p[e])
        total = np.float32(0)
        for e in range(n_experts):
            p[e] = exp(p[e] - top)
            total += p[e]
        for e in range(n_experts):
            p[e] /= total
        kept = np.float32(0)
        for j in range(k):
            best = 0
            for e in range(n_experts):
                if p[e] > p[best]:
                    best = e
            ids[j], weights[j] = best, p[best]
            kept += p[best]
            p[best] = np.float32(-1)
        for j in range(k):
            weights[j] = (weights[j] / kept if a[6] != 0 else weights[j]) * scale


@driver
def plan(args: int, counter: int, thread: int, threads: int) -> None:
    """Sort the (token, expert) pairs by expert, keeping their order. One thread does it. A pair of id -1 is left out.

    Arguments: address of the row count, ids (rows, k) i32, plan, experts, k. Plan: see `plan_size`.
    """
    if thread != 0:
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
def combine(args: int, counter: int, thread: int, threads: int) -> None:
    """out[row] = sum over its k experts of weight * y[pair], in the order of choice; of those whose id is not -1.

    Arguments: address of the row count, y (rows * k, width) f32, ids (rows, k) i32, weights (rows, k) f32, out (rows, width)
    f32, width, k. A piece is COMBINED values of a row, so that a single row keeps several threads busy.
    """
    a = i64(args, 7)
    count, width, k = i64(a[0], 1)[0], a[5], a[6]
    pieces = (width + COMBINED - 1) // COMBINED
    while True:
        piece = claim(counter, 1)
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
