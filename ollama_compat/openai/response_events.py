"""POST /v1/responses: the answer, whole or as a stream of events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ollama_compat import turns
from ollama_compat.errors import ApiError
from ollama_compat.openai import common
from ollama_compat.openai.chat import tool_calls
from ollama_compat.openai.responses import ResponsesRequest, names
from ollama_compat.stream import Part
from ollama_compat.turns import Heard


def response(request: ResponsesRequest, reply: Part, heard: Heard) -> Part:
    """The answer in one object. As from Ollama, it has no text when it has calls, and is `completed` even when it was cut."""
    message, identity = reply["message"], common.identity("resp_", 999_999)
    output: list[Part] = []
    if message.get("thinking"):
        output.append(_reasoning(f"rs_{identity}", message["thinking"]))
    spaces = names(request)
    calls = [_call(f"fc_{identity}_{at}", call, spaces) for at, call in enumerate(tool_calls(message))]
    output += calls or [_message(common.identity("msg_", 999_999), message["content"])]
    whole = _Whole(request, identity, streamed=False)
    return whole.fields("completed", output, _usage(reply, heard), completed_at=common.now())


def _reasoning(identity: str, text: str) -> Part:
    return {"id": identity, "type": "reasoning", "summary": [{"type": "summary_text", "text": text}], "encrypted_content": text}


def _message(identity: str, text: str) -> Part:
    return {"id": identity, "type": "message", "status": "completed", "role": "assistant", "content": [_text(text)]}


def _text(text: str) -> Part:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _call(identity: str, call: Part, spaces: Mapping[str, tuple[str, str]]) -> Part:
    """A function call. One out of a namespace says so, because that is how clients find it again."""
    space, name = spaces.get(call["function"]["name"], ("", call["function"]["name"]))
    named = {"name": name, **({"namespace": space} if space else {})}
    head = {"id": identity, "type": "function_call", "status": "completed", "call_id": call["id"]}
    return head | named | {"arguments": call["function"]["arguments"]}


def _usage(reply: Part, heard: Heard) -> Part:
    prompt, answer = reply.get("prompt_eval_count", 0), reply.get("eval_count", 0)
    cached = heard.cached if heard.cached >= turns.WORTH_TELLING else 0
    details = {"input_tokens_details": {"cached_tokens": cached}, "output_tokens_details": {"reasoning_tokens": 0}}
    return {"input_tokens": prompt, "output_tokens": answer, "total_tokens": prompt + answer, **details}


def _number(value: float | None) -> float | int:
    """As Go writes it: 1 when nothing was said, whole numbers without a point."""
    given = 1.0 if value is None else value
    return int(given) if given.is_integer() and abs(given) < 1 << 63 else given


class _Whole:
    """The object that describes an answer, of which most repeats the request."""

    def __init__(self, request: ResponsesRequest, identity: str, *, streamed: bool) -> None:
        self._request = request
        self._streamed = streamed
        self._identity = identity
        self._created = common.now()

    def fields(
        self,
        status: str,
        output: Sequence[Part],
        usage: Part | None,
        *,
        completed_at: int | None = None,
        error: Part | None = None,
    ) -> Part:
        """All fields, in Ollama's order."""
        head = {"id": self._identity, "object": "response", "created_at": self._created, "completed_at": completed_at}
        return {
            **head,
            "status": status,
            "incomplete_details": None,
            "model": self._request.model,
            "previous_response_id": None,
            "instructions": self._request.instructions or None,
            "output": list(output),
            "error": error,
            **self._settings(),
            "usage": usage,
            **self._constants(),
        }

    def _settings(self) -> Part:
        request, choice = self._request, self._request.tool_choice
        return {
            "tools": request.tools or [],
            "tool_choice": choice if isinstance(choice, dict) or choice in ("none", "required") else "auto",
            "truncation": "disabled" if request.truncation is None else request.truncation,
            "parallel_tool_calls": True,
            "text": {"format": (request.text or {}).get("format") or {"type": "text"}},
            "top_p": _number(request.top_p),
            "presence_penalty": 0,
            "frequency_penalty": 0,
            "top_logprobs": 0,
            "temperature": _number(request.temperature),
            "reasoning": self._reasoning(),
        }

    def _reasoning(self) -> Part | None:
        """What was asked for; in a stream Ollama names what was not, too."""
        given = {name: self._request.reasoning.get(name) for name in ("effort", "summary")}
        asked = {name: text for name, text in given.items() if text}
        return given if asked and self._streamed else asked or None

    def _constants(self) -> Part:
        return {
            "max_output_tokens": self._request.max_output_tokens,
            "max_tool_calls": None,
            "store": False,
            "background": self._request.background,
            "service_tier": "default",
            "metadata": {},
            "safety_identifier": None,
            "prompt_cache_key": None,
        }


_KEPT = frozenset(("schema", "parameters"))  # keys under which the client's own order stays


def _in_order(value: Any) -> Any:
    """The value with the keys of its objects in the order in which Ollama streams them."""
    if isinstance(value, dict):
        return {key: item if key in _KEPT else _in_order(item) for key, item in sorted(value.items())}
    return [_in_order(item) for item in value] if isinstance(value, list) else value


class Events:
    """Makes the events of a streamed answer: items one after the other, each opened, filled and closed."""

    def __init__(self, request: ResponsesRequest, heard: Heard) -> None:
        self._heard = heard
        self._whole = _Whole(request, common.identity("resp_", 999_999), streamed=True)
        self._spaces = names(request)
        self._number = 0
        self._done: list[Part] = []  # items that are complete
        self._open = ""  # type of the item that is being filled
        self._id = ""
        self._text = ""

    def feed(self, reply: Part) -> list[Part]:
        """The events for a native object."""
        message, events = reply["message"], self._begin()
        if message.get("thinking"):
            events += self._think(message["thinking"])
        if message["content"]:
            events += self._say(message["content"])
        calls = tool_calls(message)
        events += self._close() if calls or reply["done"] else []
        events += [event for call in calls for event in self._call(call)]
        if reply["done"]:
            whole = self._whole.fields("completed", self._done, _usage(reply, self._heard), completed_at=common.now())
            events.append(self._event("response.completed", response=whole))
        return events

    def failed(self, error: ApiError) -> Part:
        """The event that ends the stream with an error."""
        kind = "server_error" if error.status >= 500 else "invalid_request_error"
        whole = self._whole.fields("failed", self._done, None, error={"code": kind, "message": error.message})
        return self._event("response.failed", response=whole)

    def _event(self, kind: str, **fields: Any) -> Part:
        number, self._number = self._number, self._number + 1
        event: Part = _in_order({**fields, "sequence_number": number, "type": kind})
        return event

    def _begin(self) -> list[Part]:
        if self._number:
            return []
        whole = self._whole.fields("in_progress", [], None)
        return [self._event(kind, response=whole) for kind in ("response.created", "response.in_progress")]

    def _at(self, **fields: Any) -> Part:
        """Where the open item is."""
        return {"item_id": self._id, "output_index": len(self._done), **fields}

    def _start(self, kind: str, item: Part) -> list[Part]:
        """Opens an item, after closing one of another type."""
        events = self._close()
        self._open, self._id, self._text = kind, item["id"], ""
        return [*events, self._event("response.output_item.added", output_index=len(self._done), item=item)]

    def _think(self, text: str) -> list[Part]:
        events: list[Part] = []
        if self._open != "reasoning":
            identity = common.identity("rs_", 999_999)
            events = self._start("reasoning", {"id": identity, "type": "reasoning", "summary": []})
            part = {"type": "summary_text", "text": ""}  # Ollama leaves this event out, and clients then drop the reasoning
            events.append(self._event("response.reasoning_summary_part.added", **self._at(summary_index=0, part=part)))
        self._text += text
        at = self._at(summary_index=0, delta=text)
        return [*events, self._event("response.reasoning_summary_text.delta", **at)]

    def _say(self, text: str) -> list[Part]:
        events: list[Part] = []
        if self._open != "message":
            identity = common.identity("msg_", 999_999)
            item = {"id": identity, "type": "message", "status": "in_progress", "role": "assistant", "content": []}
            events = self._start("message", item)
            events.append(self._event("response.content_part.added", **self._at(content_index=0, part=_text(""))))
        self._text += text
        return [*events, self._event("response.output_text.delta", **self._at(content_index=0, delta=text, logprobs=[]))]

    def _close(self) -> list[Part]:
        """Closes the open item, if there is one."""
        kind, text, self._open = self._open, self._text, ""
        if kind == "reasoning":
            item = _reasoning(self._id, text)
            events = [self._event("response.reasoning_summary_text.done", **self._at(summary_index=0, text=text))]
        elif kind == "message":
            item = _message(self._id, text)
            at = self._at(content_index=0)
            events = [
                self._event("response.output_text.done", **at, text=text, logprobs=[]),
                self._event("response.content_part.done", **at, part=_text(text)),
            ]
        else:
            return []
        return [*events, self._finish(item)]

    def _finish(self, item: Part) -> Part:
        event = self._event("response.output_item.done", output_index=len(self._done), item=item)
        self._done.append(item)
        return event

    def _call(self, call: Part) -> list[Part]:
        item = _call(f"fc_{common.identity('', 999_999)}_{len(self._done)}", call, self._spaces)
        arguments = item["arguments"]
        events = self._start("function_call", item | {"status": "in_progress", "arguments": ""})
        events.append(self._event("response.function_call_arguments.delta", **self._at(delta=arguments)))
        events.append(self._event("response.function_call_arguments.done", **self._at(arguments=arguments)))
        self._open = ""
        return [*events, self._finish(item)]
