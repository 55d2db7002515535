"""LoRA adapters: logits against llama.cpp's recorded ones, and what a file is refused for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import gguf
import naive
import numpy as np
import pytest
import tiny_gguf
from stepping import Text, blocks_for

from runtime.core import ModelError
from runtime.execute import encoder
from runtime.execute.cpu import CpuExecutor
from runtime.frames import Load
from runtime.loader import LoadError, open_model
from runtime.weights import open_weights

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
Open = Callable[..., CpuExecutor]

ROWS = 16  # further on, a key that rounds to the other f16 has made a router take the other of two experts


def ignore(phase: str, done: int, total: int) -> None:
    """No progress is shown."""


def adapter(folder: Path, shape: tiny_gguf.Shape, parts: tuple[str, ...], **options: float) -> Path:
    return tiny_gguf.write_adapter(folder / f"adapter-{len(list(folder.iterdir()))}.gguf", shape, parts, **options)


@pytest.mark.parametrize("architecture", tiny_gguf.ADAPTED)
def test_logits_match_llama_cpp(architecture: str, tmp_path: Path, executors: Open) -> None:
    golden = np.load(GOLDEN / f"lora-{architecture}.npz")
    shape = tiny_gguf.variant(architecture, "F32")
    path = tiny_gguf.write(tmp_path / "m.gguf", shape)
    executor = executors(path, adapters=[adapter(tmp_path, shape, tiny_gguf.ADAPTED[architecture])])
    logits = Text(executor, blocks_for(64)).feed(golden["tokens"].tolist())
    plain = np.load(GOLDEN / f"tiny-{architecture}-F32.npz")["logits"]
    assert naive.nmse(golden["logits"], plain) > 0.1  # it changes much
    assert naive.nmse(logits[:ROWS], golden["logits"][:ROWS]) <= 2e-6


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_K"])
def test_packed_weights_are_changed_too(kind: str, tmp_path: Path, executors: Open) -> None:
    """The same change in the same place, whatever type the weights have: against F32 weights of the same values."""
    shape = tiny_gguf.variant("qwen3moe", kind)
    packed = tiny_gguf.write(tmp_path / "packed.gguf", shape)
    lora = adapter(tmp_path, shape, tiny_gguf.ADAPTED["qwen3moe"])
    tokens = list(range(40))
    logits = Text(executors(packed, adapters=[lora]), blocks_for(64)).feed(tokens)
    plain = Text(executors(packed), blocks_for(64)).feed(tokens)
    flat = Text(executors(_unpacked(packed, tmp_path, shape), adapters=[lora]), blocks_for(64)).feed(tokens)
    assert naive.nmse(logits, flat) <= 0.05 * naive.nmse(plain, flat)


def _unpacked(path: Path, folder: Path, shape: tiny_gguf.Shape) -> Path:
    weights = open_weights(path, ignore)
    values = {tensor.name: weights.dequantize(tensor).reshape(tensor.shape[::-1]) for tensor in weights}
    weights.close()
    flat = dataclasses.replace(shape, type=tiny_gguf.Type.F32)
    return tiny_gguf.write(folder / "flat.gguf", flat, given=values)


def test_two_adapters_add_up(tmp_path: Path, executors: Open) -> None:
    shape = tiny_gguf.variant("llama", "F32")
    path = tiny_gguf.write(tmp_path / "m.gguf", shape)
    parts = ("attn_q", "ffn_down", "token_embd")
    one, other, both = (adapter(tmp_path, shape, parts, alpha=alpha) for alpha in (2.0, 6.0, 8.0))
    tokens = list(range(30))
    together = Text(executors(path, adapters=[one, other]), blocks_for(64)).feed(tokens)
    assert naive.nmse(together, Text(executors(path, adapters=[both]), blocks_for(64)).feed(tokens)) <= 1e-5


def test_fused_matrices(tmp_path: Path) -> None:
    """q, k and v in one tensor: each gets its rows of the change."""
    shape = tiny_gguf.variant("nomic-bert", "F32")
    path = tiny_gguf.write(tmp_path / "m.gguf", shape)
    lora = adapter(tmp_path, shape, ("attn_qkv", "ffn_up"))
    weights = open_weights(path, ignore)
    values = {tensor.name: weights.dequantize(tensor).reshape(tensor.shape[::-1]) for tensor in weights}
    weights.close()
    for change in _changes(path, lora):
        values[change.name] = values[change.name] + change.delta()
    merged = tiny_gguf.write(tmp_path / "merged.gguf", shape, given=values)
    vectors = []
    for file, adapters in ((path, [str(lora)]), (merged, []), (path, [])):
        model = encoder.load(file, num_ctx=64, num_batch=64, num_thread=2, adapters=adapters, progress=ignore)
        vectors.append(model.encode([[2, 5, 6, 7, 3]]).copy())
        model.close()
    assert naive.nmse(vectors[0], vectors[1]) <= 1e-6
    assert naive.nmse(vectors[2], vectors[1]) > 0.01


def _changes(path: Path, lora: Path) -> list:
    from runtime.adapters import read_adapter

    weights = open_weights(path, ignore)
    try:
        return read_adapter(lora, weights.metadata, {tensor.name: tensor.shape for tensor in weights})
    finally:
        weights.close()


def write(
    path: Path, tensors: dict[str, tuple[int, ...]], kind: str = "adapter", lora: str = "lora", name: str = "llama"
) -> Path:
    writer = gguf.GGUFWriter(path, name)
    writer.add_type(kind)
    writer.add_string("adapter.type", lora)
    for tensor, shape in tensors.items():
        writer.add_tensor(tensor, np.zeros(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


PAIR = {"blk.0.attn_q.weight.lora_a": (4, 256), "blk.0.attn_q.weight.lora_b": (256, 4)}


@pytest.mark.parametrize(
    ("tensors", "options", "message"),
    [
        (PAIR, {"kind": "model"}, "no LoRA adapter: its type is 'model', 'lora'"),
        (PAIR, {"lora": "other"}, "no LoRA adapter"),
        (PAIR, {"name": "qwen3"}, "the adapter is for 'qwen3', the model is 'llama'"),
        ({"blk.0.attn_q.weight.lora_a": (4, 256)}, {}, "only 'blk.0.attn_q.weight.lora_a' of a pair"),
        ({"blk.0.attn_q.weight.lora_b": (256, 4)}, {}, "only 'blk.0.attn_q.weight.lora_b' of a pair"),
        ({"blk.0.attn_q.weight": (4, 4)}, {}, "neither A nor B"),
        ({"blk.9.attn_q.weight.lora_a": (4, 256), "blk.9.attn_q.weight.lora_b": (256, 4)}, {}, "which this model does not have"),
        (PAIR | {"blk.0.attn_q.weight.lora_a": (4, 128)}, {}, r"\[128, 4\] and \[4, 256\], do not fit \[256, 256\]"),
        (PAIR | {"blk.0.attn_q.weight.lora_b": (256, 5)}, {}, "do not fit"),
        (PAIR | {"blk.0.attn_q.weight.lora_a": (2, 4, 256), "blk.0.attn_q.weight.lora_b": (2, 256, 4)}, {}, "do not fit"),
    ],
)
def test_refused(tensors: dict[str, tuple[int, ...]], options: dict[str, str], message: str, tmp_path: Path) -> None:
    path = tiny_gguf.write(tmp_path / "m.gguf", tiny_gguf.variant("llama", "F32"))
    with pytest.raises(ModelError, match=message):
        open_weights(path, ignore, [write(tmp_path / "a.gguf", tensors, **options)])


def test_norms_are_passed_over(tmp_path: Path) -> None:
    path = tiny_gguf.write(tmp_path / "m.gguf", tiny_gguf.variant("llama", "F32"))
    weights = open_weights(path, ignore, [write(tmp_path / "a.gguf", PAIR | {"output_norm.weight": (256,)})])
    assert len(weights.adapters("blk.0.attn_q.weight")) == 1
    weights.close()


def test_the_runner_names_what_is_wrong(tmp_path: Path) -> None:
    path = tiny_gguf.write(tmp_path / "m.gguf", tiny_gguf.variant("llama", "F32"))
    with pytest.raises(LoadError, match="no LoRA adapter") as error:
        open_model(Load(str(path), [str(path)]), ignore)
    assert error.value.kind == "bad_model"
