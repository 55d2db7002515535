"""Writes the converted model: header first, then tensor after tensor, each read only when its turn comes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

from runtime.convert import bert, float8, gemma, gpt_oss, llama, metadata, qwen
from runtime.convert.config import Config, read_config
from runtime.convert.errors import ConvertError
from runtime.convert.model import Model, Recipe
from runtime.convert.outputs import TYPE, Output, Types
from runtime.convert.safetensors import F8, Checkpoint
from runtime.convert.source import Source
from runtime.convert.vocabulary import read_vocabulary
from runtime.gguf_header import MAX_NAME, TensorInfo
from runtime.gguf_writer import head, padded, placed

ARCHITECTURES: Mapping[str, Callable[[Model], Recipe]] = {
    "LlamaForCausalLM": llama.convert,
    "MistralForCausalLM": llama.convert,
    "MixtralForCausalLM": llama.convert,
    "Qwen2ForCausalLM": qwen.convert,
    "Qwen2Model": qwen.convert,
    "Qwen3ForCausalLM": qwen.convert,
    "Qwen3Model": qwen.convert,
    "Qwen3MoeForCausalLM": qwen.convert,
    "Gemma3ForCausalLM": gemma.convert,
    "Gemma3ForConditionalGeneration": gemma.convert,
    "GptOssForCausalLM": gpt_oss.convert,
    "BertModel": bert.convert,
    "BertForMaskedLM": bert.convert,
    "NomicBertModel": bert.convert_nomic,
}
"""Architectures as config.json names them."""

FLOATS = ("F32", "F16", "BF16")
_FILE_TYPES = {"F32": 0, "F16": 1, "BF16": 32, "MXFP4": 38}  # llama.cpp's llama_ftype
_ALIGNMENT = 32

Progress = Callable[[int, int], None]  # bytes done, bytes in all


def convert(files: Mapping[str, Path], target: BinaryIO, progress: Progress, wanted: str = "") -> None:
    """Writes the model of a folder's `files` to `target` as GGUF. `wanted`: the type of matrices, else their own.

    ConvertError says what is wrong with the files; what was written by then is worth nothing.
    """
    source = Source(files)
    name, config = read_config(source)
    if name not in ARCHITECTURES:
        raise ConvertError(f'unsupported architecture "{name}"')
    _refuse_quantized(config, name)
    tensors = float8.scaled(Checkpoint(source), config)
    made = ARCHITECTURES[name](Model(name, source, config, tensors, Types(wanted)))
    outputs = sorted(made.outputs, key=_order)
    write(_metadata(made, outputs, source), outputs, target, progress)


def write(values: metadata.Values, outputs: list[Output], target: BinaryIO, progress: Progress) -> None:
    """The file: metadata, table, and the tensors' bytes."""
    tensors = [_info(output) for output in outputs]
    target.write(head({key: metadata.encode(value) for key, value in values.items()}, placed(tensors, _ALIGNMENT), _ALIGNMENT))
    _write_data(outputs, target, progress)


def _refuse_quantized(config: Config, name: str) -> None:
    method = config.object("quantization_config").get("quant_method")
    kept = float8.METHODS if ARCHITECTURES[name] is not gpt_oss.convert else (*float8.METHODS, "mxfp4")
    if method is not None and method not in kept:
        raise ConvertError(f"weights quantized by {method!r} are not supported; convert the original model")


def _order(output: Output) -> tuple[int, int, str]:
    """Embeddings and what else stands alone, then layer after layer."""
    layer = re.match(r"blk\.(\d+)\.", output.name)
    return (1, int(layer[1]), output.name) if layer else (0, 0, output.name)


def _metadata(made: Recipe, outputs: list[Output], source: Source) -> metadata.Values:
    embeddings = next((output for output in outputs if output.name == "token_embd.weight"), None)
    if embeddings is None or len(embeddings.shape) != 2:
        raise ConvertError("the model has no embeddings of tokens")
    values: metadata.Values = {
        "general.architecture": made.architecture,
        "general.type": "model",
        "general.file_type": _file_type(outputs),
        "general.quantization_version": 2,
    }
    own = {key: value for key, value in made.metadata.items() if key.startswith("tokenizer.")}
    values |= {f"{made.architecture}.{key}": value for key, value in made.metadata.items() if key not in own}
    return values | _origin(made, outputs) | read_vocabulary(source, embeddings.shape[0]) | own


def _origin(made: Recipe, outputs: list[Output]) -> metadata.Values:
    """That weights were FP8, in Ollama's keys: they are worth no more than 8 bits."""
    names = [output.name for output in outputs if output.source == F8]
    keys = {"source_quantization": "hf_fp8", "source_fp8_tensors": names} if names else {}
    return {f"{made.architecture}.{key}": value for key, value in keys.items()}


def _file_type(outputs: list[Output]) -> int:
    """The type of most of the numbers."""
    sizes = dict.fromkeys(_FILE_TYPES, 0)
    for output in outputs:
        sizes[output.kind] += math.prod(output.shape)
    return _FILE_TYPES[max(sizes, key=sizes.__getitem__)]


def _info(output: Output) -> TensorInfo:
    kind = TYPE[output.kind]
    if len(output.name) > MAX_NAME or not 1 <= len(output.shape) <= 4 or 0 in output.shape:
        raise ConvertError(f"tensor {output.name} has the shape {list(output.shape)}")
    return TensorInfo(output.name, output.shape[::-1], kind.id, kind.name, 0, output.nbytes)


def _write_data(outputs: list[Output], target: BinaryIO, progress: Progress) -> None:
    done, total = 0, sum(output.nbytes for output in outputs)
    for output in outputs:
        written = 0
        for block in output.data():
            target.write(block)
            written += len(block)
            progress(done + written, total)
        assert written == output.nbytes, output.name
        target.write(bytes(padded(written, _ALIGNMENT) - written))
        done += written
