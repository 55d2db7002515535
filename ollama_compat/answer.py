"""From a call to its answer: model into memory, prompt, and the runner's text split into content, reasoning and tool calls."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any

from ollama_compat import output, replies, request_log, structured
from ollama_compat.call import Call
from ollama_compat.errors import ApiError, InternalError
from ollama_compat.fitting import Message, Prompt
from ollama_compat.output import CallError, Content, Event, OutputParser, Thinking, ToolCall
from ollama_compat.prompt import refuse_images
from ollama_compat.replies import Metrics
from ollama_compat.resident import Resident
from ollama_compat.runner import Runner
from ollama_compat.schema import GenerateRequest
from ollama_compat.services import Services
from ollama_compat.tool_choice import BareCalls
from runtime.frames import Cut, Done, Generate, Logprob, Token

_LOG = logging.getLogger(__name__)

_LOWEST = -3.4028234663852886e38  # stands for minus infinity, which JSON has not


@dataclasses.dataclass(slots=True)
class Piece:
    """A piece of an answer, of one kind."""

    content: str = ""
    thinking: str = ""
    calls: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    logprobs: list[dict[str, Any]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True)
class Ready:
    """The model is loaded and the prompt made. What fails from here on fails in the engine."""


@dataclasses.dataclass(frozen=True, slots=True)
class Finished:
    """The end of an answer."""

    reason: str  # "stop" or "length"
    context: list[int]  # tokens of prompt and answer
    metrics: Metrics
    cached: int  # tokens of the prompt that were computed before


MakePrompt = Callable[[Resident], Awaitable[Prompt]]
Told = Callable[[Finished], None]


async def run(
    services: Services,
    call: Call,
    make_prompt: MakePrompt,
    *,
    cut: bool,
    context: Sequence[int] = (),
    shown: Sequence[Message] = (),
) -> AsyncIterator[Ready | Piece | Finished]:
    """Ready, the pieces of the answer, Finished; nothing in place of that where an answer repeats itself too often, which then
    breaks off as Ollama's do. Raises ApiError at any time.

    `cut`: a prompt that is too long may lose its middle. `context`: tokens in front of it. `shown`: messages whose pictures
    the model has to see.
    """
    async with services.residency.use(call.wanted(), call.request.keep_alive) as resident:
        loaded_ns = time.perf_counter_ns()
        prompt = await make_prompt(resident)
        yield Ready()
        constraint = structured.constraint(
            call.request, prompt.parser, call.think, chats=prompt.chats, grammar=call.options.grammar
        )
        refuse_images(call.stored, shown)
        parser = _named(call, BareCalls(prompt.parser) if constraint.calls and not constraint.calls.begin else prompt.parser)
        preserved = parser.preserved if parser else ()
        frames = functools.partial(call.framer, context=context, preserved=preserved, cut=cut, chats=prompt.chats)
        make = frames(prompt.text, resident.loaded, constraint, repeat_limit=services.settings.repeat_limit)
        failure = functools.partial(call.failure, cut=cut, native=prompt.native)
        first_ns = 0  # from the request to its first token
        async with contextlib.aclosing(_pieces(resident.runner, make, parser, failure)) as pieces:  # type: ignore[type-var]
            async for piece in pieces:
                if isinstance(piece, Done):
                    services.metrics.generated(call.stored.name.short(), piece, first_ns)
                    if piece.reason == "repeated":
                        _LOG.info("%s says the same again and again: its answer breaks off", call.stored.name.short())
                    else:
                        yield _finished(call, piece, loaded_ns)
                else:
                    first_ns = first_ns or time.perf_counter_ns() - call.started_ns
                    yield piece


def _named(call: Call, parser: OutputParser | None) -> OutputParser | None:
    """Gives tool calls the names of the tools that were offered."""
    if parser is None or isinstance(call.request, GenerateRequest) or not call.request.tools:
        return parser
    return output.Offered(parser, output.names_of(call.request.tools))


def _finished(call: Call, done: Done, loaded_ns: int) -> Finished:
    reason = "length" if done.reason == "length" else "stop"
    return Finished(reason, done.context, call.metrics(done, loaded_ns), done.cached_tokens)


async def _pieces(
    runner: Runner, make: Callable[[int], Generate], parser: OutputParser | None, failure: Callable[[ApiError], ApiError]
) -> AsyncIterator[Piece | Done]:
    try:
        async with contextlib.aclosing(runner.generate(make)) as got:  # type: ignore[type-var]
            async for reply in got:
                if isinstance(reply, Cut):
                    request_log.note().dropped_tokens = reply.dropped
                    continue
                for piece in _token(reply, parser) if isinstance(reply, Token) else _rest(reply, parser):
                    yield piece
                if isinstance(reply, Done):
                    yield reply
    except CallError as error:
        raise InternalError(error.message) from None
    except ApiError as error:
        raise failure(error) from None


def _token(token: Token, parser: OutputParser | None) -> list[Piece]:
    """The pieces that a token settles; its log probabilities go with the first, or alone while its text is held back."""
    events: Iterable[Event] = parser.feed(token.text) if parser else [Content(token.text)]
    found = _split(events)
    if token.logprobs:
        found = found or [Piece()]
        found[0].logprobs = [logprob(entry, with_top=True) for entry in token.logprobs]
    return found


def _rest(done: Done, parser: OutputParser | None) -> list[Piece]:
    """The pieces that the end settles. What breaks off has none."""
    return [] if parser is None or done.reason == "repeated" else _split(parser.finish())


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
        piece.calls.append(replies.tool_call(event.id, event.index, event.name, event.arguments))


def logprob(entry: Logprob, *, with_top: bool) -> dict[str, Any]:
    """A log probability as the API has it. `bytes` are the UTF-8 of the token's text, as in Ollama."""
    fields: dict[str, Any] = {"token": entry.token, "logprob": max(entry.logprob, _LOWEST)}
    fields |= {"bytes": list(entry.token.encode())} if entry.token else {}
    if with_top and entry.top:
        fields["top_logprobs"] = [logprob(other, with_top=False) for other in entry.top]
    return fields
