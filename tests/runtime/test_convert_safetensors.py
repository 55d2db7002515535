"""Safetensors files: what is read, and how broken ones are refused."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_hf

from runtime.convert.errors import ConvertError
from runtime.convert.outputs import to_bf16, to_f32
from runtime.convert.safetensors import Checkpoint, read_file, weight_files
from runtime.convert.source import Source


def write(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(dtype: str = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_values_come_back(dtype: str, tmp_path: Path) -> None:
    values = {"b": np.array([[1.5, -2, 0.25]], np.float32), "a": np.array(3.0, np.float32)}
    path = tmp_path / "model.safetensors"
    path.write_bytes(tiny_hf.safetensors(values, dtype, {"format": "pt"}))
    a, b = read_file("model.safetensors", path)
    assert (a.name, a.shape, b.name, b.shape) == ("a", (1,), "b", (1, 3))
    np.testing.assert_array_equal(to_f32(b.array()), values["b"])
    b.drop()
    np.testing.assert_array_equal(to_f32(b.array()), values["b"])


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"{", "the header is no JSON"),
        ([], "the header is no JSON object"),
        ({"a": 1}, "has no description"),
        ({"a": entry("F4")}, "unknown data type: F4"),
        ({"a": entry(dtype=[])}, r"unknown data type: \[\]"),  # type: ignore[arg-type]
        ({"a": entry(shape=[-1])}, "has the shape"),
        ({"a": entry(shape=[2.0])}, "has the shape"),
        ({"a": entry(shape=[1 << 62, 4])}, "has the shape"),
        ({"a": entry(shape=[1 << 60, 16])}, "has 8 bytes for the shape"),
        ({"a": entry(offsets=[0, 12])}, "outside of the file"),
        ({"a": entry(offsets=[8, 0])}, "outside of the file"),
        ({"a": entry(offsets=[0])}, "outside of the file"),
        ({"a": entry(offsets=["0", "8"])}, "outside of the file"),
        ({"a": entry(shape=[3])}, "has 8 bytes for the shape"),
    ],
)
def test_a_header_that_lies(header: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConvertError, match=message):
        read_file("x.safetensors", write(tmp_path / "x", header, bytes(8)))


@pytest.mark.parametrize("data", [b"", b"1234567", struct.pack("<Q", 1 << 40) + b"{}", struct.pack("<Q", 3) + b"{}"])
def test_a_file_that_is_cut(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(ConvertError, match=r"x\.safetensors"):
        read_file("x.safetensors", tmp_path / "x")


def test_files_named_model_come_before_others() -> None:
    names = ["consolidated.safetensors", "model-2.safetensors", "model-1.safetensors", "2_Dense/model.safetensors", "config.json"]
    source = Source({name: Path(name) for name in names})
    assert weight_files(source) == ["model-1.safetensors", "model-2.safetensors"]
    assert weight_files(Source({"weights.safetensors": Path("x")})) == ["weights.safetensors"]


def test_the_same_tensor_twice(tmp_path: Path) -> None:
    files = {f"model-{i}.safetensors": write(tmp_path / str(i), {"a": entry()}, bytes(8)) for i in range(2)}
    with pytest.raises(ConvertError, match="duplicate tensor name 'a' was found for this model"):
        Checkpoint(Source(files))


def test_bf16_rounds_to_the_nearest_even() -> None:
    bits = np.array([0x3F800000, 0x3F808000, 0x3F818000, 0x3F808001, 0x7F800000, 0xFF800000, 0x7FFFFFFF, 0x7F800001], np.uint32)
    expected = [0x3F80, 0x3F80, 0x3F82, 0x3F81, 0x7F80, 0xFF80]
    rounded = to_bf16(bits.view(np.float32))
    assert rounded[:6].tolist() == expected
    assert np.isnan(to_f32(rounded[6:])).all()
