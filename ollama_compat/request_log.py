"""One line for each request, in the form in which Ollama's server logs them."""

from __future__ import annotations

import contextvars
import dataclasses
import logging
import time

from aiohttp import web

from ollama_compat import duration, logs

_LOG = logging.getLogger(__name__)
CLIENT_GONE = 499


@dataclasses.dataclass(slots=True)
class Note:
    """What a request turned out to be about, for its line in the log. Written by whoever knows."""

    model: str = ""
    prompt_tokens: int = 0
    eval_tokens: int = 0
    dropped_tokens: int = 0  # of a prompt that did not fit the context
    dropped_messages: int = 0  # of a conversation that did not

    def truncated(self) -> str:
        """What was left out, for the header of the answer; empty when nothing was."""
        if self.dropped_messages:
            return f"{self.dropped_messages} messages"
        return f"{self.dropped_tokens} tokens" if self.dropped_tokens else ""


NOTE: contextvars.ContextVar[Note] = contextvars.ContextVar("note")


def note() -> Note:
    """The note of the request that is being answered; one that nobody reads outside of a request."""
    return NOTE.get(Note())


def line(request: web.Request, status: int, taken_ns: int, about: Note) -> None:
    """Logs an answered request. `taken_ns`: nanoseconds from its head to the end of its answer."""
    shown_ns = taken_ns if taken_ns < 60 * duration.SECOND else taken_ns // duration.SECOND * duration.SECOND
    now = time.strftime("%Y/%m/%d - %H:%M:%S")
    client, query = request.remote or "", request.rel_url.raw_query_string
    path = f"{request.path}?{query}" if query else request.path
    text = f"[GIN] {now} | {status:3d} | {duration.text(shown_ns):>13} | {client:>15} | {request.method:<7}  "
    fields = {"message": "request", "status": status, "seconds": taken_ns / duration.SECOND, "client": client}
    fields |= {"method": request.method, "path": path}
    fields |= {key: value for key, value in dataclasses.asdict(about).items() if value}
    _LOG.info("%s", text + duration.quote(path), extra={logs.FIELDS: fields})
