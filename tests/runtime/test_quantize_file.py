"""Whole files: every tensor has the bytes of its type, what is kept is kept, and whatever is odd is refused."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import tiny_gguf
from importance_files import write_gguf

from runtime.core import ModelError
from runtime.gguf_file import GGUFFile, open_gguf
from runtime.quantize import file as quantizing
from runtime.quantize.encode import encode
from runtime.quantize.file import Matrix, Override, describe, quantize
from runtime.quantize.importance import ImportanceMatrix, read_matrix
from runtime.quantize.mixes import MIXES, Model
from runtime.quants import BY_NAME, TYPES


def quantized(source: Path, mix: str, overrides: Sequence[Override] = (), matrix: Matrix | None = None) -> tuple[GGUFFile, bytes]:
    """The new file, open, and its bytes."""
    out = io.BytesIO()
    told: list[tuple[int, int]] = []
    quantize(source, out, MIXES[mix], overrides, lambda done, total: told.append((done, total)), matrix)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1][0] == told[-1][1]
    target = source.with_name("target.gguf")
    target.write_bytes(out.getvalue())
    return open_gguf(target), out.getvalue()


def raw(path: Path, file: GGUFFile, name: str) -> np.ndarray:
    info = file.tensors[name]
    return np.frombuffer(path.read_bytes(), np.uint8, info.nbytes, info.offset).reshape(-1, TYPES[info.type_id].block_bytes)


def types(file: GGUFFile) -> dict[str, str]:
    return {name: info.type_name for name, info in file.tensors.items()}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tiny_gguf.write(tmp_path / "source.gguf", tiny_gguf.variant("qwen3", "F16"))


@pytest.mark.parametrize("mix", ["Q4_K_M", "Q8_0", "BF16", "F32"])
def test_every_tensor_is_its_values_in_its_type(source: Path, mix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantizing, "CHUNK", 4096)  # many pieces
    target, _ = quantized(source, mix)
    with target, open_gguf(source) as before:
        assert set(types(target).values()) == {"Q4_K_M": {"Q4_K", "Q6_K", "F32"}}.get(mix, {mix, "F32"})
        for name, info in target.tensors.items():
            old = raw(source, before, name)
            new = raw(target.path, target, name)
            if info.type_name == before.tensors[name].type_name:
                assert np.array_equal(new, old)
                continue
            values = TYPES[before.tensors[name].type_id].dequantize(old).astype(np.float32)
            assert np.array_equal(new, encode(info.type_name, values.reshape(-1, BY_NAME[info.type_name].block_size)))


def test_the_header_says_what_became_of_the_file(source: Path) -> None:
    target, _ = quantized(source, "Q5_K_S")
    with target, open_gguf(source) as before:
        changed = {"general.file_type": 16, "general.quantization_version": 2}
        assert {key: target.metadata[key] for key in target.metadata} == dict(before.metadata) | changed
        assert target.tensors.keys() == before.tensors.keys()
        assert list(target.tensors)[:2] == ["output_norm.weight", "token_embd.weight"]  # llama.cpp's order


def test_split_files_become_one(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama", split_max_tensors=1)
    writer.add_block_count(1)
    for name in ("token_embd.weight", "blk.0.ffn_up.weight"):
        writer.add_tensor(name, np.ones((4, 256), np.float32))
    writer.write_header_to_file(tmp_path / "m.gguf")
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    target, _ = quantized(tmp_path / "m-00001-of-00002.gguf", "Q6_K")
    with target:
        assert types(target) == {"token_embd.weight": "Q6_K", "blk.0.ffn_up.weight": "Q6_K"}
        assert not any(key.startswith("split") for key in target.metadata)


def test_overrides(source: Path) -> None:
    overrides = [(re.compile(r"^blk\.0\."), ""), (re.compile(r"attn_q\.weight"), "Q8_0"), (re.compile(r"_norm"), "Q8_0")]
    target, _ = quantized(source, "Q4_K_S", overrides)
    with target:
        found = types(target)
    assert {kind for name, kind in found.items() if name.startswith("blk.0.")} == {"F16", "F32"}
    assert found["blk.1.attn_q.weight"] == "Q8_0"
    assert found["blk.1.attn_k.weight"] == "Q4_K"
    assert found["blk.1.attn_norm.weight"] == "F32"


def test_a_tensor_with_bad_values_is_named(tmp_path: Path) -> None:
    path = tiny_gguf.write(tmp_path / "source.gguf", tiny_gguf.variant("llama", "F32"))
    with open_gguf(path) as before:
        offset = before.tensors["blk.1.ffn_up.weight"].offset
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(np.float32(np.nan).tobytes())
    with pytest.raises(ModelError, match=r"tensor 'blk.1.ffn_up.weight' has values that are infinite or no numbers"):
        quantized(path, "Q4_0")


def test_a_mix_that_needs_an_importance_matrix(source: Path) -> None:
    with pytest.raises(ModelError, match=r"tensor 'blk.0.attn_k.weight' would become IQ1_S, which needs an importance matrix"):
        quantized(source, "IQ1_S")


@pytest.fixture
def experts(tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """A model with experts, and an importance for each column of its matrices, (matrices, row)."""
    path = tiny_gguf.write(tmp_path / "source.gguf", tiny_gguf.variant("qwen3moe", "F16"))
    rng, found = np.random.default_rng(2), {}
    with open_gguf(path) as file:
        for name, info in file.tensors.items():
            if len(info.shape) > 1 and name.startswith("blk"):
                shape = (info.shape[2] if len(info.shape) > 2 else 1, info.shape[0])
                found[name] = rng.chisquare(1, shape).astype(np.float32)
    return path, found


def given(path: Path, found: dict[str, np.ndarray], **about: Any) -> Matrix:
    return Matrix(read_matrix(write_gguf(path.with_name("m.gguf"), found, **about)), "m.gguf")


@pytest.mark.parametrize("mix", ["IQ2_XXS", "Q4_0", "Q4_K_M"])
def test_by_importance(experts: tuple[Path, dict[str, np.ndarray]], mix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantizing, "CHUNK", 5120)  # pieces that begin and end within an expert
    source, found = experts
    target, _ = quantized(source, mix, matrix=given(source, found))
    with target, open_gguf(source) as before:
        for name, table in found.items():
            info = target.tensors[name]
            if info.type_name == before.tensors[name].type_name:
                continue
            values = TYPES[before.tensors[name].type_id].dequantize(raw(source, before, name)).astype(np.float32)
            rows = values.reshape(len(table), -1, table.shape[1])
            parts = [encode(info.type_name, part, np.tile(line, (len(part), 1))) for part, line in zip(rows, table, strict=True)]
            assert np.array_equal(raw(target.path, target, name), np.concatenate(parts)), name


def test_the_header_names_the_importance_matrix(experts: tuple[Path, dict[str, np.ndarray]]) -> None:
    source, found = experts
    target, _ = quantized(source, "Q4_K_M", matrix=given(source, found, datasets=["a.txt", "b.txt"], chunks=7))
    with target:
        told = {key: target.metadata[key] for key in target.metadata if key.startswith("quantize.")}
    assert told == {
        "quantize.imatrix.file": "m.gguf",
        "quantize.imatrix.dataset": "a.txt",
        "quantize.imatrix.entries_count": len(found),
        "quantize.imatrix.chunks_count": 7,
    }


def test_a_tensor_of_which_the_importance_matrix_says_nothing(experts: tuple[Path, dict[str, np.ndarray]]) -> None:
    source, found = experts
    del found["blk.1.attn_q.weight"]
    matrix = given(source, found)
    with pytest.raises(
        ModelError, match=r"'blk.1.attn_q.weight' would become IQ2_XS, of which the importance matrix says nothing"
    ):
        quantized(source, "IQ2_XS", matrix=matrix)
    target, _ = quantized(source, "Q5_K_S", matrix=matrix)  # which needs none
    with target, open_gguf(source) as before:
        values = TYPES[1].dequantize(raw(source, before, "blk.1.attn_q.weight")).astype(np.float32)
        assert np.array_equal(raw(target.path, target, "blk.1.attn_q.weight"), encode("Q5_K", values.reshape(-1, 256)))


def test_an_importance_matrix_of_another_model(experts: tuple[Path, dict[str, np.ndarray]]) -> None:
    source, found = experts
    found["blk.0.ffn_up_exps.weight"] = found["blk.0.ffn_up_exps.weight"][:4]
    message = r"tensor 'blk.0.ffn_up_exps.weight' takes 2048 numbers of an importance matrix, and this one has 1024"
    with pytest.raises(ModelError, match=message):
        quantized(source, "Q4_K_M", matrix=given(source, found))
    tables = ImportanceMatrix({**read_matrix(source.with_name("m.gguf")).entries})
    assert not dataclasses.replace(tables, entries={"token_embd.weight": tables.entries["blk.0.attn_q.weight"]}).has(
        "token_embd.weight", (512, 4)
    )


def test_what_the_metadata_says(tmp_path: Path) -> None:
    shape = dataclasses.replace(tiny_gguf.variant("qwen3moe", "F16"), heads=8, kv_heads=2)
    with open_gguf(tiny_gguf.write(tmp_path / "m.gguf", shape)) as file:
        assert describe(file.metadata) == Model("qwen3moe", 2, 8, 4)
    assert describe({"general.architecture": "x", "x.block_count": 3, "x.attention.head_count": [4, 8]}) == Model("x", 3)
    seventy = {"block_count": 80, "attention.head_count": 64, "attention.head_count_kv": 8}
    assert describe({"general.architecture": "llama"} | {f"llama.{key}": value for key, value in seventy.items()}).is_70b
