"""config.json: the numbers of a model under their Hugging Face names, each checked when it is asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from runtime.convert.errors import ConvertError
from runtime.convert.source import Source


class Config:
    """The keys of config.json; those of a text model inside a larger one count as its own."""

    def __init__(self, values: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> None:
        inner = values.get("text_config")
        self._values: dict[str, Any] = {**values, **(inner if isinstance(inner, dict) else {})}
        self._defaults = defaults or {}

    def with_defaults(self, defaults: Mapping[str, Any]) -> Config:
        """The same, with values for keys that a file need not have."""
        return Config(self._values, defaults)

    def get(self, *names: str) -> Any:
        """The value of the first name that is there and not null, else a default, else None."""
        for values in (self._values, self._defaults):
            for name in names:
                if values.get(name) is not None:
                    return values[name]
        return None

    def count(self, *names: str) -> int:
        """An integer from 0 on; ConvertError where none of the names has one."""
        value = self.get(*names)
        if value is None:
            raise ConvertError(f"parse config.json: {names[0]!r} is missing")
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if type(value) is not int or not 0 <= value < 1 << 31:
            raise ConvertError(f"parse config.json: {names[0]!r} is {value!r}, a count was expected")
        return value

    def number(self, *names: str) -> float:
        """A finite number; ConvertError where none of the names has one."""
        value = as_number(self.get(*names))
        if value is None:
            raise ConvertError(f"parse config.json: {names[0]!r} is {self.get(*names)!r}, a number was expected")
        return value

    def object(self, *names: str) -> dict[str, Any]:
        """An object; empty where there is none."""
        value = self.get(*names)
        return value if isinstance(value, dict) else {}

    @property
    def heads(self) -> int:
        """Attention heads, at least one."""
        heads = self.count("num_attention_heads", "n_head", "n_heads")
        if not heads:
            raise ConvertError("parse config.json: 'num_attention_heads' is 0")
        return heads

    @property
    def kv_heads(self) -> int:
        """Key heads; as many as heads where the file does not say."""
        return self.count("num_key_value_heads") if self.get("num_key_value_heads") is not None else self.heads

    @property
    def head_dim(self) -> int:
        """Width of a head."""
        if self.get("head_dim") is not None:
            return self.count("head_dim")
        return self.count("hidden_size", "n_embd") // self.heads

    @property
    def layers(self) -> int:
        return self.count("num_hidden_layers", "n_layer", "n_layers")


def as_number(value: Any) -> float | None:
    """A finite number as float, else None."""
    return float(value) if type(value) in (int, float) and math.isfinite(value) else None


def read_config(source: Source) -> tuple[str, Config]:
    """The name of the architecture, and the rest of config.json."""
    values = source.json("config.json")
    names = values.get("architectures")
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise ConvertError("unknown architecture")
    return names[0], Config(values)
