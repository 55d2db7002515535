"""One request to a server, timed on both clocks: the server's own counts, and when text arrived here."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

from ollama_compat.compare.sides import Side

SECONDS, CONNECT_SECONDS = 600.0, 10.0  # of silence, before a server counts as hung; until it takes a connection
KEPT = "1h"  # in memory after a request: whatever a server is told otherwise, models leave when we say so
REASONING = "thinking", "reasoning_content", "reasoning"
_EVENT = b"data:"
_END = b"[DONE]"
_ERROR_BYTES = 4096  # of an error's body that are read


class AskError(Exception):
    """A server gave no answer, or an error."""


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """Seconds and tokens. A count or a time of the server is 0 where it tells none."""

    text: str
    first: float  # until the first text came
    last: float  # until the last text came
    whole: float  # until the end
    chunks: int
    load: float
    prompt_tokens: int  # that were read: a server may have some of them from before
    prompt_seconds: float
    tokens: int
    seconds: float  # of the tokens after the first
    prompt_length: int = 0  # tokens of the whole prompt

    @property
    def decode(self) -> float:
        """Tokens a second by the server's clock; 0 where it tells none."""
        return self.tokens / self.seconds if self.seconds > 0 else 0.0

    @property
    def decode_here(self) -> float:
        """Tokens a second by our clock; 0 when there were too few."""
        tokens = self.tokens or self.chunks
        return (tokens - 1) / (self.last - self.first) if tokens > 1 and self.last > self.first else 0.0

    @property
    def prefill(self) -> float:
        """Tokens a second by the server's clock; 0 where it tells none."""
        return self.prompt_tokens / self.prompt_seconds if self.prompt_seconds > 0 else 0.0

    @property
    def prefill_here(self) -> float:
        """Tokens a second by our clock, until the first text came; 0 where nobody counted them."""
        return self.prompt_tokens / self.first


def chat(side: Side, question: str, options: Mapping[str, Any]) -> Answer:
    """The answer to one message, streamed. AskError."""
    return _ollama(side, question, options) if side.dialect == "ollama" else _openai(side, question, options)


def _ollama(side: Side, question: str, options: Mapping[str, Any]) -> Answer:
    body = {"model": side.model, "messages": _messages(question), "options": {**options, **side.options}, "keep_alive": KEPT}
    clock = _Clock()
    last: dict[str, Any] = {}
    for line in _lines(side, "/api/chat", body):
        last = _object(line)
        if "error" in last:
            raise AskError(f"{side.name}: {_said(last)}")
        clock.text(whole_text(last.get("message")))
    if not last.get("done"):
        raise AskError(f"{side.name}: the answer ended early")
    return clock.answer(
        load=last.get("load_duration", 0) / 1e9,
        prompt_tokens=last.get("prompt_eval_count", 0),
        prompt_length=last.get("prompt_eval_count", 0),
        prompt_seconds=last.get("prompt_eval_duration", 0) / 1e9,
        tokens=last.get("eval_count", 0),
        seconds=last.get("eval_duration", 0) / 1e9,
    )


def _messages(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}]


def _openai(side: Side, question: str, options: Mapping[str, Any]) -> Answer:
    body = {
        "model": side.model,
        "messages": _messages(question),
        "max_tokens": options.get("num_predict", 64),
        "temperature": options.get("temperature", 0),
        "seed": options.get("seed", 0),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    clock = _Clock()
    usage: dict[str, Any] = {}
    timings: dict[str, Any] = {}
    ended = False
    for line in _lines(side, "/v1/chat/completions", body):
        if not line.startswith(_EVENT):
            continue
        if line[len(_EVENT) :].strip() == _END:
            ended = True
            continue
        event = _object(line[len(_EVENT) :])
        if "error" in event:
            raise AskError(f"{side.name}: {_said(event)}")
        choices = event.get("choices") or ()
        ended = ended or any(choice.get("finish_reason") for choice in choices)
        clock.text("".join(whole_text(choice.get("delta")) for choice in choices))
        usage, timings = event.get("usage") or usage, event.get("timings") or timings
    if not ended:
        raise AskError(f"{side.name}: the answer ended early")
    return clock.answer(
        load=0.0,
        prompt_tokens=timings.get("prompt_n") or usage.get("prompt_tokens", 0),
        prompt_length=usage.get("prompt_tokens", 0),
        prompt_seconds=timings.get("prompt_ms", 0) / 1e3,
        tokens=usage.get("completion_tokens", 0),
        seconds=timings.get("predicted_ms", 0) / 1e3,
    )


def whole_text(message: Mapping[str, Any] | None) -> str:
    """All of a message or a piece of one: reasoning, under whatever name servers have for it, and content."""
    message = message or {}
    reasoning = next(filter(None, map(message.get, REASONING)), "")
    return str(reasoning) + str(message.get("content") or "")


class _Clock:
    """When text came."""

    def __init__(self) -> None:
        self._begin = time.perf_counter()
        self._first = self._last = 0.0
        self._texts: list[str] = []

    def text(self, text: str) -> None:
        if text:
            self._last = time.perf_counter() - self._begin
            self._first = self._first or self._last
            self._texts.append(text)

    def answer(self, **counted: Any) -> Answer:
        whole = time.perf_counter() - self._begin
        return Answer("".join(self._texts), self._first or whole, self._last or whole, whole, len(self._texts), **counted)


def call(side: Side, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """One answer that is not streamed; GET without a body. AskError."""
    data = b"".join(_lines(side, path, body))
    answer = _object(data) if data.strip() else {}
    if "error" in answer:
        raise AskError(f"{side.name}: {_said(answer)}")
    return answer


def _lines(side: Side, path: str, body: Mapping[str, Any] | None) -> Iterator[bytes]:
    address = side.address
    kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
    connection = kind(address.host, address.port, timeout=CONNECT_SECONDS)
    target = f"/{address.path}{path}" if address.path else path
    headers = {"Authorization": f"Bearer {side.key}"} if side.key else {}
    try:
        connection.connect()
        connection.sock.settimeout(SECONDS)
        if body is None:
            connection.request("GET", target, headers=headers)
        else:
            connection.request("POST", target, json.dumps(body), headers | {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status >= 400:
            raise AskError(f"{side.name}: status {response.status} from {path}: {_reason(response.read(_ERROR_BYTES))}")
        yield from response
    except (OSError, http.client.HTTPException) as error:
        word = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise AskError(f"{side.name} at {address.url}: {word[0].lower()}{word[1:]}") from error
    finally:
        connection.close()


def _reason(body: bytes) -> str:
    """What a refusal says."""
    with contextlib.suppress(AskError):
        if said := _said(_object(body)):
            return said
    return body.decode("utf-8", "replace").strip()[:200] or "nothing said"


def _said(answer: Mapping[str, Any]) -> str:
    """The error of an answer, in the form of any dialect; "" when there is none."""
    error = answer.get("error")
    return str(error.get("message") or error) if isinstance(error, dict) else str(error or "")


def _object(data: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(data)
    except ValueError:
        raise AskError(f"no JSON: {data[:80]!r}") from None
    return answer if isinstance(answer, dict) else {}
