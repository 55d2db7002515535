"""What the store knows of a GGUF file: its metadata without the arrays, and the facts that lists and answers show."""

from __future__ import annotations

import array
import base64
import dataclasses
import math
import os
from collections.abc import Mapping
from typing import Any

from runtime.gguf_file import GGUFFile, open_gguf

# names of llama.cpp's llama_ftype, as Ollama writes them; numbers that are missing were removed from the format
FILE_TYPES: Mapping[int, str] = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4_MOE",
    39: "NVFP4",
    40: "Q1_0",
}
UNKNOWN = "unknown"

_COMPATIBILITY_TENSORS = ("a.", "mm.", "mtp.", "s.", "v.")  # parts of other models inside a text model's file


def human_number(n: int) -> str:
    """A number of parameters for people: 30.5B, 21.13M, 293K."""
    if n >= 1_000_000_000:
        return f"{n / 1e9:.0f}B" if n % 1_000_000_000 == 0 else f"{n / 1e9:.1f}B"
    if n >= 1_000_000:
        return f"{n / 1e6:.0f}M" if n % 1_000_000 == 0 else f"{n / 1e6:.2f}M"
    return f"{n / 1e3:.0f}K" if n >= 1000 else str(n)


@dataclasses.dataclass(frozen=True, slots=True)
class ModelHeader:
    """Metadata that is no array, with the names of its types, in the file's order; and what the tensors add up to."""

    metadata: Mapping[str, Any]
    types: Mapping[str, str]  # of every key, arrays too: "uint32", "array[string]"
    parameter_count: int
    has_compatibility_tensors: bool

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> ModelHeader:
        """The header of a file; GGUFError, or OSError when it cannot be read."""
        with open_gguf(path, follow_split=False) as file:
            return cls.of(file)

    @classmethod
    def of(cls, file: GGUFFile) -> ModelHeader:
        """The header of an open file; it outlives the file."""
        types = {key: file.metadata.type_name(key) for key in file.metadata}
        return cls(
            metadata={key: file.metadata[key] for key, kind in types.items() if not kind.startswith("array")},
            types=types,
            parameter_count=sum(math.prod(tensor.shape) for tensor in file.tensors.values()),
            has_compatibility_tensors=any(name.startswith(_COMPATIBILITY_TENSORS) for name in file.tensors),
        )

    @property
    def architecture(self) -> str:
        """`general.architecture`"""
        return self.text("general.architecture") or UNKNOWN

    @property
    def kind(self) -> str:
        """`general.type`: model, adapter, projector, ..."""
        return self.text("general.type") or UNKNOWN

    @property
    def chat_template(self) -> str:
        """The Jinja template; empty when there is none."""
        return self.text("tokenizer.chat_template")

    @property
    def file_type(self) -> str:
        """The quantisation's name. Like Ollama this takes type 0 (F32) for a file that names none."""
        return self.named_file_type if self.count("general.file_type") else UNKNOWN

    @property
    def named_file_type(self) -> str:
        """As `file_type`, but F32 is F32; empty when the file names none."""
        if "general.file_type" not in self.types:
            return ""
        return FILE_TYPES.get(self.count("general.file_type"), UNKNOWN)

    def text(self, key: str) -> str:
        """A string; empty when the key is missing or something else."""
        value = self.metadata.get(self.key(key))
        return value if isinstance(value, str) else ""

    def count(self, key: str) -> int:
        """A uint32; 0 when the key is missing or something else."""
        key = self.key(key)
        return int(self.metadata[key]) if self.types.get(key) == "uint32" else 0

    def flag(self, key: str) -> bool:
        """A boolean; False when the key is missing or something else."""
        return self.metadata.get(self.key(key)) is True

    def has(self, key: str) -> bool:
        """Whether the key is there, as an array too."""
        return self.key(key) in self.types

    def key(self, key: str) -> str:
        """The key in full: those that are not general or of the tokenizer begin with the architecture."""
        if key.startswith(("general.", "tokenizer.")):
            return key
        return f"{self.metadata.get('general.architecture') or UNKNOWN}.{key}"

    @property
    def is_projector(self) -> bool:
        """Whether the file is the eyes or ears of another model."""
        if self.kind in ("projector", "mmproj"):
            return True
        if self.count("block_count"):
            return False
        encodes = self.flag("has_vision_encoder") or self.flag("has_audio_encoder")
        return self.count("vision.block_count") > 0 or (self.architecture == "clip" and encodes)


def model_info(file: GGUFFile, verbose: bool) -> dict[str, Any]:
    """The metadata as /api/show gives it, sorted by key. Arrays are null, and written out only if `verbose`."""
    metadata = file.metadata
    info = {key: _value(file, key, verbose) for key in metadata}
    info["general.parameter_count"] = sum(math.prod(tensor.shape) for tensor in file.tensors.values())
    return dict(sorted(info.items(), key=lambda item: item[0].encode()))


def _value(file: GGUFFile, key: str, verbose: bool) -> Any:
    kind = file.metadata.type_name(key)
    if kind.startswith("array"):
        return _array(file, key, kind) if verbose or not file.metadata.array_length(key) else None
    value = file.metadata[key]
    return shortest_float(value, kind) if isinstance(value, float) else value


def _array(file: GGUFFile, key: str, kind: str) -> Any:
    values = file.metadata[key]
    if kind == "array[uint8]":  # Go's encoder takes bytes for bytes
        return base64.b64encode(values.tobytes()).decode()
    if isinstance(values, array.array) and values.typecode in "fd":
        return [shortest_float(value, kind) for value in values]
    return list(values)


def shortest_float(value: float, kind: str) -> int | float | None:
    """The number as Go's JSON shows a float of that type: the shortest one that means it, an integer where it is one."""
    if not math.isfinite(value):
        return None
    if value.is_integer() and abs(value) < 1e21:
        return int(value)
    return value if "64" in kind else _shortest32(value)


def _shortest32(value: float) -> float:
    for digits in range(1, 9):
        text = f"{value:.{digits}g}"
        if array.array("f", [float(text)])[0] == value:
            return float(text)
    return float(f"{value:.9g}")
