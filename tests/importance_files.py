"""Importance matrices as llama-imatrix writes them, in both forms."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import gguf
import numpy as np


def write_gguf(
    path: Path,
    found: Mapping[str, np.ndarray],
    counts: Mapping[str, Sequence[float]] | None = None,
    datasets: Sequence[str] = ("text",),
    chunks: int = 1,
) -> Path:
    """`found`: sums (matrices, row) of tensors by name. `counts`, one for each matrix: 1 where none are given."""
    writer = gguf.GGUFWriter(path, "")
    writer.add_array("imatrix.datasets", list(datasets))
    writer.add_uint32("imatrix.chunk_count", chunks)
    writer.add_uint32("imatrix.chunk_size", 512)
    for name, sums in found.items():
        writer.add_tensor(f"{name}.in_sum2", sums.astype(np.float32))
        divisors = (counts or {}).get(name, [1] * len(sums))
        writer.add_tensor(f"{name}.counts", np.array(divisors, np.float32).reshape(-1, 1))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def old_form(found: Mapping[str, np.ndarray], calls: int = 1, end: bytes = b"") -> bytes:
    """The bytes of a .dat file; `end` is what follows the entries."""
    out = struct.pack("<i", len(found))
    for name, sums in found.items():
        out += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", calls, sums.size)
        out += sums.astype("<f4").tobytes()
    return out + end
