"""Make quantize/*.npz and weighed_mixes.json from llama.cpp: make_quantize.py PATH/TO/libggml-base.so PATH/TO/llama-quantize

blocks.npz: values of many kinds, `values` (n, 256) f32, and for each type the blocks that ggml_quantize_chunk makes of them
without an importance matrix (llama.cpp of September 2026). weighed.npz: the blocks of the same values, as rows of 512, with the
importance `importance` (512,). weighed_mixes.json: for small models the tensors to which `llama-quantize --imatrix` gives
another type than a mix gives them without a matrix. quantize/mixes.json: llama.cpp's own record of the types that each mix
gives the tensors of seven models (its tests/snapshots; MIT licence, copyright 2023-2026 The ggml authors), layers that get
the same type written as ranges; under `tensors` the row length, layers and dimensions of the models' tensors.
"""

from __future__ import annotations

import ctypes
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np

sys.path.append(str(Path(__file__).parents[1]))

import tiny_gguf

from runtime.gguf_file import open_gguf
from runtime.quantize import mixes
from runtime.quantize.encode import ENCODED
from runtime.quantize.file import describe
from runtime.quantize.weighing import NEEDY, WEIGHED
from runtime.quants import BY_NAME

FOLDER = Path(__file__).parent / "quantize"
_LINE = re.compile(r"\] +(\S+) +- \[.*-> .*\((\w+)\)")


def samples() -> np.ndarray:
    """(n, 256): what weights look like, and what makes quantisers stumble."""
    rng = np.random.default_rng(1)
    normal = rng.normal(size=(10, 256))
    kinds = [
        normal * 0.02,
        normal.astype(np.float16),
        rng.standard_t(2, (8, 256)),
        np.abs(normal[:3]),
        -np.abs(normal[:3]),
        normal[:6] * (rng.random((6, 256)) < 0.05),  # mostly zeros
        np.repeat(rng.normal(size=(3, 16)), 16, axis=1),  # the same value all over a group
        rng.integers(-1, 2, (3, 256)),
        rng.integers(-8, 9, (3, 256)),
        np.zeros((1, 256)),
        -np.zeros((1, 256)),
        normal[:3] * 1e-7,
        normal[:3] * 1e-41,  # subnormal
        normal[:3] * 1000,
        normal[:6] * 10.0 ** rng.uniform(-6, 2, (6, 8)).repeat(32, axis=1),
        2.0 ** rng.integers(-10, 10, (6, 256)) * (1 + rng.integers(-1, 2, (6, 256)) * 2.0**-23),
    ]
    # by rounding, Q6_K's plain scale looks better here than one that had beaten it: it may not be tried again
    kinds.append((np.random.default_rng(7).normal(size=(60000, 256)) * 1.5 / 16)[37991:37992].astype(np.float16))
    return np.concatenate([kind.astype(np.float32) for kind in kinds])


def importance() -> np.ndarray:
    """(512,): some columns do not count at all."""
    rng = np.random.default_rng(3)
    found = rng.chisquare(1, 512) * 10 ** rng.uniform(-3, 1, 512)
    found[[5, 300]] = found[100:132] = 0
    return found.astype(np.float32)


def blocks(library: Any, name: str, values: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    kind = BY_NAME[name]
    made = np.empty((values.size // kind.block_size, kind.block_bytes), np.uint8)
    library.ggml_quantize_init(kind.type_id)
    where, sizes = [ctypes.c_void_p(array.ctypes.data) for array in (values, made)], [0, *values.shape]
    pointer = None if weights is None else ctypes.c_void_p(weights.ctypes.data)
    library.ggml_quantize_chunk(kind.type_id, *where, *map(ctypes.c_int64, sizes), pointer)
    return made


def write_matrix(source: Path, target: Path) -> None:
    """One in which every column counts alike, as llama-imatrix writes it."""
    writer = gguf.GGUFWriter(target, "")
    writer.add_array("imatrix.datasets", ["text"])
    for key in ("imatrix.chunk_count", "imatrix.chunk_size"):
        writer.add_uint32(key, 1)
    with open_gguf(source) as file:
        for name, info in file.tensors.items():
            if len(info.shape) > 1:
                count = info.shape[2] if len(info.shape) > 2 else 1
                writer.add_tensor(f"{name}.in_sum2", np.ones((count, info.shape[0]), np.float32))
                writer.add_tensor(f"{name}.counts", np.ones((count, 1), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def weighed_mixes(program: str, source: Path, matrix: Path) -> dict[str, dict[str, str]]:
    found = {}
    with open_gguf(source) as file:
        model = describe(file.metadata)
        shapes = mixes.ordered(mixes.Shape(info.name, info.shape, info.type_name) for info in file.tensors.values())
    for name, mix in mixes.MIXES.items():
        command = [program, "--dry-run", "--imatrix", str(matrix), str(source), name]
        told = subprocess.run(command, capture_output=True, text=True, check=True)
        types = {tensor: kind.upper() for tensor, kind in _LINE.findall(told.stdout + told.stderr)}
        chooser = mixes.Chooser(mix, model, shapes)
        plain = {shape.name: chooser.type_of(shape) for shape in shapes}
        found[name] = {tensor: kind for tensor, kind in types.items() if plain[tensor].upper() != kind}
    return {name: kinds for name, kinds in found.items() if kinds}


def main() -> None:
    library, program = ctypes.CDLL(sys.argv[1]), sys.argv[2]
    library.ggml_quantize_init.restype = None
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    values, weights = samples(), importance()
    plain = {name: blocks(library, name, values, None) for name in sorted(ENCODED - NEEDY - {"F32"})}
    np.savez_compressed(FOLDER / "blocks.npz", values=values, **plain)
    rows = values[: len(values) // 2 * 2].reshape(-1, 512)
    weighed = {name: blocks(library, name, rows, weights) for name in sorted(WEIGHED)}
    np.savez_compressed(FOLDER / "weighed.npz", importance=weights, **weighed)
    record = {}
    with tempfile.TemporaryDirectory() as folder:
        for label, shape in tiny_gguf.DEEP.items():
            source, matrix = tiny_gguf.write(Path(folder, "source.gguf"), shape), Path(folder, "matrix.gguf")
            write_matrix(source, matrix)
            record[label] = weighed_mixes(program, source, matrix)
    (FOLDER / "weighed_mixes.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
