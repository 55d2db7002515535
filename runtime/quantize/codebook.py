"""A codebook with the entries that are nearest to points outside it (ggml-quants.c iq2xs_init_impl, iq3xs_init_impl)."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from runtime.quants.grids import grid


class Codebook(NamedTuple):
    """`levels` (entries, width): which magnitude each place has. `entry`: the entry of a point, -1 - i where the neighbours of
    the i-th point without one are `neighbours[starts[i]:starts[i + 1]]`."""

    levels: np.ndarray[Any, np.dtype[np.int8]]
    entry: np.ndarray[Any, np.dtype[np.int32]]
    starts: np.ndarray[Any, np.dtype[np.int32]]
    neighbours: np.ndarray[Any, np.dtype[np.int16]]


@functools.cache
def codebook(name: str, bits: int, rings: int) -> Codebook:
    """Of a type whose places have `bits` bits. Neighbours are all entries at the `rings` smallest distances."""
    magnitudes = grid(name)
    levels = np.searchsorted(np.unique(magnitudes), magnitudes).astype(np.int8)
    shifts = bits * np.arange(levels.shape[1])
    points = np.stack(np.meshgrid(*[np.arange(levels.max() + 1)] * len(shifts), indexing="ij"), -1).reshape(-1, len(shifts))
    entry = np.full(1 << (bits * len(shifts)), -1, np.int32)
    entry[(levels.astype(np.int64) << shifts).sum(axis=1)] = np.arange(len(levels))
    numbers = (points << shifts).sum(axis=1)
    points, numbers = points[entry[numbers] < 0], numbers[entry[numbers] < 0]
    entry[numbers] = -1 - np.arange(len(numbers))
    found = [_nearest(levels, point, rings) for point in points]
    starts = np.concatenate([[0], np.cumsum([len(entries) for entries in found])]).astype(np.int32)
    return Codebook(levels, entry, starts, np.concatenate(found).astype(np.int16))


def _nearest(levels: np.ndarray[Any, np.dtype[np.int8]], point: Any, rings: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    distances = np.square(levels.astype(np.int32) - point).sum(axis=1)
    limit = np.unique(distances)[:rings][-1]
    near = np.flatnonzero(distances <= limit)
    return near[np.argsort(distances[near], kind="stable")]
