"""Checkpoints of Hugging Face in /api/create: progress, the layer and what it says, and what is left after an error."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_hf
from store_files import assert_sound, describe, make, upload

from ollama_compat.errors import ApiError, BadRequest, InternalError
from ollama_compat.schema import CreateRequest
from ollama_compat.store import Store, manifests
from ollama_compat.store.create import create
from ollama_compat.store.names import ModelName
from runtime.gguf_file import open_gguf


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


async def uploaded(store: Store, folder: Path, checkpoint: str = "qwen3", **options: Any) -> dict[str, str]:
    """The files of a checkpoint, uploaded: names and digests."""
    files = tiny_hf.write(folder, tiny_hf.CHECKPOINTS[checkpoint], **options)
    return {name: await upload(store, path) for name, path in files.items()}


def model_file(store: Store, model: str) -> Path:
    layers = store.get(ModelName.parse(model)).manifest.layers
    return store.blob_path(next(layer.digest for layer in layers if layer.media_type == manifests.MODEL))


async def test_a_folder_becomes_a_model(store: Store, tmp_path: Path) -> None:
    files = await uploaded(store, tmp_path / "hf", parts=2)
    request = CreateRequest(model="new", files=files)
    lines = [line async for line in create(store, request)]
    converting = [line for line in lines if line["status"] == "converting model"]
    assert converting[0] == {"status": "converting model"}
    told = [line for line in converting if "digest" in line]
    assert told[-1]["completed"] == told[-1]["total"] > 0
    statuses = list(dict.fromkeys(line["status"] for line in lines))
    assert statuses[:2] == ["converting model", "verifying conversion"]
    assert statuses[2].startswith("creating new layer sha256:")
    assert statuses[3:] == ["writing manifest", "success"]
    details = describe(store, "new")["details"]
    assert (details["family"], details["format"], details["quantization_level"]) == ("qwen3", "gguf", "F16")
    assert_sound(store)


async def test_only_the_layer_is_left_of_the_files(store: Store, tmp_path: Path) -> None:
    files = await uploaded(store, tmp_path / "hf")
    await make(store, "new", files=files)
    names = {path.name for path in store.blobs.folder.iterdir()}
    assert len(names) == len(set(files.values())) + 2  # the uploads stay until they are swept; the layer and its config
    assert all(len(name) == len("sha256-") + 64 for name in names)


async def test_the_same_files_make_the_same_layer(store: Store, tmp_path: Path) -> None:
    files = await uploaded(store, tmp_path / "hf")
    await make(store, "first", files=files)
    statuses = await make(store, "second", files=files)
    assert any(status.startswith("using existing layer") for status in statuses)
    assert model_file(store, "first") == model_file(store, "second")


@pytest.mark.parametrize(("level", "kind"), [("f32", "F32"), ("BF16", "BF16"), ("q8_0", "Q8_0")])
async def test_conversion_with_a_level(level: str, kind: str, store: Store, tmp_path: Path) -> None:
    files = await uploaded(store, tmp_path / "hf")
    statuses = list(dict.fromkeys(await make(store, "new", files=files, quantize=level)))
    assert ("quantizing F16 model to Q8_0" in statuses) == (kind == "Q8_0")
    with open_gguf(model_file(store, "new")) as file:
        assert file.tensors["blk.0.attn_q.weight"].type_name == kind
    # Ollama cannot tell F32 from a file that names no type
    assert describe(store, "new")["details"]["quantization_level"] == ("unknown" if kind == "F32" else kind)


async def test_float8_becomes_q8_0_unless_something_else_is_asked_for(store: Store, tmp_path: Path) -> None:
    base = tiny_hf.CHECKPOINTS["qwen3"]
    files = tiny_hf.write(tmp_path / "hf", base)
    weights, name = tiny_hf.tensors(base), "model.layers.0.mlp.up_proj.weight"
    weights |= {name: np.full((192, 128), 0x38, np.int8), f"{name}_scale_inv": np.ones(1, np.float32)}
    files["model.safetensors"].write_bytes(tiny_hf.safetensors(weights))
    digests = {name: await upload(store, path) for name, path in files.items()}
    await make(store, "usual", files=digests)
    await make(store, "asked", files=digests, quantize="F16")
    for model, kind in (("usual", "Q8_0"), ("asked", "F16")):
        with open_gguf(model_file(store, model)) as file:
            assert file.tensors["blk.0.ffn_up.weight"].type_name == kind


async def test_template_and_capabilities_come_from_the_tokenizer(store: Store, tmp_path: Path) -> None:
    await make(store, "text", files=await uploaded(store, tmp_path / "text", "llama"))
    await make(store, "vectors", files=await uploaded(store, tmp_path / "vectors", "bert"))
    assert describe(store, "text")["template"] == tiny_hf.TEMPLATE
    assert describe(store, "text")["capabilities"] == ["completion"]
    assert describe(store, "vectors")["capabilities"] == ["embedding"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config.json": None}, "open config.json: no such file or directory"),
        ({"config.json": b"{"}, "parse config.json: "),
        ({"config.json": b'{"architectures": ["Rwkv7ForCausalLM"]}'}, 'unsupported architecture "Rwkv7ForCausalLM"'),
        ({"tokenizer.json": None}, "unknown tokenizer format"),
        ({"model.safetensors": b"nothing of the kind"}, "model.safetensors: a header of "),
    ],
)
async def test_what_is_no_model(changes: dict[str, bytes | None], message: str, store: Store, tmp_path: Path) -> None:
    files = await uploaded(store, tmp_path / "hf")
    for name, data in changes.items():
        if data is None:
            del files[name]
        else:
            (tmp_path / "changed").write_bytes(data)
            files[name] = await upload(store, tmp_path / "changed")
    before = sorted(os.listdir(store.blobs.folder))
    with pytest.raises(InternalError) as caught:
        await make(store, "new", files=files)
    assert caught.value.message.startswith(message)
    assert sorted(os.listdir(store.blobs.folder)) == before
    assert store.resolve(ModelName.parse("new")) is None


async def test_a_blob_that_was_never_sent(store: Store, tmp_path: Path) -> None:
    files = await uploaded(store, tmp_path / "hf")
    for name in ("config.json", "model.safetensors"):
        with pytest.raises(InternalError, match=rf"^open {name}: no such file or directory$"):
            await make(store, "new", files=files | {name: "sha256:" + "0" * 64})


async def test_drafts_have_to_be_gguf(store: Store, tmp_path: Path) -> None:
    files = await uploaded(store, tmp_path / "hf")
    with pytest.raises(ApiError, match="drafts are taken as GGUF only") as caught:
        await make(store, "new", files=files, draft_files=files)
    assert caught.value.status == 501


async def uploaded_adapter(store: Store, folder: Path, config: dict[str, Any]) -> dict[str, str]:
    """An adapter for the queries of the first layer of `qwen3`."""
    return {path.name: await upload(store, path) for path in _write_adapter(folder, config)}


def _write_adapter(folder: Path, config: dict[str, Any]) -> list[Path]:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config))
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    halves = {name.format("A"): np.ones((2, 128), np.float32), name.format("B"): np.ones((128, 2), np.float32)}
    (folder / "adapter_model.safetensors").write_bytes(tiny_hf.safetensors(halves))
    return list(folder.iterdir())


async def test_an_adapter_is_converted_for_its_base(store: Store, tmp_path: Path) -> None:
    await make(store, "base", files=await uploaded(store, tmp_path / "hf"))
    files = await uploaded_adapter(store, tmp_path / "adapter", {"lora_alpha": 4})
    statuses = list(dict.fromkeys(await make(store, "new", from_="base", adapters=files)))
    assert statuses[0] == "converting adapter"
    assert [status for status in statuses if status.startswith("creating new layer")]
    assert statuses[-2:] == ["writing manifest", "success"]
    (adapter,) = store.get(ModelName.parse("new")).adapter_paths
    with open_gguf(adapter) as file:
        assert set(file.tensors) == {"blk.0.attn_q.weight.lora_a", "blk.0.attn_q.weight.lora_b"}
    assert f"ADAPTER {adapter}" in describe(store, "new")["modelfile"]
    assert_sound(store)


async def test_what_is_wrong_with_an_adapter_is_the_clients_fault(store: Store, tmp_path: Path) -> None:
    await make(store, "base", files=await uploaded(store, tmp_path / "hf"))
    files = await uploaded_adapter(store, tmp_path / "adapter", {})
    with pytest.raises(BadRequest, match="'lora_alpha' is missing"):
        await make(store, "new", from_="base", adapters=files)


async def test_a_caller_that_leaves_ends_the_conversion(store: Store, tmp_path: Path) -> None:
    files = await uploaded(store, tmp_path / "hf")
    before = sorted(os.listdir(store.blobs.folder))
    async with contextlib.aclosing(create(store, CreateRequest(model="new", files=files))) as lines:
        assert await anext(lines) == {"status": "converting model"}
        await anext(lines)
    assert sorted(os.listdir(store.blobs.folder)) == before
    assert store.resolve(ModelName.parse("new")) is None
