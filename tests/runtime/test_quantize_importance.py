"""Reading importance matrices in both forms, and telling what is none."""

from __future__ import annotations

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
import tiny_gguf
from importance_files import old_form, write_gguf

from runtime.core import ModelError
from runtime.quantize.importance import read_matrix

SUMS = {"blk.0.attn_q.weight": np.arange(8.0).reshape(1, 8), "blk.0.ffn_up_exps.weight": np.arange(16.0).reshape(2, 8)}
END = struct.pack("<ii", 12, 4) + b"text"


def test_gguf(tmp_path: Path) -> None:
    counts = {"blk.0.attn_q.weight": [4], "blk.0.ffn_up_exps.weight": [2, 0]}
    matrix = read_matrix(write_gguf(tmp_path / "m.gguf", SUMS, counts, ["a", "b"], 3))
    assert (matrix.dataset, matrix.chunks, len(matrix.entries)) == ("a", 3, 2)
    assert np.array_equal(matrix.table("blk.0.attn_q.weight", 8), SUMS["blk.0.attn_q.weight"] / 4)
    experts = matrix.table("blk.0.ffn_up_exps.weight", 8)
    assert np.array_equal(experts, [np.arange(8) / 2, np.ones(8)])  # an expert that was never chosen


@pytest.mark.parametrize("calls", [5, 0])
@pytest.mark.parametrize(("end", "told"), [(END, ("text", 12)), (b"", ("", 0)), (struct.pack("<i", 9), ("", 9))])
def test_the_older_form(tmp_path: Path, calls: int, end: bytes, told: tuple[str, int]) -> None:
    path = tmp_path / "m.dat"
    path.write_bytes(old_form(SUMS, calls, end))
    matrix = read_matrix(path)
    assert (matrix.dataset, matrix.chunks) == told
    for name, sums in SUMS.items():
        assert matrix.has(name, (8, 3, len(sums)))
        assert np.allclose(matrix.table(name, 8), sums / (calls or 1))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no",
        struct.pack("<i", 0),
        struct.pack("<i", -1),
        struct.pack("<ii", 1, -5),
        struct.pack("<ii", 1, 1 << 30),
        struct.pack("<ii", 1, 1) + b"x" + struct.pack("<ii", 1, 0),
        struct.pack("<ii", 1, 1) + b"\xff" + struct.pack("<iif", 1, 1, 1.0),
        old_form(SUMS)[:-1],
        old_form(SUMS, end=struct.pack("<ii", 1, 9) + b"short"),
        b"GGUF",
    ],
)
def test_files_that_are_none(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "m.dat"
    path.write_bytes(data)
    with pytest.raises(ModelError, match="the importance matrix cannot be read"):
        read_matrix(path)


def test_a_model_is_none(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="it has no entries"):
        read_matrix(tiny_gguf.write(tmp_path / "model.gguf", tiny_gguf.variant("llama", "F16")))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"a.in_sum2": np.ones(4, np.float32)}, "sums or counts, but not both"),
        ({"a.in_sum2": np.ones(4, np.float16), "a.counts": np.ones(1, np.float32)}, "of type F16"),
        ({"a.in_sum2": np.ones(4, np.float32), "a.counts": np.ones(3, np.float32)}, "4 sums for 'a' do not go with 3 counts"),
    ],
)
def test_entries_that_do_not_fit(tmp_path: Path, tensors: dict[str, np.ndarray], message: str) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "")
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelError, match=message):
        read_matrix(tmp_path / "m.gguf")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_numbers_that_cannot_be(tmp_path: Path, bad: float) -> None:
    path = tmp_path / "m.dat"
    path.write_bytes(old_form({"a": np.array([1.0, bad])}))
    with pytest.raises(ModelError, match="numbers for 'a' that are negative, infinite or none"):
        read_matrix(path)
