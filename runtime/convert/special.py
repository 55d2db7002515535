"""Tokens with a meaning: which ids they have, and which of them a text begins and ends with.

The rules are those of llama.cpp's converters (gguf-py, vocab.py), which read three files that may contradict each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from runtime.convert.metadata import Values
from runtime.convert.source import Source

# kind of token in Hugging Face's files -> name in GGUF's keys
_KINDS = {
    "bos": "bos",
    "eos": "eos",
    "unk": "unknown",
    "sep": "seperator",  # the format's spelling
    "pad": "padding",
    "cls": "cls",
    "mask": "mask",
    "eot": "eot",
}


class Special:
    """What the files of a tokenizer say about its special tokens."""

    def __init__(self, source: Source, ids: Mapping[str, int]) -> None:
        self._source = source
        self._ids = ids
        settings = source.json_or_empty("tokenizer_config.json")
        self._texts = {kind: text for kind in _KINDS if (text := content(settings.get(f"{kind}_token")))}
        self._adds: dict[str, bool] = {}
        tokenizer = source.json_or_empty("tokenizer.json")
        if tokenizer:
            self._texts.setdefault("bos", self._texts.get("cls", ""))
            self._texts.setdefault("eos", self._texts.get("sep", ""))
            self._read_processors(tokenizer.get("post_processor"))
        for kind in ("bos", "eos", "sep"):
            stated = settings.get(f"add_{kind}_token")
            if isinstance(stated, bool):
                self._adds.setdefault(kind, stated)

    def values(self) -> Values:
        """The keys of the tokenizer."""
        values: Values = {f"tokenizer.ggml.{_KINDS[kind]}_token_id": number for kind, number in self._numbers().items()}
        ends = self._ends()
        if len(ends) > 1:
            values["tokenizer.ggml.eos_token_ids"] = np.array(ends, np.int32)
            values.setdefault("tokenizer.ggml.eos_token_id", ends[0])
        return values | {f"tokenizer.ggml.add_{kind}_token": add for kind, add in self._adds.items()}

    def _numbers(self) -> dict[str, int]:
        """By the tokens' texts, else by the numbers of config.json."""
        found = {kind: self._ids[text] for kind, text in self._texts.items() if text in self._ids}
        config = self._source.json_or_empty("config.json")
        inner = config.get("text_config")
        for kind in _KINDS:
            number = config.get(f"{kind}_token_id")
            if number is None and isinstance(inner, dict):
                number = inner.get(f"{kind}_token_id")
            if type(number) is int and 0 <= number < len(self._ids):
                found.setdefault(kind, number)
        return found

    def _ends(self) -> list[int]:
        """All tokens that end an answer, where there are several; Ollama's converter keeps them under a key of its own."""
        for file in ("generation_config.json", "config.json"):
            numbers = self._source.json_or_empty(file).get("eos_token_id")
            if isinstance(numbers, list) and all(type(n) is int and 0 <= n < len(self._ids) for n in numbers):
                return numbers
        return []

    # ------------------------------------------------------------ what is put around a text

    def _read_processors(self, described: Any) -> None:
        if not isinstance(described, dict):
            return
        inner = described.get("processors")
        for processor in inner if isinstance(inner, list) else [described]:
            kind = processor.get("type") if isinstance(processor, dict) else None
            if kind == "ByteLevel":
                self._adds.setdefault("bos", False)
                self._adds.setdefault("eos", False)
            elif kind in ("RobertaProcessing", "BertProcessing"):
                self._adds |= {"bos": True, "eos": True, "sep": kind == "RobertaProcessing"}
            elif kind == "TemplateProcessing":
                self._read_template(processor)

    def _read_template(self, processor: Mapping[str, Any]) -> None:
        single = _specials(processor.get("single"))
        if len(single) < 2:
            return
        if first := single[0]:
            self._texts["bos"] = self._texts.get("bos") or first
            self._adds["bos"] = first in (self._texts["bos"], self._texts.get("cls"))
        if last := single[-1]:
            self._end_with(last)
        self._adds["sep"] = self._separates(_specials(processor.get("pair")), first, last)

    def _end_with(self, last: str) -> None:
        """The token after a text is EOS; one that was called so ends turns then."""
        before = self._texts.get("eos")
        if before and before != last:
            self._texts.setdefault("eot", before)
        self._texts["eos"] = last
        self._adds["eos"] = True

    def _separates(self, pair: list[str], first: str, last: str) -> bool:
        """Whether two texts have a separator between them beside what ends the first."""
        inner = pair[bool(first) : len(pair) - bool(last)]
        between = [text for text in inner if text]
        known = (self._texts.get("sep"), self._texts.get("eos"))
        return (bool(between) and between[0] in known and not last) or (len(between) == 2 and between[1] in known)


def _specials(template: Any) -> list[str]:
    """The special tokens of a template, and empty texts where the texts go."""
    if not isinstance(template, list):
        return []
    entries = (entry.get("SpecialToken") if isinstance(entry, dict) else None for entry in template)
    return [str(entry.get("id", "")) if isinstance(entry, dict) else "" for entry in entries]


def content(token: Any) -> str:
    """The text of a token that is given as such or as an object."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else ""
