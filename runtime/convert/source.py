"""The files of a Hugging Face model, by the names that they have in its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtime.convert.errors import ConvertError

MAX_JSON = 1 << 30  # bytes

_NOT_FINITE: Mapping[str, float] = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


class Source:
    """Names, relative to the model's folder, and where the files really are."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self.files = files

    def __contains__(self, name: str) -> bool:
        return name in self.files

    def path(self, name: str) -> Path:
        """Where the file is; ConvertError in Go's words where there is none."""
        if name not in self.files or not self.files[name].is_file():
            raise ConvertError(f"open {name}: no such file or directory")
        return self.files[name]

    def text(self, name: str) -> str:
        """A text file; ConvertError for one that is none."""
        path = self.path(name)
        if path.stat().st_size > MAX_JSON:
            raise ConvertError(f"{name} is too large")
        try:
            return path.read_text("utf-8-sig")
        except UnicodeDecodeError:
            raise ConvertError(f"{name} is not UTF-8") from None

    def json(self, name: str) -> dict[str, Any]:
        """The JSON object in a file. NaN and infinities, which some exporters write, are allowed."""
        value = self.json_value(name)
        if not isinstance(value, dict):
            raise ConvertError(f"parse {name}: an object was expected")
        return value

    def json_value(self, name: str) -> Any:
        """The JSON value in a file."""
        text = self.text(name)
        try:
            return json.loads(text, parse_constant=_NOT_FINITE.__getitem__)
        except json.JSONDecodeError as error:
            at_end = error.pos >= len(text.rstrip())  # in Go's words, as Ollama has it
            raise ConvertError(f"parse {name}: {'unexpected end of JSON input' if at_end else error}") from None
        except RecursionError:
            raise ConvertError(f"parse {name}: exceeded max depth") from None

    def json_or_empty(self, name: str) -> dict[str, Any]:
        """The same, and nothing where the file is missing."""
        return self.json(name) if name in self else {}
