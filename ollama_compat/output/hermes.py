"""`<tool_call>{"name": ..., "arguments": {...}}</tool_call>`: Hermes 2 and 3, Qwen 2.5 and 3, Granite 4, demo-moe."""

from __future__ import annotations

from collections.abc import Sequence

from ollama_compat.output.tagged import CallTags, TaggedCalls

_TAGS = CallTags("<tool_call>", "</tool_call>", never="<")
_OTHERS = ("<function=", "<arg_key>", "<tool_calls>", "<TOOLCALL>")  # in templates that write something else behind the tag


def matches(source: str) -> bool:
    """Whether the Jinja template `source` writes tool calls in this way."""
    return _TAGS.start in source and not any(other in source for other in _OTHERS)


def make(names: Sequence[str], fresh: bool) -> TaggedCalls:
    """The parser; it takes calls of tools that are not among `names`, too."""
    return TaggedCalls(_TAGS, fresh=fresh)
