"""What a prediction needs to know of a model: its matrices by type, and how many of them a token reads."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from pathlib import Path
from typing import Any

from runtime.gguf_file import TYPES, GGUFFile, open_gguf

FEW = 0.05  # of the values of all layers
TABLES = "token_embd.weight", "position_embd.weight", "token_types.weight"
WINDOWS = {"gemma2": (2, 4096), "gemma3": (6, 0), "gemma4": (6, 0), "gpt-oss": (2, 0), "gptoss": (2, 0)}
"""Architectures most of whose layers look back at a window: every so manieth does not, and the window of files without one."""
_BY_NAME = {kind.name: kind for kind in TYPES.values()}


@dataclasses.dataclass(frozen=True, slots=True)
class Weights:
    """Matrices of one type that are read alike. `values` of all of them; `share` of these a token reads, in [0, 1]."""

    type_name: str
    values: int
    rows: int  # values over the length of a row
    share: float = 1.0
    last_only: bool = False  # the output: in a prompt only the last token needs it

    @property
    def nbytes(self) -> int:
        kind = _BY_NAME[self.type_name]
        return self.values // kind.block_size * kind.block_bytes

    @property
    def bytes_a_token(self) -> float:
        return self.nbytes * self.share

    def scaled(self, factor: float) -> Weights:
        """So many times as many."""
        return dataclasses.replace(self, values=round(self.values * factor), rows=round(self.rows * factor))


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """A model."""

    name: str
    architecture: str
    weights: tuple[Weights, ...]
    table_bytes: int  # an embedding table that is only looked up
    layers: int
    expert_layers: int
    embedding_length: int
    hidden_width: int  # values between the feed-forward matrices of a layer that a token makes, of all its experts
    head_count: int
    query_width: int  # query heads times the values of a key and of a value: the work of attention at each position
    cache_bytes: int  # a token and all layers, in f16
    expert_count: int = 0
    expert_used_count: int = 0
    context_length: int = 0
    makes_vectors: bool = False  # and no text
    recurrent_layers: int = 0  # that keep a state of the text in place of keys and values
    state_values: int = 0  # of these layers, one text
    window: int = 0  # tokens that some layers look back at the most
    window_layers: int = 0  # which are so many

    @property
    def attention_layers(self) -> int:
        """Those that look back."""
        return self.layers - self.recurrent_layers

    def attended(self, tokens: int) -> int:
        """Positions that the last of so many tokens looks at, of all layers."""
        return (self.attention_layers - self.window_layers) * tokens + self.window_layers * min(tokens, self.window)

    @property
    def nbytes(self) -> int:
        """Of all tensors."""
        return sum(part.nbytes for part in self.weights) + self.table_bytes

    @property
    def bytes_a_token(self) -> float:
        """Of weights, without the cache."""
        return sum(part.bytes_a_token for part in self.weights)

    @property
    def expert_bytes(self) -> int:
        """Of all experts."""
        return sum(part.nbytes for part in self.weights if part.share < 1)

    @property
    def usual_types(self) -> tuple[str, str]:
        """The type that most values of the layers have, of experts where there are any, and the second of them: the same again
        where it has few."""
        stacked = [part for part in self.weights if part.share < 1] or [part for part in self.weights if not part.last_only]
        values = Counter[str]()
        for part in stacked:
            values[part.type_name] += part.values
        (first, _), *others = values.most_common(2) or [("Q4_K", 0)]
        second = next((name for name, count in others if count > FEW * values.total()), first)
        return first, second

    @property
    def numbers(self) -> dict[str, int]:
        """What a planner needs to know."""
        sizes = "embedding_length", "hidden_width", "head_count", "query_width", "cache_bytes", "table_bytes"
        fields = "layers", "expert_layers", *sizes
        told = {name: getattr(self, name) for name in (*fields, "expert_count", "expert_used_count", "context_length")}
        outputs = [part for part in self.weights if part.last_only]
        return told | {
            "dense_bytes": self.nbytes - self.expert_bytes,
            "output_bytes": sum(part.nbytes for part in outputs),
            "expert_bytes": self.expert_bytes,
            "n_vocab": sum(part.rows for part in outputs),
        }

    def split(self, first: int) -> tuple[Shape, Shape]:
        """The layers before that one, with the table, and the others, with the output. Layers with experts come last, and else
        all are alike."""
        before = max(0, first - (self.layers - self.expert_layers))  # of those with experts
        return self._layers(first, before, ends=False), self._layers(self.layers - first, self.expert_layers - before, ends=True)

    def _layers(self, layers: int, expert_layers: int, *, ends: bool) -> Shape:
        """So many of them; `ends`: and the output."""
        dense, stacked = layers / max(1, self.layers), expert_layers / max(1, self.expert_layers)
        weights = (
            part if part.last_only else part.scaled(dense if part.share == 1 else stacked)
            for part in self.weights
            if ends or not part.last_only
        )
        return dataclasses.replace(
            self,
            weights=tuple(part for part in weights if part.values),
            table_bytes=0 if ends else self.table_bytes,
            layers=layers,
            expert_layers=expert_layers,
            cache_bytes=int(self.cache_bytes * dense),
            recurrent_layers=round(self.recurrent_layers * dense),
            state_values=int(self.state_values * dense),
            window_layers=round(self.window_layers * dense),
        )

    @property
    def types(self) -> list[str]:
        """Names, sorted."""
        return sorted({part.type_name for part in self.weights})


def of_file(path: Path, name: str) -> Shape:
    """Of a GGUF file; GGUFError or OSError for one that cannot be read."""
    with open_gguf(path) as file:
        return _of(file, name)


def _of(file: GGUFFile, name: str) -> Shape:
    architecture = str(file.metadata.get("general.architecture", ""))
    get = _Keys(dict(file.metadata), architecture)
    layers, width = get("block_count"), get("embedding_length")
    heads = get("attention.head_count", 1)
    heads_kv = get("attention.head_count_kv", heads)
    key = get("attention.key_length", width // max(1, heads))
    value = get("attention.value_length", width // max(1, heads))
    experts, used = get("expert_count", 0), get("expert_used_count", 0)
    makes_vectors = f"{architecture}.pooling_type" in file.metadata
    weights, table = _weights(file, used / experts if experts else 1.0, writes=not makes_vectors)
    window, window_layers = _window(dict(file.metadata), architecture, layers)
    recurrent = sum("ssm_conv1d" in name for name in file.tensors)
    downs = [tensor for tensor in file.tensors.values() if "ffn_down" in tensor.name]
    return Shape(
        name=name,
        architecture=architecture,
        weights=weights,
        table_bytes=table,
        layers=layers,
        expert_layers=sum(len(tensor.shape) == 3 for tensor in downs),
        embedding_length=width,
        hidden_width=max((tensor.shape[0] * (used if len(tensor.shape) == 3 else 1) for tensor in downs), default=0),
        head_count=heads,
        query_width=heads * (key + value),
        cache_bytes=2 * (layers - recurrent) * heads_kv * (key + value),
        expert_count=experts,
        expert_used_count=used,
        context_length=get("context_length", 0),
        makes_vectors=makes_vectors,
        recurrent_layers=recurrent,
        state_values=recurrent * get("ssm.inner_size", 0) * get("ssm.state_size", 0),
        window=window,
        window_layers=window_layers if window else 0,
    )


def _window(metadata: dict[str, Any], architecture: str, layers: int) -> tuple[int, int]:
    """Tokens that layers with a window look back at, and how many such layers there are."""
    if architecture not in WINDOWS:
        return 0, 0
    period, usual = WINDOWS[architecture]
    pattern = metadata.get(f"{architecture}.attention.sliding_window_pattern", period)
    if isinstance(pattern, (int, float, str)):
        pattern = pattern if isinstance(pattern, int) else period
        pattern = [pattern == 0 or layer % pattern < pattern - 1 for layer in range(layers)]
    return _Keys(metadata, architecture)("attention.sliding_window", usual), sum(map(bool, pattern[:layers]))


class _Keys:
    """Numbers of `<architecture>.<key>`; 0 for what is missing or no number, the largest where layers differ."""

    def __init__(self, metadata: dict[str, Any], architecture: str) -> None:
        self._metadata, self._architecture = metadata, architecture

    def __call__(self, key: str, default: int = 0) -> int:
        value = self._metadata.get(f"{self._architecture}.{key}", default)
        if isinstance(value, (int, float, str)):
            return int(value) if isinstance(value, int) else default
        return max((int(item) for item in value), default=default)


def _weights(file: GGUFFile, share: float, *, writes: bool) -> tuple[tuple[Weights, ...], int]:
    """Matrices by type and use, and the bytes of tables that are only looked up. `writes`: the model has an output, which may be
    its table of tokens."""
    tied = writes and "output.weight" not in file.tensors
    values: Counter[tuple[str, float, bool]] = Counter()
    rows: Counter[tuple[str, float, bool]] = Counter()
    table = 0
    for tensor in file.tensors.values():
        if tensor.name in TABLES and not (tied and tensor.name == TABLES[0]):
            table += tensor.nbytes
            continue
        output = tensor.name == "output.weight" or (tied and tensor.name == TABLES[0])
        key = tensor.type_name, share if len(tensor.shape) == 3 else 1.0, output
        values[key] += math.prod(tensor.shape)
        rows[key] += math.prod(tensor.shape[1:]) if len(tensor.shape) > 1 else 0  # norms and biases are no products
    return tuple(Weights(key[0], values[key], rows[key], *key[1:]) for key in sorted(values)), table
