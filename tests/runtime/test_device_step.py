"""What a step sends to the card."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra cuda")

from runtime.core import Batch  # noqa: E402
from runtime.execute.device_step import BUCKETS, DeviceStep, bucket  # noqa: E402

TABLES = np.arange(1, 13, dtype=np.int32).reshape(4, 3)
BATCH = Batch(*(np.array(values, np.int32) for values in ([5, 6, 7], [0, 8, 9], [0, 3, 3])), TABLES, np.array([0, 2], np.int32))


def sent(*, apart: bool) -> DeviceStep:
    step = DeviceStep(rows=16, outputs=16, table=4, device=torch.device("cpu"))
    step.fill(BATCH, apart=apart)
    step.upload(bucket(3) if apart else len(TABLES))
    return step


def blocks(step: DeviceStep) -> list[list[int]]:
    """Those of each row's text, as the kernels find them."""
    tables = step.tables.numpy().reshape(-1, step.table)
    return [tables[line, :3].tolist() for line in step.sequences[:3].tolist()]


@pytest.mark.parametrize("apart", [True, False])
def test_rows_find_their_blocks(apart: bool) -> None:
    step = sent(apart=apart)
    assert blocks(step) == [TABLES[0].tolist(), TABLES[3].tolist(), TABLES[3].tolist()]
    assert (step.rows_count.item(), step.outputs_count.item()) == (3, 2)
    assert step.tokens[:3].tolist() == [5, 6, 7]
    assert step.positions[:3].tolist() == [0, 8, 9]
    assert step.outputs[:2].tolist() == [0, 2]


def test_rows_apart_use_no_more_lines_than_there_are_rows() -> None:
    assert sent(apart=True).sequences[:3].tolist() == [0, 1, 2]


def test_buckets() -> None:
    assert [bucket(rows) for rows in (1, 3, 16, 17)] == [1, 4, 16, 17]
    assert BUCKETS[-1] == 16
