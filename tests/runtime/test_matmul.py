"""How products are divided among threads."""

from __future__ import annotations

import itertools

import pytest

from runtime.kernels.matmul import PIECES, piece_rows


@pytest.mark.parametrize("threads", [1, 2, 16])
def test_all_threads_find_pieces_however_few_experts_there_are(threads: int) -> None:
    for rows, least, active in itertools.product((768, 1536, 4096), (4, 16), (1, 2, 3, 8)):
        most = rows * 8 // (threads * PIECES) // least * least
        step = piece_rows(rows, least, most, active, threads)
        assert step % least == 0
        assert step <= most
        assert active * -(-rows // step) >= min(threads * PIECES, active * rows // least)


def test_pieces_are_no_smaller_than_the_least_and_no_larger_than_the_most() -> None:
    assert piece_rows(64, 8, 64, 1, 16) == 8
    assert piece_rows(4096, 4, 416, 128, 2) == 416
    assert piece_rows(1536, 4, 192, 0, 16) == 4  # no expert at all
    assert piece_rows(5, 4, 5, 8, 1) == 5
