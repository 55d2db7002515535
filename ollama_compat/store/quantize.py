"""Quantising in /api/create: which types may be asked for, and a layer in another type."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ollama_compat import job_steps
from ollama_compat.errors import InternalError
from ollama_compat.store import Making, manifests
from ollama_compat.store.header import FILE_TYPES, ModelHeader
from ollama_compat.store.sources import Part, Steps, existing, hold

_UNQUANTIZED = ("F16", "BF16", "F32")
_OLLAMAS = ("F32", "F16", "BF16", "Q8_0", "Q4_K_S", "Q4_K_M")
_ALIASES: Mapping[str, str] = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}
_FOREIGN = ("NVFP4", "Q1_0")  # file types that llama-quantize's mixes do not include here
_DIGEST = "0000000000000000000"  # what Ollama sends

# Ollama keeps these tensors in better types when an architecture is quantised to 4 bits
_FOUR_BITS = ("Q4_K_S", "Q4_K_M")
_GLM = ((r"^token_embd\.weight$", "F16"), (r"^output\.weight$", "F16"))
_KEPT_BETTER: Mapping[str, tuple[tuple[str, str], ...]] = {
    **dict.fromkeys(("qwen35", "qwen35moe"), ((r"^blk\.[0-9]+\.nextn\.eh_proj\.weight$", "Q8_0"),)),
    "gemma3n": ((r"^per_layer_token_embd\.weight$", "F16"),),
    "deepseek2": tuple((rf"attn_{part}\.weight$", "Q8_0") for part in ("k_b", "q_a", "q_b", "v_b", "kv_a_mqa")),
    **dict.fromkeys(("glmocr", "glm4"), _GLM),
}
_OTHER_MODELS = (r"^(a|mm|mtp|s|v)\.", "")  # eyes, ears and such inside a text model's file stay as they are


def target(level: str) -> str:
    """The mix that a request's level means; InternalError with Ollama's words for one that it does not know.

    Ollama takes a level in any case, but knows few. Those that only we can make are taken unless they are all lower case:
    the requests for them that clients make of Ollama go on being refused as Ollama refuses them.
    """
    name = _ALIASES.get(level.upper(), level.upper())
    known = name in _OLLAMAS and level.upper() in (*_OLLAMAS, "Q4_K")
    if known or (name in FILE_TYPES.values() and name not in _FOREIGN and level != level.lower()):
        return name
    listed = "F32, F16, Q4_K_S, Q4_K_M, Q8_0"
    raise InternalError(f"unsupported quantization type {level.upper()} - supported types are {listed}")


def unasked(part: Part) -> str:
    """The level for a model of which the request says nothing: what was made of FP8 weights becomes Q8_0, as by Ollama."""
    header = part.header
    was_float8 = header is not None and header.text("source_quantization") == "hf_fp8" and header.has("source_fp8_tensors")
    return "Q8_0" if header and was_float8 and header.named_file_type in _UNQUANTIZED else ""


def needed(part: Part, level: str) -> bool:
    """Whether the layer has to be made anew for that level; InternalError when it cannot be."""
    if not level or part.header is None:
        return False
    mix, have = target(level), part.header.named_file_type or part.header.file_type  # what Ollama shows hides F32
    if part.layer.media_type == manifests.DRAFT and have not in _UNQUANTIZED:
        raise InternalError(f"draft quantization requires an unquantized draft model, got {have}")
    if have not in _UNQUANTIZED:
        raise InternalError("quantization is only supported for F16, BF16 and F32 models")
    return have != mix


def overrides(architecture: str, mix: str) -> list[tuple[str, str]]:
    """Tensors that do not get what the mix would give them: the pattern of their names, and their type; "" keeps them."""
    return [_OTHER_MODELS, *(_KEPT_BETTER.get(architecture, ()) if mix in _FOUR_BITS else ())]


def quantized(making: Making, part: Part, level: str, matrix: Mapping[str, str] | None = None) -> Steps:
    """The layer with its tensors in the types of that level. Tells its progress as Ollama does.

    `matrix`: name and digest of the file of an importance matrix.
    """
    assert part.header is not None
    status = f"quantizing {part.header.file_type} model to {level.upper()}"
    line = {"status": status, "digest": _DIGEST, "total": part.layer.size}
    mix = target(level)
    work: dict[str, Any] = {"mix": mix, "overrides": overrides(part.header.architecture, mix)}
    for name, digest in (matrix or {}).items():
        hold(making, digest)
        work["matrix"] = str(making.path(digest)), Path(name).name
    with making.writer() as writer:
        work |= {"source": str(making.path(part.layer.digest)), "target": str(writer.path)}
        for done in job_steps.steps("quantize", work):
            yield line | {"completed": part.layer.size * done.completed // done.total if done.total else 0}
        yield {"status": "verifying conversion"}
        for _ in writer.scan():
            yield {"status": "verifying conversion"}
        layer, is_new = making.finish(part.layer.media_type, writer)
    header = ModelHeader.read(making.path(layer.digest))
    told = f"creating new layer {layer.digest}" if is_new else existing(layer.digest)
    return dataclasses.replace(part, layer=layer, status=told, header=header)
