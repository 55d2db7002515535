"""Models as Ollama's library has them, where older converters named keys and tensors in another way than llama.cpp does.

The rules are those of Ollama's own llama-ollama-compat.cpp.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping
from typing import Any

from runtime.gguf_file import GGUFFile

ARCHITECTURES = {"gptoss": "gpt-oss", "glm4moelite": "deepseek2"}  # and what llama.cpp calls them
_TENSORS = {".attn_out.": ".attn_output.", ".ffn_norm.": ".post_attention_norm."}  # of gptoss
_OTHERS = ("v.", "mm.", "a.", "model.vision_tower.", "mtp.")  # what tensors for pictures, sound and guesses ahead begin with
_LONG = 131072  # tokens of Gemma 3 models whose positions are stretched


def translated(file: GGUFFile) -> Mapping[str, Any]:
    """The file's metadata as llama.cpp's converter would have written it."""
    return ChainMap(changes(file), file.metadata)  # type: ignore[arg-type]  # the second one is only read


def changes(file: GGUFFile) -> dict[str, Any]:
    """What llama.cpp's converter would have written in another way."""
    change = _CHANGES.get(str(file.metadata.get("general.architecture")))
    return change(file) if change else {}


def tensor_name(file: GGUFFile, name: str) -> str:
    """What a tensor of the file is called by llama.cpp's converter."""
    architecture = file.metadata.get("general.architecture")
    if architecture == "gemma4":
        return name.replace(".ffn_gate_inp.per_expert_scale", ".ffn_down_exps.scale")
    if architecture in ("qwen35", "qwen35moe") and name.endswith(".ssm_dt"):
        return f"{name}.bias"
    if architecture != "gptoss":
        return name
    for old, new in _TENSORS.items():
        name = name.replace(old, new)
    return f"{name}.weight" if name.endswith(".attn_sinks") else name


def is_read(file: GGUFFile, name: str) -> bool:
    """Whether a tensor is one of the text model, and not of its blocks that only guess tokens ahead."""
    if name.startswith("blk."):
        blocks, ahead = (_count(file, key) for key in ("block_count", "nextn_predict_layers"))
        number = name.split(".")[1]
        return not ahead or not number.isdecimal() or int(number) < blocks - ahead
    return not name.startswith(_OTHERS)


def _count(file: GGUFFile, key: str) -> int:
    value = file.metadata.get(f"{file.metadata.get('general.architecture')}.{key}", 0)
    return value if isinstance(value, int) else 0


def _renamed(file: GGUFFile, old: str, new: str) -> dict[str, Any]:
    keys = {key: f"{new}.{key.removeprefix(old + '.')}" for key in file.metadata if key.startswith(old + ".")}
    return {"general.architecture": new} | {name: file.metadata[key] for key, name in keys.items()}


def _gpt_oss(file: GGUFFile) -> dict[str, Any]:
    defaults = {"gpt-oss.rope.scaling.type": "yarn", "tokenizer.ggml.pre": "gpt-4o"}
    return defaults | _renamed(file, "gptoss", "gpt-oss")


def _glm_flash(file: GGUFFile) -> dict[str, Any]:
    """Lengths of keys and values were those of a head; they are now those of what the cache holds."""
    values = _renamed(file, "glm4moelite", "deepseek2")
    latent, rope = values.get("deepseek2.attention.kv_lora_rank"), values.get("deepseek2.rope.dimension_count")
    if isinstance(latent, int) and isinstance(rope, int) and (head := values.get("deepseek2.attention.key_length")):
        values |= {f"deepseek2.attention.{kind}_length_mla": head for kind in ("key", "value")}
        values |= {"deepseek2.attention.key_length": latent + rope, "deepseek2.attention.value_length": latent}
    return values | {"deepseek2.attention.head_count_kv": 1, "tokenizer.ggml.pre": "glm4"}


def _gemma3(file: GGUFFile) -> dict[str, Any]:
    """Keys that were left out, and tokens for pictures that have no embeddings."""
    metadata, cut = file.metadata, _fewer_tokens(file)
    names = "gemma3.rope.global.freq_base", "gemma3.rope.local.freq_base", "gemma3.mm.tokens_per_image"
    signs = *names, "tokenizer.ggml.add_padding_token", "tokenizer.ggml.add_unknown_token"
    complete = "gemma3.attention.layer_norm_rms_epsilon" in metadata and not any(key in metadata for key in signs)
    if complete and not any(name.startswith(_OTHERS) for name in file.tensors):
        return cut
    defaults = {
        "gemma3.attention.layer_norm_rms_epsilon": 1e-6,
        "gemma3.rope.freq_base": metadata.get(names[0], 1e6),
        "gemma3.rope.freq_base_swa": metadata.get(names[1], 1e4),
    }
    if _count(file, "context_length") >= _LONG:
        defaults |= {"gemma3.rope.scaling.type": "linear", "gemma3.rope.scaling.factor": 8.0}
    return cut | {key: value for key, value in defaults.items() if key not in metadata}


def _gemma4(file: GGUFFile) -> dict[str, Any]:
    """The kind of its vocabulary."""
    return {"tokenizer.ggml.model": "gemma4"} if file.metadata.get("tokenizer.ggml.model") == "llama" else {}


def _qwen35(file: GGUFFile) -> dict[str, Any]:
    """Blocks that keep a state were given no key heads."""
    key = f"{file.metadata['general.architecture']}.attention.head_count_kv"
    counts = file.metadata.get(key)
    return {} if counts is None or isinstance(counts, str | int | float) else {key: max([*counts], default=0)}


def _fewer_tokens(file: GGUFFile) -> dict[str, Any]:
    """The arrays of the vocabulary cut to the tokens that have embeddings."""
    table = file.tensors.get("token_embd.weight")
    rows = table.shape[1] if table and len(table.shape) == 2 else 0
    keys = [f"tokenizer.ggml.{name}" for name in ("tokens", "scores", "token_type")]
    counts = {key: file.metadata.array_length(key) or 0 for key in keys if key in file.metadata}
    return {key: file.metadata[key][:rows] for key, count in counts.items() if 0 < rows < count}


_CHANGES: Mapping[str, Callable[[GGUFFile], dict[str, Any]]] = {
    "gptoss": _gpt_oss,
    "glm4moelite": _glm_flash,
    "gemma3": _gemma3,
    "gemma4": _gemma4,
    "qwen35": _qwen35,
    "qwen35moe": _qwen35,
}
