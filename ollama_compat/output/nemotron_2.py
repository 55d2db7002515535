"""`<TOOLCALL>[{"name": ..., "arguments": {...}}, ...]</TOOLCALL>`: Nemotron Nano 2."""

from __future__ import annotations

from collections.abc import Sequence

from ollama_compat.output.tagged import CallTags, TaggedCalls

_TAGS = CallTags("<TOOLCALL>", "]</TOOLCALL>", before=r"\s*\[?\s*")


def matches(source: str) -> bool:
    """Whether the Jinja template `source` writes tool calls in this way."""
    return "<TOOLCALL>[" in source


def make(names: Sequence[str], fresh: bool) -> TaggedCalls:
    """The parser; it takes calls of tools that are not among `names`, too."""
    return TaggedCalls(_TAGS, fresh=fresh)
