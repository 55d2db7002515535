"""POST /v1/completions: requests and answers. The chat template is applied, as by Ollama."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any

from ollama_compat import gotypes
from ollama_compat.errors import Refused
from ollama_compat.openai import common
from ollama_compat.openai.beyond import Beyond, native_options
from ollama_compat.openai.chat import Any_, StreamOptions, Whole, stops
from ollama_compat.schema import Flag, GenerateRequest, Text
from ollama_compat.stream import DONE, Part
from ollama_compat.turns import Heard

_Float = Annotated[float | None, gotypes.float32]


@dataclasses.dataclass(frozen=True, slots=True)
class CompletionRequest(Beyond):
    """The request."""

    model: Text = ""
    prompt: Text = ""
    frequency_penalty: _Float = None
    max_tokens: Whole = None
    presence_penalty: _Float = None
    seed: Whole = None
    stop: Any_ = None
    stream: Flag = False
    stream_options: StreamOptions = None
    temperature: _Float = None
    top_p: _Float = None
    suffix: Text = ""
    logprobs: Whole = None
    debug_render_only: Annotated[bool, gotypes.boolean, "_debug_render_only"] = False


def to_native(request: CompletionRequest) -> GenerateRequest:
    """The request of /api/generate that means the same. Raises Refused."""
    for text in request.stop if isinstance(request.stop, list) else ():
        if not isinstance(text, str):
            raise Refused(f"invalid type for 'stop' field: {_go_type(text)}")
    given = {
        "stop": stops(request.stop),
        "num_predict": request.max_completion_tokens if request.max_tokens is None else request.max_tokens,
        "temperature": 1.0 if request.temperature is None else request.temperature,
        "seed": request.seed,
        "frequency_penalty": request.frequency_penalty or 0.0,
        "presence_penalty": request.presence_penalty or 0.0,
        "top_p": request.top_p or 1.0,
    }
    return GenerateRequest(
        model=request.model,
        prompt=request.prompt,
        suffix=request.suffix,
        stream=request.stream,
        options=native_options(request) | common.sampling(given),
        logprobs=bool(request.logprobs and request.logprobs > 0),
        top_logprobs=max(request.logprobs or 0, 0),
        debug_render_only=request.debug_render_only,
    )


def _go_type(value: Any) -> str:
    names = {bool: "bool", dict: "map[string]interface {}", list: "[]interface {}", type(None): "<nil>"}
    return names.get(type(value), "float64")


def completion(replies: Sequence[Part], heard: Heard) -> Part:
    """The answers in one object. There is no field for reasoning: what is not in the text is not shown, as by Ollama."""
    reply = replies[0]
    head = {"id": common.identity("cmpl-"), "object": "text_completion", "created": common.now(), "model": reply["model"]}
    choices = [_choice(at, other) for at, other in enumerate(replies)]
    return head | {"system_fingerprint": "fp_ollama", "choices": choices, "usage": common.usage(replies, heard.cached)}


def _choice(index: int, reply: Part, offset: int = 0) -> Part:
    """`offset`: characters of the text that came before."""
    logprobs = {"logprobs": _logprobs(reply["logprobs"], offset)} if reply.get("logprobs") else {}
    return {"text": reply["response"], "index": index, "finish_reason": reply.get("done_reason"), **logprobs}


def _logprobs(entries: Sequence[Part], offset: int) -> Part:
    """Log probabilities in the form that this endpoint has for them. Ollama leaves them out."""
    offsets = []
    for entry in entries:
        offsets.append(offset)
        offset += len(entry["token"])
    return {
        "tokens": [entry["token"] for entry in entries],
        "token_logprobs": [entry["logprob"] for entry in entries],
        "top_logprobs": [{top["token"]: top["logprob"] for top in entry.get("top_logprobs", ())} for entry in entries],
        "text_offset": offsets,
    }


class Chunks:
    """Makes the events of a streamed answer, or of several."""

    def __init__(self, request: CompletionRequest, heard: Heard, answers: int) -> None:
        self._heard = heard
        self._with_usage = bool(request.stream_options and request.stream_options["include_usage"])
        self._id = common.identity("cmpl-")
        self._model = request.model
        self._said = [0] * answers  # characters
        self._ends: list[Part] = []  # the last native object of each answer that is complete

    def feed(self, reply: Part, index: int = 0) -> list[Part]:
        """The events for a native object. Where usage was asked for, every chunk has one and only the last a real one."""
        none = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        events = [self._chunk([_choice(index, reply, self._said[index])], none)]
        self._said[index] += len(reply["response"])
        self._ends += [reply] if reply["done"] else []
        if len(self._ends) == len(self._said):
            events += [self._chunk([], common.usage(self._ends, self._heard.cached))] if self._with_usage else []
            events.append(DONE)
        return events

    def _chunk(self, choices: list[Part], usage: Part) -> Part:
        head = {"id": self._id, "object": "text_completion", "created": common.now(), "choices": choices, "model": self._model}
        return head | {"system_fingerprint": "fp_ollama"} | ({"usage": usage} if self._with_usage else {})
