"""Make quantize/blocks.npz from llama.cpp: python tests/golden/make_quantize.py PATH/TO/libggml-base.so

Values of many kinds, `values` (n, 256) f32, and for each type the blocks that ggml_quantize_chunk makes of them without an
importance matrix (llama.cpp of September 2026). quantize/mixes.json: llama.cpp's own record of the types that each mix
gives the tensors of seven models (its tests/snapshots; MIT licence, copyright 2023-2026 The ggml authors), layers that get
the same type written as ranges; under `tensors` the row length, layers and dimensions of the models' tensors.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import numpy as np

from runtime.quantize.encode import ENCODED
from runtime.quants import BY_NAME

TARGET = Path(__file__).parent / "quantize/blocks.npz"


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


def main() -> None:
    library = ctypes.CDLL(sys.argv[1])
    library.ggml_quantize_init.restype = None
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    values = samples()
    found = {}
    for name in sorted(ENCODED - {"F32"}):
        kind = BY_NAME[name]
        blocks = np.empty((values.size // kind.block_size, kind.block_bytes), np.uint8)
        library.ggml_quantize_init(kind.type_id)
        where, sizes = [ctypes.c_void_p(array.ctypes.data) for array in (values, blocks)], [0, len(values), 256]
        library.ggml_quantize_chunk(kind.type_id, *where, *map(ctypes.c_int64, sizes), None)
        found[name] = blocks
    np.savez_compressed(TARGET, values=values, **found)


if __name__ == "__main__":
    main()
