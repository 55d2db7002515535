"""Where tensors lie: read into memory, or left in the file."""

from __future__ import annotations

import ctypes
from pathlib import Path

import naive
import numpy as np
import pytest
import tiny_gguf
from stepping import Text, blocks_for

from runtime.execute import cpu
from runtime.weights import Weights, open_weights


def ignore(phase: str, done: int, total: int) -> None:
    pass


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tiny_gguf.write(tmp_path / "m.gguf", tiny_gguf.variant("qwen3moe", "Q8_0"))


def content(weights: Weights) -> dict[str, bytes]:
    return {tensor.name: ctypes.string_at(tensor.address, tensor.nbytes) for tensor in weights}


def test_the_file_has_what_is_read_from_it(path: Path) -> None:
    read, mapped = open_weights(path, ignore), open_weights(path, ignore, mapped=True)
    assert content(read) == content(mapped)
    assert (read.writable, mapped.writable) == (True, False)
    assert read.arena is not None
    assert mapped.arena is None
    assert read.resident >= mapped.nbytes
    assert mapped.resident == 0
    for weights in (read, mapped):
        weights.close()
        weights.close()


def test_the_same_logits(path: Path) -> None:
    tokens = np.random.default_rng(2).integers(0, 300, 40).tolist()
    logits = []
    for mapped in (False, True):
        executor = cpu.load(
            path, num_ctx=256, num_parallel=1, num_batch=64, num_thread=2, kv_cache_type="f16", mapped=mapped, progress=ignore
        )
        text = Text(executor, blocks_for(64))
        logits.append(np.concatenate([text.feed(tokens[:30]), *(text.feed([token]) for token in tokens[30:])]))
        executor.close()
    assert naive.nmse(logits[1], logits[0]) <= 1e-2  # strips round elsewhere, which random weights make much of
    assert (logits[0].argmax(1) == logits[1].argmax(1)).mean() > 0.9


def test_gates_and_ups_in_one_tensor(tmp_path: Path) -> None:
    """A stack of both is divided in memory; in the file its matrices take turns."""
    path = tiny_gguf.write(tmp_path / "m.gguf", tiny_gguf.variant("gemma4", "F32"))
    golden = np.load(Path(__file__).resolve().parents[1] / "golden/tiny-gemma4-F32.npz")
    for mapped in (False, True):
        executor = cpu.load(
            path, num_ctx=256, num_parallel=1, num_batch=64, num_thread=2, kv_cache_type="f16", mapped=mapped, progress=ignore
        )
        logits = Text(executor, blocks_for(64)).feed(golden["tokens"].tolist())
        executor.close()
        assert naive.nmse(logits, golden["logits"]) <= 1e-6


def test_what_is_unpacked_leaves_the_file_alone(path: Path) -> None:
    mapped = open_weights(path, ignore, mapped=True)
    before = content(mapped)
    (tensor,) = (tensor for tensor in mapped if tensor.name == "blk.0.attn_q.weight")
    unpacked = mapped.unpacked(tensor)
    assert mapped.resident == unpacked.nbytes
    assert content(mapped) == before
    mapped.close()
