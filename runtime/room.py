"""How long a text may be whose vector is asked for, by the rules and in the words of Ollama."""

from __future__ import annotations

from runtime.tokenizer import Tokenizer

NO_ROOM = "input after truncation exceeds maximum context length"
TOO_LONG = "the input length exceeds the context length"


class NoFit(Exception):
    """The text cannot be taken; the message says why."""


def fitted(tokens: list[int], limit: int, tokenizer: Tokenizer, *, truncate: bool) -> list[int]:
    """The tokens, or as many of them as may be where the rest may go. Raises NoFit."""
    room = limit
    if tokens:  # Ollama leaves room for BOS and EOS, whether or not the vocabulary puts them there
        room -= (tokens[0] != (tokenizer.bos_id or 0)) + (tokens[-1] != (tokenizer.eos_id or 0))
    if room <= 0:
        raise NoFit(NO_ROOM)
    if len(tokens) > room and not truncate:
        raise NoFit(TOO_LONG)
    return tokens[:room]
