"""An answer as it comes from the runner: text split into content, reasoning and tool calls, piece by piece."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from ollama_compat import schema
from ollama_compat.output import Content, Event, OutputParser, Thinking, ToolCall
from ollama_compat.runner import Runner
from runtime.frames import Done, Generate, Logprob, Token

_LOWEST = -3.4028234663852886e38  # stands for minus infinity, which JSON has not


@dataclasses.dataclass(slots=True)
class Piece:
    """A piece of an answer, of one kind."""

    content: str = ""
    thinking: str = ""
    calls: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    logprobs: list[dict[str, Any]] = dataclasses.field(default_factory=list)


async def pieces(runner: Runner, make: Callable[[int], Generate], parser: OutputParser | None) -> AsyncIterator[Piece | Done]:
    """The pieces of the answer to the request that `make` builds, and the runner's Done at the end."""
    async with contextlib.aclosing(runner.generate(make)) as replies:  # type: ignore[type-var]
        async for reply in replies:
            if isinstance(reply, Token):
                for piece in _token(reply, parser):
                    yield piece
            else:
                for piece in _split(parser.finish() if parser else ()):
                    yield piece
                yield reply


def _token(token: Token, parser: OutputParser | None) -> list[Piece]:
    """The pieces that a token settles; its log probabilities go with the first, or alone while its text is held back."""
    events: Iterable[Event] = parser.feed(token.text) if parser else [Content(token.text)]
    found = _split(events)
    if token.logprobs:
        found = found or [Piece()]
        found[0].logprobs = [logprob(entry, with_top=True) for entry in token.logprobs]
    return found


def _split(events: Iterable[Event]) -> list[Piece]:
    """One piece for each run of events of one kind: content and reasoning never share one."""
    found: list[Piece] = []
    last: type[Event] | None = None
    for event in events:
        if type(event) is not last:
            found.append(Piece())
            last = type(event)
        _add(found[-1], event)
    return [piece for piece in found if piece.content or piece.thinking or piece.calls]


def _add(piece: Piece, event: Event) -> None:
    if isinstance(event, Content):
        piece.content += event.text
    elif isinstance(event, Thinking):
        piece.thinking += event.text
    else:
        assert isinstance(event, ToolCall)
        piece.calls.append(schema.tool_call(event.id, event.index, event.name, event.arguments))


def logprob(entry: Logprob, *, with_top: bool) -> dict[str, Any]:
    """A log probability as the API has it. `bytes` are the UTF-8 of the token's text, as in Ollama."""
    fields: dict[str, Any] = {"token": entry.token, "logprob": max(entry.logprob, _LOWEST)}
    fields |= {"bytes": list(entry.token.encode())} if entry.token else {}
    if with_top and entry.top:
        fields["top_logprobs"] = [logprob(other, with_top=False) for other in entry.top]
    return fields
