"""LoRA adapters of PEFT and MLX to GGUF: two small matrices for some of a model's, under the names of its tensors."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

from runtime.convert import gemma, llama, qwen
from runtime.convert.config import as_number
from runtime.convert.errors import ConvertError
from runtime.convert.file import Progress, write
from runtime.convert.metadata import Values
from runtime.convert.names import Names
from runtime.convert.outputs import Output, Piece, whole
from runtime.convert.safetensors import Array, Checkpoint, Stored
from runtime.convert.source import Source
from runtime.gguf_file import GGUFFile, open_gguf

NAMES: Mapping[str, Names] = MappingProxyType(
    {
        "llama": llama.NAMES,
        "qwen2": qwen.NAMES,
        "qwen3": qwen.NAMES,
        "qwen3moe": qwen.NAMES,
        "gemma3": gemma.NAMES,
    }
)
"""How the families of a base model call their tensors, by GGUF's architecture."""

_PEFT = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<table>embedding_)?(?P<side>[AB])(?:\.[^.]+)*?(?:\.weight)?")
_MLX = re.compile(r"(?P<module>.+)\.lora_(?P<side>[ab])")  # the other way round: columns first
_TABLE = "token_embd.weight"
_KINDS = ("F32", "F16", "BF16")


@dataclasses.dataclass(frozen=True, slots=True)
class Half:
    """A or B of a pair. `turned`: stored with its dimensions exchanged."""

    stored: Stored
    turned: bool

    @property
    def shape(self) -> tuple[int, int]:
        """Rows first, as it is multiplied."""
        rows, columns = self.stored.shape
        return (columns, rows) if self.turned else (rows, columns)

    def piece(self, change: Callable[[Array], Array] | None) -> Piece:
        """The matrix, turned as it has to be and changed."""
        if self.turned:
            return whole(self.stored, lambda values: change(values.T) if change else values.T)
        return whole(self.stored, change)


Pair = dict[str, Half]  # "a" and "b"


def convert_adapter(files: Mapping[str, Path], base: Path, target: BinaryIO, progress: Progress) -> None:
    """Writes the adapter in `files` for the model in `base`, a GGUF file. ConvertError says what is wrong with it."""
    source = Source(files)
    config = source.json("adapter_config.json")
    with open_gguf(base) as model:
        architecture = model.metadata.get("general.architecture")
        if not isinstance(architecture, str) or architecture not in NAMES:
            raise ConvertError("unsupported architecture")
        pairs = _pairs(Checkpoint(source), NAMES[architecture])
        outputs = [output for name, experts in pairs.items() for output in _outputs(model, name, experts)]
    write(_metadata(config, architecture, outputs), outputs, target, progress)


def _metadata(config: Mapping[str, Any], architecture: str, outputs: list[Output]) -> Values:
    if not outputs:
        raise ConvertError("the adapter changes nothing")
    rank = min(outputs[0].shape[-2:])
    return {
        "general.architecture": architecture,
        "general.type": "adapter",
        "general.file_type": 1,
        "adapter.type": "lora",
        "adapter.lora.alpha": _alpha(config, rank),
    }


def _alpha(config: Mapping[str, Any], rank: int) -> float:
    """The number that, divided by the rank, the change is multiplied by."""
    if config.get("use_dora") or config.get("alpha_pattern"):
        raise ConvertError("adapters with magnitudes (DoRA) or an alpha for each module are not supported")
    mlx = config.get("lora_parameters")
    mlx = mlx if isinstance(mlx, dict) else {}
    alpha = as_number(mlx.get("alpha")) or as_number(config.get("lora_alpha"))
    if alpha is None and (scale := as_number(mlx.get("scale"))) is not None:
        return scale * rank
    if not alpha:
        raise ConvertError("parse adapter_config.json: 'lora_alpha' is missing")
    return alpha * math.sqrt(rank) if config.get("use_rslora") else alpha


def _pairs(tensors: Mapping[str, Stored], names: Names) -> dict[str, dict[int | None, Pair]]:
    """By the name of the tensor that is changed, and the expert."""
    pairs: dict[str, dict[int | None, Pair]] = {}
    for name, stored in tensors.items():
        match = _MLX.fullmatch(name) or _PEFT.fullmatch(name)
        found = names.of(match["module"] + ".weight") if match else None
        if match is None or found is None or len(stored.shape) != 2 or stored.dtype not in _KINDS:
            raise ConvertError(f"unsupported tensor {name!r}")
        half = Half(stored, turned=match["side"].islower())
        pairs.setdefault(found[0], {}).setdefault(found[1], {})[match["side"].lower()] = half
    return pairs


def _outputs(model: GGUFFile, name: str, experts: Mapping[int | None, Pair]) -> Iterator[Output]:
    """A and B for one tensor of the model; those of experts are stacked."""
    info = model.tensors.get(name)
    if info is None:
        raise ConvertError(f"the adapter changes {name!r}, which the model does not have")
    count = info.shape[2] if len(info.shape) > 2 else 0
    wanted = list(range(count)) if count else [None]
    if any(set(experts.get(key, {})) != {"a", "b"} for key in wanted) or len(experts) != len(wanted):
        raise ConvertError(f"the adapter has only a part of {name!r}")
    pairs = [experts[key] for key in wanted]
    _check(name, pairs, info.shape[1::-1])
    for side in ("a", "b"):
        halves = [pair[side] for pair in pairs]
        turned = name == _TABLE and side == "a"  # it is looked up, not multiplied
        change = (lambda values: values.T) if turned else _change(model, name, side)
        shape = halves[0].shape[::-1] if turned else halves[0].shape
        kind = halves[0].stored.dtype
        yield Output(f"{name}.lora_{side}", (count, *shape) if count else shape, kind, [half.piece(change) for half in halves])


def _check(name: str, pairs: list[Pair], shape: tuple[int, ...]) -> None:
    """B A has the shape of what it is added to, and all experts the same rank. A table of embeddings is B A turned."""
    n_out, n_in = shape[::-1] if name == _TABLE else shape
    rank = pairs[0]["a"].shape[0]
    for pair in pairs:
        if pair["a"].shape != (rank, n_in) or pair["b"].shape != (n_out, rank):
            shapes = [list(pair[side].shape) for side in ("a", "b")]
            raise ConvertError(f"the adapter's matrices for {name!r}, {shapes[0]} and {shapes[1]}, do not fit {list(shape)}")


def _change(model: GGUFFile, name: str, side: str) -> Callable[[Array], Array] | None:
    """Rows of queries and keys stand in GGUF's `llama` in another order, so those of their B do."""
    key = {"attn_q": "head_count", "attn_k": "head_count_kv"}.get(name.split(".")[-2])
    if side == "a" or key is None or model.metadata.get("general.architecture") != "llama":
        return None
    heads = model.metadata.get(f"llama.attention.{key}", model.metadata.get("llama.attention.head_count"))
    if not isinstance(heads, int):
        raise ConvertError(f"key 'llama.attention.{key}' of the model is {heads!r}")
    return lambda rows: llama.permute(rows, heads, name)
