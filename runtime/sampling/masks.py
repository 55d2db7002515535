"""Masks: which tokens of the vocabulary may come next, a bit for each, the lowest first, in whole words of 32 bits, as bytes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.uint8]


def empty(size: int) -> Mask:
    """The mask of a vocabulary of `size` tokens that permits none."""
    return np.zeros(-(-size // 32) * 4, np.uint8)


def permit(mask: Mask, tokens: Iterable[int]) -> None:
    """Let some more tokens come."""
    for token in tokens:
        mask[token >> 3] |= 1 << (token & 7)


def only(token: int, size: int) -> Mask:
    """The mask of a vocabulary of `size` tokens that permits one."""
    mask = empty(size)
    permit(mask, (token,))
    return mask


def permits(mask: Mask, token: int) -> bool:
    """Whether the token may come."""
    return token >> 3 < len(mask) and mask.item(token >> 3) >> (token & 7) & 1 == 1
