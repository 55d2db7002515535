"""Converted checkpoints: run, they give what `transformers` gave; their tensors and metadata are those that the field expects."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import naive
import numpy as np
import pytest
import tiny_hf
from gguf.quants import dequantize
from stepping import Text, blocks_for
from tiny_hf import CHECKPOINTS, Checkpoint

from runtime.convert.errors import ConvertError
from runtime.convert.file import convert
from runtime.execute import encoder
from runtime.execute.cpu import CpuExecutor
from runtime.gguf_file import GGUFFile, open_gguf

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
TEXT = ("llama", "llama3", "mistral", "mixtral", "qwen2", "qwen3", "qwen3moe", "gemma3", "gpt-oss")
DECODER = "attn_k attn_norm attn_output attn_q attn_v ffn_norm"
DENSE, EXPERTS = "ffn_down ffn_gate ffn_up", "ffn_down_exps ffn_gate_exps ffn_gate_inp ffn_up_exps"
HEAD_NORMS = "attn_k_norm attn_q_norm"
Convert = Callable[..., Path]


@pytest.fixture
def converted(tmp_path: Path) -> Convert:
    """Writes a checkpoint, converts it, and gives the path of the GGUF file."""

    def make(checkpoint: str | Checkpoint, *, wanted: str = "", parts: int = 1) -> Path:
        checkpoint = CHECKPOINTS[checkpoint] if isinstance(checkpoint, str) else checkpoint
        target = tmp_path / "model.gguf"
        with target.open("wb") as file:
            convert(tiny_hf.write(tmp_path / "hf", checkpoint, parts=parts), file, lambda done, total: None, wanted)
        return target

    return make


def values(file: GGUFFile, name: str) -> np.ndarray:
    """A tensor's numbers as float32, rows first."""
    info = file.tensors[name]
    raw = np.fromfile(file.path, np.uint8, info.nbytes, offset=info.offset)
    shape = info.shape[::-1]
    if info.type_name == "BF16":
        return (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(shape)
    if info.type_name == "MXFP4":
        return dequantize(raw.reshape(-1, 17), 39).reshape(shape)
    return raw.view({"F32": np.float32, "F16": np.float16}[info.type_name]).astype(np.float32).reshape(shape)


@pytest.mark.parametrize("name", TEXT)
def test_logits_are_those_of_transformers(name: str, converted: Convert, executors: Callable[..., CpuExecutor]) -> None:
    golden = np.load(GOLDEN / "hf.npz")
    executor = executors(converted(name, wanted="F32"))
    logits = Text(executor, blocks_for(64)).feed(golden["tokens"].tolist())
    assert naive.nmse(logits, golden[name]) <= 1e-6


@pytest.mark.parametrize("name", ["bert", "qwen3-embedding"])
def test_vectors_are_those_of_transformers(name: str, converted: Convert) -> None:
    golden = np.load(GOLDEN / "hf.npz")
    model = encoder.load(
        converted(name, wanted="F32"), num_ctx=256, num_batch=256, num_thread=2, progress=lambda phase, done, total: None
    )
    vector = model.encode([golden["tokens"].tolist()])[0].copy()
    model.close()
    assert naive.nmse(vector, golden[name]) <= 1e-6


def test_nomic_runs_as_its_twin_does(converted: Convert) -> None:
    path = converted("nomic-bert", wanted="F32")
    model = encoder.load(path, num_ctx=256, num_batch=256, num_thread=2, progress=lambda phase, done, total: None)
    tokens = list(range(5, 40))
    vector = model.encode([tokens])[0].copy()
    model.close()
    assert naive.nmse(vector, naive.Model(path).states(tokens).mean(0)) <= 1e-6


BERT = "attn_q attn_k attn_v attn_output attn_output_norm ffn_up ffn_down layer_output_norm"
BLOCKS: dict[str, tuple[str, str, str]] = {  # what stands alone, and in each layer: weights, biases
    "llama": ("output output_norm token_embd", f"{DECODER} {DENSE}", ""),
    "llama3": ("output output_norm rope_freqs token_embd", f"{DECODER} {DENSE}", ""),
    "mixtral": ("output output_norm token_embd", f"{DECODER} {EXPERTS}", ""),
    "qwen2": ("output output_norm token_embd", f"{DECODER} {DENSE}", "attn_k attn_q attn_v"),
    "qwen3": ("output_norm token_embd", f"{DECODER} {HEAD_NORMS} {DENSE}", ""),
    "qwen3moe": ("output output_norm token_embd", f"{DECODER} {HEAD_NORMS} {EXPERTS}", ""),
    "gemma3": ("output_norm token_embd", f"{DECODER} {HEAD_NORMS} {DENSE} post_attention_norm post_ffw_norm", ""),
    "gpt-oss": (
        "output output_norm token_embd",
        f"{DECODER} {EXPERTS} attn_sinks post_attention_norm".replace("ffn_norm ", ""),
        f"attn_k attn_q attn_v attn_output {EXPERTS}",
    ),
    "bert": ("position_embd token_embd token_embd_norm token_types", BERT, BERT),
    "nomic-bert": (
        "token_embd token_embd_norm token_types",
        "attn_qkv attn_output attn_output_norm ffn_up ffn_gate ffn_down layer_output_norm",
        "attn_output_norm layer_output_norm",
    ),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_tensors_have_the_names_that_llama_cpp_reads(name: str, converted: Convert) -> None:
    alone, weights, biases = BLOCKS[name]
    expected = {f"{part}.weight" for part in alone.split()} | ({"token_embd_norm.bias"} if "bert" in name else set())
    for layer in range(2):
        expected |= {f"blk.{layer}.{part}.weight" for part in weights.split()}
        expected |= {f"blk.{layer}.{part}.bias" for part in biases.split()}
    with open_gguf(converted(name)) as file:
        assert set(file.tensors) == expected


METADATA: dict[str, dict[str, Any]] = {
    "llama": {
        "general.architecture": "llama",
        "general.file_type": 1,
        "llama.block_count": 2,
        "llama.context_length": 512,
        "llama.attention.head_count_kv": 2,
        "llama.rope.dimension_count": 32,
        "llama.vocab_size": 320,
    },
    "llama3": {"general.architecture": "llama", "general.file_type": 32, "llama.rope.freq_base": 10000.0},
    "mistral": {"general.architecture": "llama", "llama.attention.key_length": 32},
    "mixtral": {"general.architecture": "llama", "llama.expert_count": 4, "llama.expert_used_count": 2},
    "qwen2": {"general.architecture": "qwen2", "qwen2.feed_forward_length": 192},
    "qwen3moe": {"general.architecture": "qwen3moe", "qwen3moe.expert_feed_forward_length": 64, "qwen3moe.expert_count": 4},
    "qwen3-embedding": {"general.architecture": "qwen3", "qwen3.pooling_type": 3},
    "gemma3": {
        "general.architecture": "gemma3",
        "gemma3.attention.sliding_window": 16,
        "gemma3.rope.freq_base": 1e6,
        "gemma3.rope.freq_base_swa": 10000.0,
        "tokenizer.ggml.add_space_prefix": False,
    },
    "gpt-oss": {"general.architecture": "gpt-oss", "general.file_type": 38, "gpt-oss.expert_feed_forward_length": 192},
    "bert": {"bert.pooling_type": 1, "bert.attention.causal": False, "tokenizer.ggml.token_type_count": 2},
    "nomic-bert": {"nomic-bert.context_length": 2048, "nomic-bert.rope.freq_base": 1000.0, "nomic-bert.attention.head_count": 4},
}


@pytest.mark.parametrize("name", METADATA)
def test_metadata(name: str, converted: Convert) -> None:
    with open_gguf(converted(name)) as file:
        assert {key: file.metadata.get(key) for key in METADATA[name]} == METADATA[name]


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_numbers_stay_what_they_are(dtype: str, converted: Convert) -> None:
    checkpoint = dataclasses.replace(CHECKPOINTS["qwen3moe"], dtype=dtype)
    source = tiny_hf.tensors(checkpoint)
    with open_gguf(converted(checkpoint)) as file:
        assert file.tensors["blk.1.attn_q.weight"].type_name == ("BF16" if dtype == "BF16" else "F16")
        assert file.tensors["blk.1.ffn_gate_inp.weight"].type_name == "F32"
        np.testing.assert_array_equal(values(file, "blk.1.attn_q.weight"), source["model.layers.1.self_attn.q_proj.weight"])
        np.testing.assert_array_equal(values(file, "blk.0.ffn_gate_inp.weight"), source["model.layers.0.mlp.gate.weight"])
        for e in range(4):
            expected = source[f"model.layers.1.mlp.experts.{e}.up_proj.weight"]
            np.testing.assert_array_equal(values(file, "blk.1.ffn_up_exps.weight")[e], expected)


def test_gemma_norms_are_shifted(converted: Convert) -> None:
    source = tiny_hf.tensors(CHECKPOINTS["gemma3"])
    with open_gguf(converted("gemma3")) as file:
        np.testing.assert_array_equal(
            values(file, "blk.0.attn_q_norm.weight"), source["model.layers.0.self_attn.q_norm.weight"] + 1
        )
        np.testing.assert_array_equal(values(file, "output_norm.weight"), source["model.norm.weight"] + 1)
        np.testing.assert_array_equal(values(file, "token_embd.weight"), source["model.embed_tokens.weight"])


E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)


def test_gpt_oss_experts_keep_every_value(converted: Convert) -> None:
    source = tiny_hf.tensors(CHECKPOINTS["gpt-oss"])
    prefix = "model.layers.1.mlp.experts."
    blocks, scales = source[prefix + "gate_up_proj_blocks"], source[prefix + "gate_up_proj_scales"]
    numbers = E2M1[np.stack((blocks & 15, blocks >> 4), -1).reshape(*scales.shape, 32)]
    numbers = (numbers * np.exp2(scales.astype(np.float32) - 127)[..., None]).reshape(4, 384, 128)
    with open_gguf(converted("gpt-oss")) as file:
        np.testing.assert_array_equal(values(file, "blk.1.ffn_gate_exps.weight"), numbers[:, ::2])
        np.testing.assert_array_equal(values(file, "blk.1.ffn_up_exps.weight"), numbers[:, 1::2])
        np.testing.assert_array_equal(values(file, "blk.1.ffn_up_exps.bias"), source[prefix + "gate_up_proj_bias"][:, 1::2])
        np.testing.assert_array_equal(values(file, "blk.1.attn_sinks.weight"), source["model.layers.1.self_attn.sinks"])


BLOCK = (64, 48)


def _float8(tmp_path: Path, scales: str, config: dict[str, Any]) -> tuple[dict[str, Path], np.ndarray]:
    """Qwen 3 with one matrix in FP8: the files, and the numbers of the matrix by the definition of E4M3."""
    base = CHECKPOINTS["qwen3"]
    files = tiny_hf.write(tmp_path, dataclasses.replace(base, config={**base.config, "quantization_config": config}))
    rng = np.random.default_rng(8)
    name, shape = "model.layers.1.mlp.down_proj.weight", (128, 192)
    codes = rng.integers(0, 127, shape, np.uint8) | rng.integers(0, 2, shape, np.uint8) << 7
    codes[:2, :2] = [[0, 1], [0x7E, 0xFE]]  # zero, the smallest, and the largest of both signs
    sizes = {"block": (2, 4), "row": (128, 1), "one": (1,)}
    scale = rng.uniform(0.5, 2, sizes[scales]).astype(np.float32)
    tensors = tiny_hf.tensors(base) | {name: codes.view(np.int8), name + "_scale_inv": scale}
    files["model.safetensors"].write_bytes(tiny_hf.safetensors(tensors))
    exponents, fractions = ((codes >> 3) & 15).astype(int), (codes & 7).astype(float)
    numbers = np.where(exponents == 0, np.ldexp(fractions, -9), np.ldexp(8 + fractions, exponents - 10))
    numbers = np.where(codes & 128, -numbers, numbers)
    full = np.kron(scale, np.ones(BLOCK)) if scales == "block" else scale
    return files, (numbers * full).astype(np.float32)


METHODS = {
    "block": {"quant_method": "fp8", "weight_block_size": list(BLOCK)},
    "row": {"quant_method": "fp8"},
    "one": {"quant_method": "compressed-tensors"},
}


@pytest.mark.parametrize("scales", METHODS)
def test_float8_is_multiplied_by_its_scales(scales: str, tmp_path: Path) -> None:
    files, expected = _float8(tmp_path, scales, METHODS[scales])
    for wanted, bound in (("F32", 1e-6), ("", 2**-8)):
        with (tmp_path / "out.gguf").open("wb") as target:
            convert(files, target, lambda done, total: None, wanted)
        with open_gguf(tmp_path / "out.gguf") as file:
            np.testing.assert_allclose(values(file, "blk.1.ffn_down.weight"), expected, rtol=bound)
            assert file.tensors["blk.1.ffn_down.weight"].type_name == (wanted or "BF16")
            assert file.metadata["qwen3.source_quantization"] == "hf_fp8"
            assert file.metadata["qwen3.source_fp8_tensors"] == ["blk.1.ffn_down.weight"]


def test_float8_without_what_it_needs(tmp_path: Path) -> None:
    files, _ = _float8(tmp_path, "block", {"quant_method": "fp8"})
    assert failure(files) == "missing fp8 block size metadata"
    files, _ = _float8(tmp_path, "block", {"quant_method": "fp8", "weight_block_size": [128, 128]})
    assert failure(files) == (
        'unexpected fp8 scale shape [2, 4] for tensor "model.layers.1.mlp.down_proj.weight" shape [128, 192]; want [1, 2]'
    )
    weights = tiny_hf.tensors(CHECKPOINTS["qwen3"])
    weights["model.layers.0.mlp.up_proj.weight"] = np.zeros((192, 128), np.int8)
    files["model.safetensors"].write_bytes(tiny_hf.safetensors(weights))
    assert failure(files) == 'missing fp8 scale companion for tensor "model.layers.0.mlp.up_proj.weight"'


def _fused(turned: bool) -> Checkpoint:
    """Qwen 3's experts in one tensor a layer, as newer libraries keep them."""
    base = CHECKPOINTS["qwen3moe"]
    shapes = {name: shape for name, shape in base.shapes.items() if ".experts." not in name}
    for layer in range(2):
        up, down = ((4, 128, 128), (4, 64, 128)) if turned else ((4, 128, 128), (4, 128, 64))
        shapes |= {f"model.layers.{layer}.mlp.experts.gate_up_proj": up, f"model.layers.{layer}.mlp.experts.down_proj": down}
    return dataclasses.replace(base, shapes=shapes)


@pytest.mark.parametrize("turned", [False, True])
def test_experts_in_one_tensor_are_taken_apart(turned: bool, converted: Convert) -> None:
    checkpoint = _fused(turned)
    source = tiny_hf.tensors(checkpoint)
    up, down = (source[f"model.layers.1.mlp.experts.{part}"] for part in ("gate_up_proj", "down_proj"))
    if turned:
        up, down = up.swapaxes(1, 2), down.swapaxes(1, 2)
    with open_gguf(converted(checkpoint)) as file:
        np.testing.assert_array_equal(values(file, "blk.1.ffn_gate_exps.weight"), up[:, :64])
        np.testing.assert_array_equal(values(file, "blk.1.ffn_up_exps.weight"), up[:, 64:])
        np.testing.assert_array_equal(values(file, "blk.1.ffn_down_exps.weight"), down)


def test_parts_make_the_same_file(converted: Convert) -> None:
    whole = converted("qwen2").read_bytes()
    for file in (converted("qwen2").parent / "hf").iterdir():
        file.unlink()
    assert converted("qwen2", parts=3).read_bytes() == whole


def test_a_wanted_type_counts(converted: Convert) -> None:
    for wanted, number in (("F32", 0), ("F16", 1), ("BF16", 32)):
        with open_gguf(converted("llama", wanted=wanted)) as file:
            assert file.tensors["output.weight"].type_name == wanted
            assert file.metadata["general.file_type"] == number


# ---------------------------------------------------------------- what cannot be converted


def failure(files: dict[str, Path]) -> str:
    with pytest.raises(ConvertError) as caught:
        convert(files, io.BytesIO(), lambda done, total: None)
    return str(caught.value)


def _with_config(tmp_path: Path, **changes: Any) -> dict[str, Path]:
    base = CHECKPOINTS["llama"]
    return tiny_hf.write(tmp_path, dataclasses.replace(base, config={**base.config, **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": []}, "unknown architecture"),
        ({"architectures": ["MambaForCausalLM"]}, 'unsupported architecture "MambaForCausalLM"'),
        ({"num_attention_heads": 0}, "parse config.json: 'num_attention_heads' is 0"),
        ({"num_attention_heads": "many"}, "parse config.json: 'num_attention_heads' is 'many', a count was expected"),
        ({"num_hidden_layers": None}, "parse config.json: 'num_hidden_layers' is missing"),
        ({"num_attention_heads": 3}, "128 rows of blk.0.attn_q.weight are no 3 heads"),
        ({"rope_scaling": {"type": "spiral", "factor": 2.0}}, "parse config.json: unsupported rope scaling 'spiral'"),
        (
            {"quantization_config": {"quant_method": "gptq"}},
            "weights quantized by 'gptq' are not supported; convert the original model",
        ),
    ],
)
def test_a_config_that_does_not_fit(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    assert failure(_with_config(tmp_path, **changes)) == message


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.model"])
def test_a_file_that_is_missing(name: str, tmp_path: Path) -> None:
    files = tiny_hf.write(tmp_path, CHECKPOINTS["llama"])
    del files[name]
    expected = {
        "config.json": "open config.json: no such file or directory",
        "model.safetensors": "unknown tensor format",
        "tokenizer.model": "unknown tokenizer format",
    }
    assert failure(files) == expected[name]


def test_a_part_that_is_missing(tmp_path: Path) -> None:
    files = tiny_hf.write(tmp_path, CHECKPOINTS["llama"], parts=3)
    del files["model-00002-of-00003.safetensors"]
    assert failure(files) == "missing or incomplete model files: model-00002-of-00003.safetensors"


def test_json_that_is_broken(tmp_path: Path) -> None:
    files = tiny_hf.write(tmp_path, CHECKPOINTS["llama"])
    files["config.json"].write_text('{"architectures": ')
    assert failure(files) == "parse config.json: unexpected end of JSON input"
    files["config.json"].write_text('{"architectures": nothing}')
    assert failure(files).startswith("parse config.json: Expecting value")
    files["config.json"].write_text("[" * 100_000)
    assert failure(files) == "parse config.json: exceeded max depth"


def test_a_text_that_is_no_unicode(tmp_path: Path) -> None:
    files = tiny_hf.write(tmp_path, CHECKPOINTS["qwen2"])
    files["tokenizer_config.json"].write_text(r'{"chat_template": "a\ud800"}')
    assert failure(files) == r"the text 'a\ud800' is no Unicode"


def test_infinity_in_a_config_is_no_error(tmp_path: Path) -> None:
    files = tiny_hf.write(tmp_path, CHECKPOINTS["llama"])
    config = json.loads(files["config.json"].read_text()) | {"time_step_limit": [0.0, float("inf")]}
    files["config.json"].write_text(json.dumps(config))
    out = io.BytesIO()
    convert(files, out, lambda done, total: None)
    assert out.getvalue().startswith(b"GGUF")


def test_a_tensor_that_nobody_knows(tmp_path: Path) -> None:
    base = CHECKPOINTS["llama"]
    shapes = base.shapes | {"model.layers.0.self_attn.extra.weight": (4, 4)}
    files = tiny_hf.write(tmp_path, dataclasses.replace(base, shapes=shapes))
    assert failure(files) == "unsupported tensor 'model.layers.0.self_attn.extra.weight'"


def test_an_expert_that_is_missing(tmp_path: Path) -> None:
    base = CHECKPOINTS["mixtral"]
    shapes = {name: shape for name, shape in base.shapes.items() if "layers.1.block_sparse_moe.experts.2.w2" not in name}
    files = tiny_hf.write(tmp_path, dataclasses.replace(base, shapes=shapes))
    assert failure(files) == "an expert of blk.1.ffn_down_exps.weight is missing"


def test_numbers_that_do_not_fit_f16(tmp_path: Path) -> None:
    files = tiny_hf.write(tmp_path, CHECKPOINTS["qwen3"])
    weights = tiny_hf.tensors(CHECKPOINTS["qwen3"])
    weights["model.embed_tokens.weight"][3, 3] = 1e6
    files["model.safetensors"].write_bytes(tiny_hf.safetensors(weights))
    assert failure(files).startswith("tensor token_embd.weight has numbers too large for F16")
