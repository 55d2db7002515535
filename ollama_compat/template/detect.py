"""Known Jinja templates, for which Ollama has a Go template: found by edit distance (`template/template.go`)."""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
import json
from typing import Any

from ollama_compat.template.distance import distance

_NEAR = 100  # edits; Ollama takes what is nearer


@dataclasses.dataclass(frozen=True, slots=True)
class _Known:
    name: str
    jinja: str


def _read(file: str) -> str:
    text = (importlib.resources.files("ollama_compat") / "data" / "templates" / file).read_text("utf-8")
    return text.replace("\r\n", "\n")


@functools.cache
def _index() -> tuple[_Known, ...]:
    return tuple(_Known(entry["name"], entry["template"]) for entry in json.loads(_read("index.json")))


def named(jinja: str) -> str | None:
    """The name of the nearest known template, when it is near; of equally near ones the first in the index."""
    best, limit = None, _NEAR - 1
    for known in _index():
        found = distance(jinja, known.jinja, limit)
        if found is not None:
            best, limit = known.name, found - 1
        if limit < 0:
            break
    return best


def template(name: str) -> str:
    """The text of the Go template that stands for it."""
    return _read(f"{name}.gotmpl")


def params(name: str) -> dict[str, Any]:
    """The parameters that belong to it: `stop`, where it has any."""
    try:
        loaded: dict[str, Any] = json.loads(_read(f"{name}.json"))
    except FileNotFoundError:
        return {}
    return loaded
