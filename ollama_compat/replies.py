"""The replies of /api/chat and /api/generate, with fields named and ordered as Ollama's."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ollama_compat import duration


@dataclasses.dataclass(frozen=True, slots=True)
class Metrics:
    """What the last part of a reply tells; durations in nanoseconds. Zeros are written too: clients count on the keys."""

    total_duration: int
    load_duration: int
    prompt_eval_count: int
    prompt_eval_duration: int
    eval_count: int
    eval_duration: int

    def fields(self) -> dict[str, int]:
        """In Ollama's order."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}


def message(content: str = "", thinking: str = "", tool_calls: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """The assistant's message, or a part of it."""
    calls = {"tool_calls": tool_calls} if tool_calls else {}
    return {"role": "assistant", "content": content, **({"thinking": thinking} if thinking else {}), **calls}


def tool_call(call_id: str, index: int, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A tool call of a message; `arguments` stay an object."""
    return {"id": call_id, "function": {"index": index, "name": name, "arguments": arguments}}


def chat_reply(
    model: str,
    part: Mapping[str, Any],
    *,
    done_reason: str = "",
    debug: Mapping[str, Any] | None = None,
    logprobs: list[dict[str, Any]] | None = None,
    metrics: Metrics | None = None,
) -> dict[str, Any]:
    """One object of a reply of /api/chat; it is the last one when it has a `done_reason`."""
    reply: dict[str, Any] = {"model": model, "created_at": duration.utc_now(), "message": part, "done": bool(done_reason)}
    optional = {"done_reason": done_reason, "_debug_info": debug, "logprobs": logprobs}
    reply.update({key: value for key, value in optional.items() if value})
    return reply | (metrics.fields() if metrics else {})


def with_logprobs(reply: Mapping[str, Any], logprobs: list[dict[str, Any]]) -> dict[str, Any]:
    """The last object of a reply of /api/chat with the log probabilities of all, in their place."""
    entries = {"logprobs": logprobs} if logprobs else {}
    metrics = {f.name for f in dataclasses.fields(Metrics)}
    front = {key: value for key, value in reply.items() if key not in metrics and key != "logprobs"}
    return front | entries | {key: value for key, value in reply.items() if key in metrics}


def generate_reply(
    model: str,
    response: str = "",
    *,
    thinking: str = "",
    done_reason: str = "",
    context: list[int] | None = None,
    metrics: Metrics | None = None,
    debug: Mapping[str, Any] | None = None,
    logprobs: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """One object of a reply of /api/generate; it is the last one when it has a `done_reason`."""
    reply: dict[str, Any] = {"model": model, "created_at": duration.utc_now(), "response": response}
    reply |= {"thinking": thinking} if thinking else {}
    reply["done"] = bool(done_reason)
    reply |= {"done_reason": done_reason} if done_reason else {}
    reply |= {"context": context} if context else {}
    reply |= metrics.fields() if metrics else {}
    optional = {"_debug_info": debug, "logprobs": logprobs}
    return reply | {key: value for key, value in optional.items() if value}


NO_REPLY: Mapping[str, Any] = {"model": "", "created_at": "0001-01-01T00:00:00Z"}
"""How an answer that broke off before it had said anything begins where it is not streamed: Go's values of nothing."""


def debug_info(prompt: str, images: int = 0) -> dict[str, Any]:
    """What `_debug_render_only` answers with."""
    return {"rendered_template": prompt, **({"image_count": images} if images else {})}
