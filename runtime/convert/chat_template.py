"""The chat template of a checkpoint: in tokenizer_config.json, or in a file of its own."""

from __future__ import annotations

from typing import Any

from runtime.convert.metadata import Values
from runtime.convert.source import Source


def chat_template(source: Source) -> Values:
    """`tokenizer.chat_template`, and `tokenizer.chat_template.NAME` for those that are not the default."""
    found = source.json_or_empty("tokenizer_config.json").get("chat_template")
    if found is None and "chat_template.jinja" in source:
        found = source.text("chat_template.jinja")
    if found is None:
        found = source.json_or_empty("chat_template.json").get("chat_template")
    if isinstance(found, str):
        return {"tokenizer.chat_template": found} if found else {}
    return _named(found) if isinstance(found, list) else {}


def _named(entries: list[Any]) -> Values:
    values: Values = {}
    for entry in entries:
        name, text = (entry.get(key) for key in ("name", "template")) if isinstance(entry, dict) else (None, None)
        if isinstance(name, str) and isinstance(text, str):
            values["tokenizer.chat_template" if name == "default" else f"tokenizer.chat_template.{name}"] = text
    return values
