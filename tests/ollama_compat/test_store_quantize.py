"""Quantising in /api/create: levels, progress, the new layer, and what is left when it does not end well."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_gguf
from importance_files import old_form
from store_files import assert_sound, describe, make, upload

from ollama_compat import job_steps
from ollama_compat.errors import ApiError, InternalError
from ollama_compat.schema import CreateRequest
from ollama_compat.store import Store, manifests, quantize
from ollama_compat.store.create import create
from ollama_compat.store.names import ModelName
from runtime.frames import LoadProgress
from runtime.gguf_file import open_gguf
from runtime.quantize.mixes import MIXES

STATUS = "quantizing F16 model to {}"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


@pytest.fixture
async def plain(store: Store, tmp_path: Path) -> str:
    """The digest of a small F16 model, from which `plain` was made."""
    shape = tiny_gguf.variant("qwen3", "F16")
    source = tiny_gguf.write(tmp_path / "plain.gguf", shape)
    _mark(source)
    digest = await upload(store, source)
    await make(store, "plain", files={"plain.gguf": digest})
    return digest


def _mark(path: Path) -> None:
    """tiny_gguf writes no general.file_type; quantising needs to know that it is F16."""
    from runtime.gguf_writer import head, placed, uint32, whole

    with open_gguf(path) as file:
        values = whole(file.metadata) | {"general.file_type": uint32(1)}
        data = path.read_bytes()[file.data_offset :]
        path.write_bytes(head(values, placed(file.tensors.values(), file.alignment), file.alignment) + data)


def types(store: Store, model: str) -> set[str]:
    layer = next(layer for layer in store.get(ModelName.parse(model)).manifest.layers if layer.media_type == manifests.MODEL)
    with open_gguf(store.blob_path(layer.digest)) as file:
        return {tensor.type_name for tensor in file.tensors.values()}


async def progress(store: Store, **fields: Any) -> list[dict[str, Any]]:
    return [line async for line in create(store, CreateRequest(model="new", **fields))]


@pytest.mark.parametrize(
    ("level", "name", "kinds"),
    [
        ("q8_0", "Q8_0", {"Q8_0", "F32"}),
        ("q4_K_M", "Q4_K_M", {"Q4_K", "Q6_K", "F32"}),
        ("q4_k", "Q4_K_M", {"Q4_K", "Q6_K", "F32"}),
        ("Q5_0", "Q5_0", {"Q5_0", "Q6_K", "F32"}),
        ("bf16", "BF16", {"BF16", "F32"}),
    ],
)
async def test_a_model_is_quantised(store: Store, plain: str, level: str, name: str, kinds: set[str]) -> None:
    lines = await progress(store, from_="plain", quantize=level)
    status = STATUS.format(level.upper())
    told = [line for line in lines if line["status"] == status]
    others = list(dict.fromkeys(line["status"] for line in lines if line["status"] != status))
    assert told
    assert {line["digest"] for line in told} == {"0000000000000000000"}
    completed = [line["completed"] for line in told]
    assert completed == sorted(completed)
    assert completed[-1] == told[-1]["total"] == store.blob_path(plain).stat().st_size
    assert others[0] == "verifying conversion"
    assert others[1].startswith("creating new layer sha256:")
    assert others[2:] == ["writing manifest", "success"]
    assert describe(store, "new")["details"]["quantization_level"] == name
    assert types(store, "new") == kinds
    assert_sound(store)


async def test_a_second_time_the_layer_is_there(store: Store, plain: str) -> None:
    await make(store, "first", from_="plain", quantize="q8_0")
    assert any(
        status.startswith("using existing layer") for status in await make(store, "second", from_="plain", quantize="q8_0")
    )


def test_the_levels_of_ollama_in_any_case_and_all_mixes_of_llama_cpp() -> None:
    assert [quantize.target(level) for level in ("q4_k_m", "Q4_K", "f16", "Bf16", "q8_0")] == [
        "Q4_K_M",
        "Q4_K_M",
        "F16",
        "BF16",
        "Q8_0",
    ]
    assert {quantize.target(mix) for mix in MIXES} == set(MIXES)
    assert quantize.target("q5_K") == "Q5_K_M"
    for level in ("q5_0", "q5_k_m", "iq4_xs", "q9_9", "Q9_9", "unknown", "NVFP4"):
        with pytest.raises(InternalError, match=f"unsupported quantization type {level.upper()} - supported types are F32, F16,"):
            quantize.target(level)


async def test_a_mix_that_cannot_be_made_leaves_nothing(store: Store, plain: str) -> None:
    before = sorted(os.listdir(store.blobs.folder))
    with pytest.raises(ApiError, match="would become IQ1_S, which needs an importance matrix"):
        await make(store, "new", from_="plain", quantize="IQ1_S")
    assert sorted(os.listdir(store.blobs.folder)) == before
    assert store.resolve(ModelName.parse("new")) is None


async def matrix(store: Store, source: Path) -> str:
    """The digest of an importance matrix for the model `source`."""
    with open_gguf(source) as file:
        sums = {name: np.ones((1, info.shape[0])) for name, info in file.tensors.items() if len(info.shape) > 1}
    path = source.with_name("matrix.dat")
    path.write_bytes(old_form(sums))
    return await upload(store, path)


@pytest.mark.parametrize("level", ["IQ2_XXS", "iq2_xxs"])
async def test_by_an_importance_matrix(store: Store, plain: str, tmp_path: Path, level: str) -> None:
    digest = await matrix(store, tmp_path / "plain.gguf")
    await make(store, "new", from_="plain", quantize=level, imatrix={"some/where/m.dat": digest})
    assert types(store, "new") == {"IQ2_XXS", "Q2_K", "Q5_K", "F32"}
    info = describe(store, "new")["model_info"]
    assert info["quantize.imatrix.file"] == "m.dat"
    assert_sound(store)


async def test_importance_matrices_that_are_none(store: Store, plain: str) -> None:
    async def refusal(**fields: Any) -> tuple[int, str]:
        with pytest.raises(ApiError) as raised:
            await make(store, "new", from_="plain", **fields)
        return raised.value.status, raised.value.message

    one_file = (400, "imatrix takes one file, and goes with quantize")
    assert await refusal(imatrix={"m": plain}) == one_file
    assert await refusal(imatrix={}, quantize="Q4_K_M") == one_file
    assert await refusal(imatrix={"m": plain, "n": plain}, quantize="Q4_K_M") == one_file
    assert await refusal(imatrix={"m": ""}, quantize="Q4_K_M") == (400, "invalid digest format")
    assert await refusal(imatrix={"m": plain}, quantize="Q4_K_M") == (
        500,
        "the importance matrix cannot be read: it has no entries",
    )
    missing = f"sha256:{'0' * 64}"
    status, message = await refusal(imatrix={"m": missing}, quantize="Q4_K_M")
    assert (status, message) == (500, f"open {store.blob_path(missing)}: no such file or directory")


async def test_the_child_dies_with_the_request(store: Store, tmp_path: Path) -> None:
    shape = tiny_gguf.Shape(type=tiny_gguf.Type.F16, layers=24, feed_forward=4096, vocab=8192)
    source = tiny_gguf.write(tmp_path / "plain.gguf", shape)
    _mark(source)
    await make(store, "plain", files={"plain.gguf": await upload(store, source)})
    before = sorted(os.listdir(store.blobs.folder))
    async with contextlib.aclosing(create(store, CreateRequest(model="new", from_="plain", quantize="q4_K_M"))) as lines:  # type: ignore[type-var]
        assert (await anext(lines))["status"] == STATUS.format("Q4_K_M")
        (child,) = _children()
    assert child not in _children()
    assert sorted(os.listdir(store.blobs.folder)) == before
    assert store.resolve(ModelName.parse("new")) is None


def _children() -> list[int]:
    """Job processes of this one."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, IndexError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"runtime.job" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def test_a_child_that_dies_is_told(tmp_path: Path) -> None:
    with pytest.raises(InternalError, match="ended unexpectedly, signal: killed"):
        _run_and_kill({"source": str(_endless(tmp_path)), "target": str(tmp_path / "target"), "mix": "Q2_K", "overrides": []})


def _run_and_kill(arguments: dict[str, Any]) -> None:
    for line in job_steps.steps("quantize", arguments):
        assert isinstance(line, LoadProgress)
        for child in _children():
            os.kill(child, 9)


def _endless(folder: Path) -> Path:
    (folder / "target").touch()
    return tiny_gguf.write(folder / "source.gguf", tiny_gguf.Shape(layers=24, feed_forward=4096, vocab=8192))


@pytest.mark.parametrize(
    ("architecture", "name", "kind"),
    [
        ("qwen35", "blk.47.nextn.eh_proj.weight", "Q8_0"),
        ("gemma3n", "per_layer_token_embd.weight", "F16"),
        ("deepseek2", "blk.3.attn_kv_a_mqa.weight", "Q8_0"),
        ("glm4", "token_embd.weight", "F16"),
        ("glm4", "blk.0.ffn_up.weight", None),
        ("qwen3", "token_embd.weight", None),
        ("gemma3", "v.blk.0.ffn_up.weight", ""),
    ],
)
def test_ollamas_exceptions(architecture: str, name: str, kind: str | None) -> None:
    overrides = quantize.overrides(architecture, "Q4_K_M")
    assert next((kind for pattern, kind in overrides if re.search(pattern, name)), None) == kind
    assert quantize.overrides(architecture, "Q8_0") == quantize.overrides("qwen3", "Q4_K_M")
