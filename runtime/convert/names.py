"""From the names of a checkpoint's tensors to those of GGUF."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from runtime.convert.errors import ConvertError
from runtime.convert.safetensors import Stored

_LAYER = re.compile(r"(?:layers?|h)\.(\d+)\.(.+)")
_EXPERT = re.compile(r"(.*\bexperts)\.(\d+)\.(.+)")
_SUFFIX = re.compile(r"(.+)\.(weight|bias)")
_USELESS = (".rotary_emb.inv_freq", ".attention.masked_bias", ".attention.bias")  # buffers that old checkpoints carry


@dataclasses.dataclass(frozen=True, slots=True)
class Names:
    """How a family calls its tensors, without `.weight` and `.bias`. `layers` are names within a layer."""

    roots: Mapping[str, str]
    layers: Mapping[str, str]
    prefixes: tuple[str, ...] = ("language_model.model.", "model.language_model.", "language_model.", "model.")
    skipped: tuple[str, ...] = ()  # beginnings of names that the text model does without

    def of(self, name: str) -> tuple[str, int | None] | None:
        """GGUF's name, and the number of the expert; None for what is not needed. ConvertError for a stranger."""
        if name.endswith(_USELESS):
            return None
        short = next((name.removeprefix(prefix) for prefix in self.prefixes if name.startswith(prefix)), name)
        if any(text.startswith(skipped) for skipped in self.skipped for text in (name, short)):
            return None
        found = self._in_layer(short) if _LAYER.fullmatch(short) else (_mapped(short, self.roots), None)
        if found[0] is None:
            raise ConvertError(f"unsupported tensor {name!r}")
        return found[0], found[1]

    def _in_layer(self, short: str) -> tuple[str | None, int | None]:
        match = _LAYER.fullmatch(short)
        assert match is not None
        rest, expert = match[2], None
        if inner := _EXPERT.fullmatch(rest):
            rest, expert = f"{inner[1]}.{inner[3]}", int(inner[2])
        found = _mapped(rest, self.layers)
        return (f"blk.{int(match[1])}.{found}" if found else None), expert


def _mapped(name: str, table: Mapping[str, str]) -> str | None:
    """Names stand in a table without their suffix, or as a whole."""
    if name in table:
        return table[name]
    match = _SUFFIX.fullmatch(name)
    return f"{table[match[1]]}.{match[2]}" if match and match[1] in table else None


@dataclasses.dataclass(frozen=True, slots=True)
class Group:
    """What becomes one tensor: one of the checkpoint's, or the same one of all experts."""

    parts: list[Stored]
    experts: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole, rows first."""
        return (len(self.parts), *self.parts[0].shape) if self.experts else self.parts[0].shape


def grouped(names: Names, tensors: Mapping[str, Stored]) -> dict[str, Group]:
    """GGUF's names and what they are made of; ConvertError where an expert is missing or a name is there twice."""
    found: dict[str, dict[int | None, Stored]] = {}
    for name, tensor in tensors.items():
        key = names.of(name)
        if key is None:
            continue
        parts = found.setdefault(key[0], {})
        if key[1] in parts or None in parts:
            raise ConvertError(f"duplicate tensor name '{key[0]}' was found for this model")
        parts[key[1]] = tensor
    return {name: _group(name, parts) for name, parts in found.items()}


def _group(name: str, parts: Mapping[int | None, Stored]) -> Group:
    if None in parts:
        return Group([parts[None]], experts=False)
    if set(parts) != set(range(len(parts))):
        raise ConvertError(f"an expert of {name} is missing")
    if len({part.shape for part in parts.values()}) != 1:
        raise ConvertError(f"the experts of {name} differ in shape")
    return Group([parts[number] for number in range(len(parts))], experts=True)
