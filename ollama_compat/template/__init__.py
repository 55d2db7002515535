"""Chat templates: Jinja in a sandboxed child process, Go templates in their own interpreter, and text that must stay text.

A rendered prompt is tokenized with its control tokens active. So everything in it that a client wrote goes through
`protect` first: a control token's text gets a BREAK behind its first character, where the tokenizer cuts it in two.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from runtime.frames import BREAK


def protect(text: str, control_tokens: Sequence[str]) -> str:
    """`text` with a BREAK inside every control token's text. A BREAK of the text's own is dropped, so it is idempotent."""
    text = text.replace(BREAK, "")
    pattern = _first_characters(tuple(control_tokens))
    return text if pattern is None else pattern.sub(lambda match: match[0] + BREAK, text)


def protect_value(value: Any, control_tokens: Sequence[str]) -> Any:
    """A copy of a JSON value (tool definitions, arguments) with every string in it protected, keys too."""
    if isinstance(value, str):
        return protect(value, control_tokens)
    if isinstance(value, Mapping):
        return {protect(str(key), control_tokens): protect_value(item, control_tokens) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [protect_value(item, control_tokens) for item in value]
    return value


def protect_messages(messages: Sequence[Mapping[str, Any]], control_tokens: Sequence[str]) -> list[dict[str, Any]]:
    """Copies of Ollama messages with all text protected that did not come from the template or the model.

    What an assistant said (`content`, `thinking`) only loses its BREAKs: templates look in it for tags such as
    `</think>`, which are control tokens in some vocabularies. The arguments of its tool calls are protected.
    """
    return [_protect_message(message, control_tokens) for message in messages]


_DEPTH = 128  # characters of a token that are looked at: a deeper trie would overflow the compiler of regular expressions
_SAID = ("content", "thinking", "reasoning_content")


def _protect_message(message: Mapping[str, Any], control_tokens: Sequence[str]) -> dict[str, Any]:
    said = _SAID if message.get("role") == "assistant" else ()
    return {
        key: value if key == "images" else protect_value(value, () if key in said else control_tokens)
        for key, value in message.items()
    }


@functools.lru_cache(maxsize=16)
def _first_characters(control_tokens: tuple[str, ...]) -> re.Pattern[str] | None:
    """Matches the first character of every place where a control token's text begins, overlapping ones too.

    A token of one character has no inside to cut and is left out. The tokens become one trie, so that the time stays
    linear for a text that is nothing but beginnings of tokens.
    """
    trie: dict[str, Any] = {}
    for token in control_tokens:
        if len(token) > 1:
            node = trie
            for character in token[:_DEPTH]:
                node = node.setdefault(character, {})
            node[""] = {}
    if not trie:
        return None
    starts = (f"{re.escape(first)}(?={_trie_pattern(rest)})" for first, rest in trie.items())
    return re.compile("|".join(starts))


def _trie_pattern(node: dict[str, Any]) -> str:
    """The regular expression of the shortest token endings below `node`."""
    prefix = ""
    while len(node) == 1 and "" not in node:
        ((character, node),) = node.items()
        prefix += re.escape(character)
    if "" in node:  # a shorter token ends here: one that goes on has the same first character
        return prefix
    branches = (re.escape(character) + _trie_pattern(child) for character, child in node.items())
    return f"{prefix}(?:{'|'.join(branches)})"
