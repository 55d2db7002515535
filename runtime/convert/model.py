"""What a family's converter is given, what it gives back, and what most of them do."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping

from runtime.convert import metadata
from runtime.convert.config import Config
from runtime.convert.errors import ConvertError
from runtime.convert.metadata import Values
from runtime.convert.names import Group, Names, grouped
from runtime.convert.outputs import Output, Piece, Types, whole
from runtime.convert.safetensors import Array, Stored
from runtime.convert.source import Source

DECODER = Names(
    roots={"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output"},
    layers={
        "input_layernorm": "attn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "post_attention_layernorm": "ffn_norm",
    },
)
"""What Llama called its parts, and most decoders after it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Model:
    """A checkpoint. `name`: the architecture as its config calls it."""

    name: str
    source: Source
    config: Config
    tensors: Mapping[str, Stored]
    types: Types


@dataclasses.dataclass(frozen=True, slots=True)
class Recipe:
    """How the GGUF file is made. Keys of `metadata` lack the architecture's name, but for those of the tokenizer."""

    architecture: str
    metadata: Values
    outputs: list[Output]


Change = Callable[[str], Callable[[Array], Array] | None]
"""What is to be done to a tensor of that name, if anything. Its shape stays."""


def recipe(model: Model, architecture: str, names: Names, change: Change, **more: int | float | str | bool) -> Recipe:
    """The whole of a family whose tensors map one to one."""
    outputs = list(plain(model, grouped(names, model.tensors), change))
    return Recipe(architecture, metadata.shared(model.config) | more, outputs)


def plain(model: Model, groups: Mapping[str, Group], change: Change) -> Iterator[Output]:
    """Tensors that stay what they are, but for a change of their numbers; experts are stacked."""
    for name, group in groups.items():
        pieces = [whole(part, change(name)) for part in group.parts]
        yield output(model, name, group.shape, group.parts[0], pieces)


def output(model: Model, name: str, shape: tuple[int, ...], like: Stored, pieces: list[Piece]) -> Output:
    """A tensor in the type that its name, and the type of the tensor it is made of, ask for."""
    return Output(name, shape, model.types.of(name, shape, like.dtype), pieces, like.dtype)


def unchanged(name: str) -> None:
    """The Change of families that store their numbers as GGUF does."""


def split_fused_experts(model: Model, groups: dict[str, Group], width: int) -> Iterator[Output]:
    """Takes the matrices of all experts out of the groups: newer checkpoints keep a layer's experts together.

    Their matrices are (experts, 2 x feed-forward, width), gates first, and (experts, width, feed-forward), or all of them have
    the last two dimensions exchanged.
    """
    names = [name for name in groups if name.endswith("_exps.weight") and not groups[name].experts]
    fused = {name: groups.pop(name).parts[0] for name in names}
    turned = any(
        len(stored.shape) == 3 and stored.shape[2 if "gate_up" in name else 1] != width for name, stored in fused.items()
    )
    for name, stored in fused.items():
        experts, rows, columns = _turned_shape(stored, turned)
        if (columns if "gate_up" in name else rows) != width or ("gate_up" in name and rows % 2):
            raise ConvertError(f"tensor {stored.name!r} has the shape {list(stored.shape)}")
        parts = {name.replace("gate_up", part): rows // 2 for part in ("gate", "up")} if "gate_up" in name else {name: rows}
        for number, (target, count) in enumerate(parts.items()):
            rows_of = slice(number * count, (number + 1) * count)
            pieces = [_expert(stored, e, rows_of, turned) for e in range(experts)]
            yield output(model, target, (experts, count, columns), stored, pieces)


def _turned_shape(stored: Stored, turned: bool) -> tuple[int, int, int]:
    if len(stored.shape) != 3:
        raise ConvertError(f"tensor {stored.name!r} has the shape {list(stored.shape)}")
    experts, rows, columns = stored.shape
    return (experts, columns, rows) if turned else (experts, rows, columns)


def _expert(stored: Stored, number: int, rows: slice, turned: bool) -> Piece:
    """Some rows of one expert's matrix."""

    def read() -> Array:
        matrix: Array = stored.array()[number]
        return (matrix.T if turned else matrix)[rows]

    return Piece(read, stored.drop)
