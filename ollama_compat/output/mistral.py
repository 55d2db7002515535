"""`[TOOL_CALLS][{"name": ..., "arguments": {...}, "id": ...}, ...]`: Mistral 7B v0.3, Nemo, Mixtral 8x22B and their time."""

from __future__ import annotations

from collections.abc import Sequence

from ollama_compat.output.tagged import CallTags, TaggedCalls

_TAGS = CallTags("[TOOL_CALLS]", "]", before=r"\s*\[?\s*")
_LATER = ("[ARGS]", "[CALL_ID]")  # in templates that write `[TOOL_CALLS]name[ARGS]{...}`


def matches(source: str) -> bool:
    """Whether the Jinja template `source` writes tool calls in this way."""
    return _TAGS.start in source and not any(later in source for later in _LATER)


def make(names: Sequence[str], fresh: bool) -> TaggedCalls:
    """The parser; it takes calls of tools that are not among `names`, too."""
    return TaggedCalls(_TAGS, fresh=fresh)
