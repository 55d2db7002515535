"""Prompts, and conversations cut down until their prompt fits the context."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from ollama_compat import request_log
from ollama_compat.call import Call
from ollama_compat.output import OutputParser
from ollama_compat.resident import Resident
from runtime.frames import BREAK

_LOG = logging.getLogger(__name__)

Message = dict[str, Any]
Tools = list[dict[str, Any]] | None  # None: the request has none; a Go template tells that from an empty list
Render = Callable[[Sequence[Message]], Awaitable[str]]


@dataclasses.dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt, and what reads the answer to it."""

    text: str
    parser: OutputParser | None  # None: everything is content
    native: bool = False  # Ollama lets its engine make this one
    chats: bool = False  # by its route for conversations: the keys of a format come in order, and no token to predict is one
    bos: str = ""  # what stood before the text, for tokenizers that do not put it there themselves

    def shown(self) -> str:
        """The text for a reader."""
        return self.bos + self.text.replace(BREAK, "")


async def fit(call: Call, resident: Resident, messages: list[Message], render: Render) -> str:
    """The prompt of the latest messages that fit the context: old ones go first, system messages and the last one stay.

    Rendering and tokenizing are the costs, so the number of messages to drop is found by bisection.
    """
    if not call.request.truncate or len(messages) == 1:
        return await render(messages)
    limit = call.num_ctx(resident.loaded)
    texts: dict[int, str] = {}

    async def fits(start: int) -> bool:
        kept = [message for message in messages[:start] if message["role"] == "system"]
        texts[start] = await render([*kept, *messages[start:]])
        if len(texts[start].encode()) <= limit:
            return True  # a token is a byte or more
        return len(await resident.runner.tokenize(texts[start])) <= limit

    low, high = 0, len(messages) - 1  # the answer is in [low, high]
    if await fits(0):
        return texts[0]
    while low < high:
        middle = (low + high) // 2
        if await fits(middle):
            high = middle
        else:
            low = middle + 1
    if low not in texts:
        await fits(low)
    _note_dropped(messages[:low], limit)
    return texts[low]


def _note_dropped(dropped: Sequence[Message], limit: int) -> None:
    """Tells the log and the client that the beginning of a conversation is not read."""
    count = sum(message["role"] != "system" for message in dropped)
    _LOG.warning("the %d oldest messages of a conversation are left out: the context has %d tokens", count, limit)
    request_log.note().dropped_messages = count
