"""The CUDA kernels compiled for the CPU by g++, to run the card's forward pass where there is none.

A block's threads are fibers (cuda_host.h). Three things cannot be had so: what tensor cores do, which has stand-ins there,
conversions and loads in PTX, which C++ has words for, and the mailbox, whose other side is a thread.
"""

from __future__ import annotations

import ctypes
import hashlib
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from runtime import models
from runtime.core import Batch
from runtime.cuda import module
from runtime.cuda.module import _argument
from runtime.execute.cuda_attention import kernels
from runtime.execute.cuda_experts import layer_of
from runtime.execute.cuda_ops import CudaOps
from runtime.execute.cuda_values import Value, memory
from runtime.execute.device_step import BUCKETS, DeviceStep, bucket
from runtime.execute.experts import Residence, Tables
from runtime.execute.needs import mixtures
from runtime.kernels.kept import F16, Kept
from runtime.kernels.leaves import Leaves
from runtime.layers.ops import Attending
from runtime.weights import open_weights

HERE = Path(__file__).parent
AVAILABLE = platform.machine() == "x86_64" and shutil.which("g++") is not None
IN_PTX = """
inline float half_bits(u32 bits) { _Float16 h; memcpy(&h, &bits, 2); return (float)h; }
inline u16 to_half(float f) { _Float16 h = (_Float16)f; u16 bits; memcpy(&bits, &h, 2); return bits; }
inline u32 to_halves(float low, float high) { return to_half(low) | (u32)to_half(high) << 16; }
inline u32 read4(const u8* p) { u32 v; memcpy(&v, p, 4); return v; }
inline uint2 read8(const u8* p) { uint2 v; memcpy(&v, p, 8); return v; }
inline uint4 read16(const u8* p) { uint4 v; memcpy(&v, p, 16); return v; }
inline uint4 fresh16(const u8* p) { return read16(p); }
"""
TENSOR_CORES = "mma", "ldmatrix", "ldmatrix_turned", "mma_ints", "mma_ints_wide"  # see cuda_host.h
TABLE = np.array([[5, 3, 1, 2]], np.int32)  # blocks of the one text
BLOCKS, ROWS, OUTPUTS = 8, 256, 64


class CpuModule:
    """Stands for runtime.cuda.module.Module."""

    device = torch.device("cpu")

    def __init__(self, kinds: Iterable[str], folder: Path, made: Iterable[str] = ()) -> None:
        self._library = ctypes.CDLL(str(build(kinds, folder, made)))

    def launch(self, name: str, grid: tuple[int, ...], threads: int, *arguments: Any) -> None:
        values = [_argument(argument) for argument in arguments]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        getattr(self._library, f"launch_{name}")((ctypes.c_uint * 3)(*(*grid, 1, 1)[:3]), threads, pointers)


class CpuBlocks:
    """Stands for runtime.cuda.blocks.BlockMemory."""

    def array(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.zeros((BLOCKS, *shape), dtype=dtype)


def build(kinds: Iterable[str], folder: Path, made: Iterable[str]) -> Path:
    """A library with a function `launch_NAME(grid, threads, arguments)` for each kernel; made once for each set of them."""
    text = module.source(kinds, made)
    source, library = (folder / f"{hashlib.sha256(text.encode()).hexdigest()}{suffix}" for suffix in (".cpp", ".so"))
    if library.exists():
        return library
    for name in ("half_bits", "to_half", "to_halves", "read4", "read8", "read16", "fresh16", *TENSOR_CORES):
        text = _without(text, name)
    text = text.replace("typedef unsigned long long u64;", f"typedef unsigned long long u64;\n{IN_PTX}", 1)
    sources = Path(module.__file__).parent / "source"
    text = text.replace((sources / "mailbox.cu").read_text(), "")
    source.write_text(f'#include "{HERE / "cuda_host.h"}"\n{text}')
    flags = "-std=c++20", "-O1", "-w", "-fpermissive"
    plain = subprocess.run(["g++", *flags, "-E", "-P", source], capture_output=True, text=True, check=True).stdout
    source.write_text(plain + "".join(map(_launcher, re.finditer(r'extern "C"\s+void\s+(\w+)\(([^)]*)\)\s*\{', plain))))
    subprocess.run(["g++", *flags, "-shared", "-fPIC", source, "-o", library], check=True)
    return library


def logits(
    path: Path, tokens: Sequence[int], parts: Sequence[int], folder: Path, kind: Kept = F16
) -> npt.NDArray[np.float32]:
    """Of all tokens of a text that is computed in steps of so many rows, all experts being on the "card". `kind`: of keys and
    values."""
    weights = open_weights(str(path), lambda *_: None)
    try:
        with torch.inference_mode():
            return _logits(weights, tokens, parts, folder, kind)
    finally:
        weights.close()


def _logits(weights: Any, tokens: Sequence[int], parts: Sequence[int], folder: Path, kind: Kept) -> npt.NDArray[np.float32]:
    model, matrices = models.build(weights), [tensor for tensor in weights if len(tensor.shape) > 1]
    kinds = {tensor.quant.name if tensor.quant.cuda else "F16" for tensor in matrices}
    cuda: Any = CpuModule(kinds, folder, kernels(model.heads, kind))
    step = DeviceStep(ROWS, OUTPUTS, TABLE.shape[1], cuda.device)
    blocks: Any = CpuBlocks()
    ops = CudaOps(cuda, step, blocks, Leaves(), {tensor.quant for tensor in matrices}, kind)
    ops.lines = 1
    layers = [layer_of(mixture.experts) for mixture in mixtures(model)]
    tables = Tables(layers, cuda.device)
    for i, layer in enumerate(layers):
        ops.residences[layer.gate.name] = residence = Residence(layer, tables.of(i), tables.host[i])
        residence.keep([memory(tensor.address, tensor.nbytes).clone() for tensor in layer.tensors])
    tables.upload()
    found, at = [], 0
    for n in parts:
        rows, few = np.arange(n, dtype=np.int32), n <= BUCKETS[-1]
        batch = Batch(np.array(tokens[at : at + n], np.int32), at + rows, np.zeros(n, np.int32), TABLE, rows)
        step.fill(batch, apart=few)
        ops.begin(bucket(n), bucket(n), None if few else batch)
        step.upload(bucket(n) if few else 1)
        found.append(model(ops).data[:n].numpy().copy())
        at += n
    return np.concatenate(found)


def attention(
    cuda: Any, values: Sequence[npt.NDArray[np.float32]], parts: Sequence[int], how: Attending, kind: Kept
) -> npt.NDArray[np.float32]:
    """Of one text's rows of q, k and v, in steps of so many rows."""
    step, blocks, found, at = DeviceStep(ROWS, OUTPUTS, TABLE.shape[1], cuda.device), cast(Any, CpuBlocks()), [], 0
    ops = CudaOps(cuda, step, blocks, Leaves(), set(), kind)
    for n in parts:
        rows, few = np.arange(n, dtype=np.int32), n <= BUCKETS[-1]
        batch = Batch(rows, at + rows, np.zeros(n, np.int32), TABLE, rows[:OUTPUTS])
        step.fill(batch, apart=few)
        ops.begin(bucket(n), bucket(n), None if few else batch)
        step.upload(bucket(n) if few else 1)
        padded = (np.pad(part[at : at + n], ((0, bucket(n) - n), (0, 0))) for part in values)
        q, k, v = (Value(torch.from_numpy(part), step.rows_count) for part in padded)
        found.append(ops.attention(q, k, v, how).data[:n].numpy().copy())
        at += n
    return np.concatenate(found)


def _without(text: str, name: str) -> str:
    """The text without the function of that name."""
    found = re.search(rf"__device__[^\n;{{]*\b{name}\([^{{;]*\{{", text)
    assert found, name
    end, depth = found.end(), 1
    while depth:
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        end += 1
    return text[: found.start()] + text[end:]


def _launcher(kernel: re.Match[str]) -> str:
    name, parameters = kernel[1], [part.strip() for part in kernel[2].split(",")]
    if name.startswith("host_"):
        return ""
    kinds = [re.sub(r"\s*\b\w+$", "", parameter) for parameter in parameters]
    values = ", ".join(f"*(std::remove_cvref_t<{kind}>*)a[{i}]" for i, kind in enumerate(kinds))
    head = f'extern "C" void launch_{name}(const unsigned* grid, int threads, void** a)'
    return f"\n{head} {{ run_grid(grid, threads, [=] {{ {name}({values}); }}); }}"
