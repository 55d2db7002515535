"""LoRA adapters in safetensors: what becomes of a model with a converted adapter is what becomes of it with merged weights."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import naive
import numpy as np
import pytest
import tiny_hf
from stepping import Text, blocks_for
from tiny_hf import CHECKPOINTS

from runtime.convert.adapter import convert_adapter
from runtime.convert.errors import ConvertError
from runtime.convert.file import convert
from runtime.execute.cpu import CpuExecutor
from runtime.gguf_file import open_gguf

RANK = 4
PLAIN = [f"model.layers.{layer}.self_attn.{part}_proj" for layer in range(2) for part in "qkvo"] + [
    "model.layers.1.mlp.down_proj"
]
EXPERTS = [f"model.layers.1.mlp.experts.{e}.{part}_proj" for e in range(4) for part in ("gate", "down")]
MODULES = {"llama": PLAIN, "qwen2": PLAIN, "qwen3moe": PLAIN[:-1] + EXPERTS}
Pairs = dict[str, tuple[np.ndarray, np.ndarray]]


def quiet(done: int, total: int) -> None:
    """Nobody looks."""


def pairs(name: str, modules: list[str]) -> Pairs:
    """A and B for some matrices of a checkpoint."""
    rng = np.random.default_rng(3)
    shapes = CHECKPOINTS[name].shapes
    found = {}
    for module in modules:
        n_out, n_in = shapes[module + ".weight"]
        a, b = rng.normal(0, 1 / np.sqrt(n_in), (RANK, n_in)), rng.normal(0, 0.5, (n_out, RANK))
        found[module] = (a.astype(np.float32), b.astype(np.float32))
    return found


def peft(changes: Pairs) -> tiny_hf.Tensors:
    out = {}
    for module, (a, b) in changes.items():
        out[f"base_model.model.{module}.lora_A.weight"] = a
        out[f"base_model.model.{module}.lora_B.weight"] = b
    return out


def mlx(changes: Pairs) -> tiny_hf.Tensors:
    out = {}
    for module, (a, b) in changes.items():
        out |= {f"{module}.lora_a": np.ascontiguousarray(a.T), f"{module}.lora_b": np.ascontiguousarray(b.T)}
    return out


def model(folder: Path, name: str, changes: Pairs | None = None, scale: float = 0.0) -> Path:
    """The converted checkpoint in F32, its weights changed."""
    files = tiny_hf.write(folder / "hf", CHECKPOINTS[name])
    weights = tiny_hf.tensors(CHECKPOINTS[name])
    for module, (a, b) in (changes or {}).items():
        weights[module + ".weight"] = (weights[module + ".weight"] + scale * b @ a).astype(np.float32)
    files["model.safetensors"].write_bytes(tiny_hf.safetensors(weights))
    target = folder / ("merged.gguf" if changes else "base.gguf")
    with target.open("wb") as file:
        convert(files, file, quiet, "F32")
    return target


def adapter(folder: Path, base: Path, tensors: tiny_hf.Tensors, config: dict[str, Any], dtype: str = "F32") -> Path:
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "adapter_model.safetensors").write_bytes(tiny_hf.safetensors(tensors, dtype))
    files = {name: folder / name for name in ("adapter_config.json", "adapter_model.safetensors")}
    with (folder / "adapter.gguf").open("wb") as file:
        convert_adapter(files, base, file, quiet)
    return folder / "adapter.gguf"


@pytest.mark.parametrize("form", [peft, mlx])
@pytest.mark.parametrize("name", MODULES)
def test_the_model_changes_as_with_merged_weights(
    name: str, form: Callable[[Pairs], tiny_hf.Tensors], tmp_path: Path, executors: Callable[..., CpuExecutor]
) -> None:
    changes = pairs(name, MODULES[name])
    base, merged = model(tmp_path, name), model(tmp_path, name, changes, scale=2.0)
    config = {"lora_alpha": 8, "r": RANK} if form is peft else {"lora_parameters": {"rank": RANK, "scale": 2.0}}
    lora = adapter(tmp_path, base, form(changes), config)
    tokens = list(range(10, 22))
    logits = [
        Text(executors(path, adapters=adapters), blocks_for(64)).feed(tokens)
        for path, adapters in ((base, [lora]), (merged, []), (base, []))
    ]
    assert naive.nmse(logits[0], logits[1]) <= 2e-6
    assert naive.nmse(logits[2], logits[1]) > 0.01


@pytest.mark.parametrize(
    ("config", "alpha"),
    [
        ({"lora_alpha": 16}, 16.0),
        ({"lora_alpha": 16, "use_rslora": True}, 32.0),
        ({"lora_parameters": {"alpha": 20, "scale": 3}}, 20.0),
        ({"lora_parameters": {"scale": 3}}, 12.0),
    ],
)
def test_how_much_it_changes(config: dict[str, Any], alpha: float, tmp_path: Path) -> None:
    lora = adapter(tmp_path, model(tmp_path, "llama"), peft(pairs("llama", PLAIN)), config)
    with open_gguf(lora) as file:
        assert file.metadata["adapter.lora.alpha"] == alpha
        assert (file.metadata["general.type"], file.metadata["adapter.type"]) == ("adapter", "lora")
        assert file.metadata["general.architecture"] == "llama"


def test_a_table_of_embeddings(tmp_path: Path, executors: Callable[..., CpuExecutor]) -> None:
    rng = np.random.default_rng(4)
    a, b = rng.normal(0, 0.1, (RANK, 320)).astype(np.float32), rng.normal(0, 1, (128, RANK)).astype(np.float32)
    base = model(tmp_path, "llama")
    tensors = {f"base_model.model.model.embed_tokens.lora_embedding_{side}": half for side, half in (("A", a), ("B", b))}
    lora = adapter(tmp_path, base, tensors, {"lora_alpha": RANK})
    weights = tiny_hf.tensors(CHECKPOINTS["llama"])
    merged = model(tmp_path, "llama", {"model.embed_tokens": (b.T, a.T)}, scale=1.0)
    assert weights["model.embed_tokens.weight"].shape == (320, 128)
    logits = [
        Text(executors(path, adapters=adapters), blocks_for(64)).feed([7, 8, 9])
        for path, adapters in ((base, [lora]), (merged, []))
    ]
    assert naive.nmse(logits[0], logits[1]) <= 2e-6


def test_types_stay(tmp_path: Path) -> None:
    base = model(tmp_path, "llama")
    for dtype in ("F16", "BF16"):
        tensors = {
            name: (half.view(np.uint32) & 0xFFFF0000).view(np.float32) for name, half in peft(pairs("llama", PLAIN)).items()
        }
        with open_gguf(adapter(tmp_path, base, tensors, {"lora_alpha": 1}, dtype)) as file:
            assert {tensor.type_name for tensor in file.tensors.values()} == {dtype}


def failure(tmp_path: Path, tensors: tiny_hf.Tensors, config: Any = None, name: str = "llama") -> str:
    base = model(tmp_path, name)
    with pytest.raises(ConvertError) as caught:
        adapter(tmp_path, base, tensors, {"lora_alpha": 1} if config is None else config)
    return str(caught.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "parse adapter_config.json: 'lora_alpha' is missing"),
        ({"lora_alpha": 1, "use_dora": True}, "adapters with magnitudes (DoRA) or an alpha for each module are not supported"),
        (
            {"lora_alpha": 1, "alpha_pattern": {"q": 2}},
            "adapters with magnitudes (DoRA) or an alpha for each module are not supported",
        ),
    ],
)
def test_configs_that_are_not_understood(config: dict[str, Any], message: str, tmp_path: Path) -> None:
    assert failure(tmp_path, peft(pairs("llama", PLAIN)), config) == message


def test_tensors_that_do_not_belong_there(tmp_path: Path) -> None:
    good = peft(pairs("llama", PLAIN))
    q = "base_model.model.model.layers.0.self_attn.q_proj"
    assert failure(tmp_path, good | {f"{q}.lora_magnitude_vector": np.zeros(4, np.float32)}) == (
        f"unsupported tensor '{q}.lora_magnitude_vector'"
    )
    assert failure(tmp_path, {}) == "the adapter changes nothing"
    assert failure(tmp_path, {f"{q}.lora_A.weight": good[f"{q}.lora_A.weight"]}) == (
        "the adapter has only a part of 'blk.0.attn_q.weight'"
    )
    other = {
        f"base_model.model.model.layers.7.self_attn.q_proj.lora_{side}.weight": np.zeros((4, 4), np.float32) for side in "AB"
    }
    assert failure(tmp_path, other) == "the adapter changes 'blk.7.attn_q.weight', which the model does not have"
    wrong = {f"{q}.lora_A.weight": np.zeros((4, 64), np.float32), f"{q}.lora_B.weight": np.zeros((128, 4), np.float32)}
    assert failure(tmp_path, wrong) == (
        "the adapter's matrices for 'blk.0.attn_q.weight', [4, 64] and [128, 4], do not fit [128, 128]"
    )


def test_some_experts_are_not_enough(tmp_path: Path) -> None:
    changes = pairs("qwen3moe", EXPERTS[:-2])
    assert failure(tmp_path, peft(changes), name="qwen3moe") == "the adapter has only a part of 'blk.1.ffn_down_exps.weight'"


def test_a_base_that_nobody_adapts(tmp_path: Path) -> None:
    assert failure(tmp_path, peft(pairs("llama", PLAIN)), name="bert") == "unsupported architecture"


def test_without_its_config(tmp_path: Path) -> None:
    base = model(tmp_path, "llama")
    with pytest.raises(ConvertError, match=r"open adapter_config\.json: no such file or directory"):
        convert_adapter({}, base, io.BytesIO(), quiet)
