"""Files of Ollama's older converters give the same logits as llama.cpp's files of the same models."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import naive
import numpy as np
import pytest
import tiny_gguf
from stepping import Text, blocks_for

from runtime.execute.cpu import CpuExecutor
from runtime.gguf_file import open_gguf
from runtime.published import translated
from runtime.tokenizer import Tokenizer
from runtime.weights import open_weights

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
GPT_OSS = {"attn_output.weight": "attn_out.weight", "attn_output.bias": "attn_out.bias", "attn_sinks.weight": "attn_sinks"}
GEMMA4 = {"ffn_down_exps.scale": "ffn_gate_inp.per_expert_scale"}
GLM_FLASH = {"attention.key_length": 64, "attention.value_length": 64, "attention.head_count_kv": 4}


def like(name: str, architecture: str, metadata: Mapping[str, object], **changes: Any) -> tiny_gguf.Shape:
    """A tiny model under another name, with other keys."""
    shape = tiny_gguf.ARCHITECTURES[name]
    return dataclasses.replace(shape, architecture=architecture, metadata=dict(metadata), **changes)


def without(name: str, *keys: str) -> dict[str, object]:
    return {key: value for key, value in tiny_gguf.ARCHITECTURES[name].metadata.items() if key not in keys}


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("gpt-oss", like("gpt-oss", "gptoss", without("gpt-oss", "rope.scaling.type"), renamed=GPT_OSS)),
        ("deepseek2", like("deepseek2", "glm4moelite", without("deepseek2") | GLM_FLASH)),
        (
            "gemma3",
            like(
                "gemma3",
                "gemma3",
                without("gemma3", "rope.freq_base_swa") | {"rope.local.freq_base": 5000.0, "rope.global.freq_base": 1e6},
            ),
        ),
        ("gemma4", like("gemma4", "gemma4", without("gemma4"), renamed=GEMMA4)),
        (
            "qwen35",
            like(
                *("qwen35", "qwen35", without("qwen35") | {"attention.head_count_kv": [0, 0, 0, 2, 0]}),
                renamed=tiny_gguf.ARCHITECTURES["qwen35"].renamed | {"ssm_dt.bias": "ssm_dt"},
            ),
        ),
        ("glm4moe", like("glm4moe", "glm4moe", without("glm4moe") | {"nextn_predict_layers": 1}, layers=4)),
    ],
    ids=lambda value: value if isinstance(value, str) else value.architecture,
)
def test_same_logits(name: str, shape: tiny_gguf.Shape, tmp_path: Path, executors: Callable[..., CpuExecutor]) -> None:
    golden = np.load(GOLDEN / f"tiny-{name}-F32.npz")
    logits = Text(executors(tiny_gguf.write(tmp_path / "m.gguf", shape)), blocks_for(64)).feed(golden["tokens"].tolist())
    assert naive.nmse(logits, golden["logits"]) <= 1e-6


def test_blocks_that_guess_ahead_are_not_read(tmp_path: Path) -> None:
    shape = like("glm4moe", "glm4moe", without("glm4moe") | {"nextn_predict_layers": 1}, layers=4)
    path = tiny_gguf.write(tmp_path / "m.gguf", shape)
    weights = open_weights(path, lambda *_: None)
    assert not any(tensor.name.startswith("blk.3.") for tensor in weights)
    assert weights.nbytes < path.stat().st_size * 0.8
    weights.close()


def test_tokens_without_an_embedding_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = tiny_gguf.tensors
    monkeypatch.setattr(tiny_gguf, "tensors", lambda shape: everything(shape) | {"token_embd.weight": (300, shape.embedding)})
    path = tiny_gguf.write(tmp_path / "m.gguf", tiny_gguf.ARCHITECTURES["gemma3"])
    weights = open_weights(path, lambda *_: None)
    assert weights.n_vocab == 300
    weights.close()
    with open_gguf(path) as file:
        assert Tokenizer.from_gguf(translated(file)).n_vocab == 300


def test_gpt_oss_is_cut_as_gpt_4o(tmp_path: Path) -> None:
    with open_gguf(tiny_gguf.write(tmp_path / "m.gguf", like("gpt-oss", "gptoss", without("gpt-oss")))) as file:
        assert translated(file)["tokenizer.ggml.pre"] == "gpt-4o"
        assert translated(file)["gpt-oss.block_count"] == 2
