"""POST /v1/messages: the answer, whole or as a stream of events, and errors."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from ollama_compat import gojson, turns
from ollama_compat.anthropic.messages import MessagesRequest, estimate
from ollama_compat.errors import ApiError
from ollama_compat.stream import Part
from ollama_compat.turns import Heard

_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    529: "overloaded_error",
}


def envelope(status: int, message: str) -> dict[str, Any]:
    """An error."""
    error = {"type": _KINDS.get(status, "api_error"), "message": message}
    return {"type": "error", "error": error, "request_id": _identity("req")}


def failed(error: ApiError) -> Part:
    """The event that ends a stream with an error."""
    return envelope(error.status, error.message)


def _identity(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(12)}"


def message(reply: Part, heard: Heard) -> Part:
    """The answer in one object; `content` is null when nothing was said, as from Ollama."""
    native = reply["message"]
    blocks: list[Part] = [{"type": "thinking", "thinking": native["thinking"]}] if native.get("thinking") else []
    blocks += [{"type": "text", "text": native["content"]}] if native["content"] else []
    blocks += [_tool_use(call, call["function"]["arguments"]) for call in native.get("tool_calls", ())]
    head = {"id": _identity("msg"), "type": "message", "role": "assistant", "model": reply["model"], "content": blocks or None}
    reason = _stop_reason(reply, bool(native.get("tool_calls")))
    return head | ({"stop_reason": reason} if reason else {}) | {"usage": _usage(reply, heard)}


def _tool_use(call: Mapping[str, Any], given: Mapping[str, Any]) -> Part:
    return {"type": "tool_use", "id": call["id"], "name": call["function"]["name"], "input": given}


def _stop_reason(reply: Part, called: bool) -> str:
    if called:
        return "tool_use"
    reason = reply.get("done_reason", "")
    return {"stop": "end_turn", "length": "max_tokens", "": ""}.get(reason, "stop_sequence")


def _usage(reply: Part, heard: Heard) -> Part:
    """Token counts. Where much of the prompt came from the cache that is told, and then not counted twice."""
    prompt, answer = reply.get("prompt_eval_count", 0), reply.get("eval_count", 0)
    if heard.cached < turns.WORTH_TELLING:
        return {"input_tokens": prompt, "output_tokens": answer}
    return {"input_tokens": prompt - heard.cached, "output_tokens": answer, "cache_read_input_tokens": heard.cached}


class Events:
    """Makes the events of a streamed answer: blocks one after the other, each opened, filled and closed."""

    def __init__(self, request: MessagesRequest, heard: Heard) -> None:
        self._request = request
        self._heard = heard
        self._started = False
        self._index = 0
        self._open = ""  # type of the block that is being filled
        self._called = False

    def feed(self, reply: Part) -> list[Part]:
        """The events for a native object."""
        native, events = reply["message"], self._begin(reply)
        if native.get("thinking"):
            events += self._fill("thinking", native["thinking"])
        if native["content"]:
            events += self._fill("text", native["content"])
        for call in native.get("tool_calls", ()):
            events += self._call(call)
        return events + (self._end(reply) if reply["done"] else [])

    def _begin(self, reply: Part) -> list[Part]:
        if self._started:
            return []
        self._started = True
        usage = {"input_tokens": reply.get("prompt_eval_count") or estimate(self._request), "output_tokens": 0}
        head = {"id": _identity("msg"), "type": "message", "role": "assistant", "model": self._request.model}
        return [{"type": "message_start", "message": head | {"content": [], "usage": usage}}]

    def _fill(self, kind: str, text: str) -> list[Part]:
        """A piece of text or of reasoning."""
        start = [] if self._open == kind else [*self._close(), self._start({"type": kind, kind: ""})]
        self._open = kind
        return [*start, self._delta({"type": f"{kind}_delta", kind: text})]

    def _start(self, block: Part) -> Part:
        return {"type": "content_block_start", "index": self._index, "content_block": block}

    def _delta(self, delta: Part) -> Part:
        return {"type": "content_block_delta", "index": self._index, "delta": delta}

    def _close(self) -> list[Part]:
        if not self._open:
            return []
        self._open = ""
        self._index += 1
        return [{"type": "content_block_stop", "index": self._index - 1}]

    def _call(self, call: Mapping[str, Any]) -> list[Part]:
        events = [*self._close(), self._start(_tool_use(call, {}))]
        given = gojson.dumps(call["function"]["arguments"]).decode()
        events.append(self._delta({"type": "input_json_delta", "partial_json": given}))
        self._open, self._called = "tool_use", True
        return [*events, *self._close()]

    def _end(self, reply: Part) -> list[Part]:
        reason = _stop_reason(reply, self._called)
        delta = {"stop_reason": reason} if reason else {}
        end = {"type": "message_delta", "delta": delta, "usage": _usage(reply, self._heard)}
        return [*self._close(), end, {"type": "message_stop"}]
