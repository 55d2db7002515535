"""Errors that a client sees: a status and the text of `{"error": ...}`. Texts are Ollama's, because clients match on them."""

from __future__ import annotations

import asyncio
from typing import Any


class ApiError(Exception):
    """An answer that is an error: HTTP `status` and the text of its `error` field."""

    status = 500

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message

    def body(self) -> dict[str, Any]:
        """The JSON object a client gets."""
        return {"error": self.message}


class BadRequest(ApiError):
    """The request itself is wrong."""

    def __init__(self, message: str) -> None:
        super().__init__(400, message)


class Refused(BadRequest):
    """The request is wrong in the dialect that it is written in; nothing has been asked of a model yet."""


class CloudDisabled(ApiError):
    """The name asks for a model that runs elsewhere. Ollama words this alike in all dialects of its API."""

    def __init__(self, message: str) -> None:
        super().__init__(403, message)


class InvalidModelName(BadRequest):
    """The name cannot be the name of a model."""

    def __init__(self, message: str = "invalid model name") -> None:
        super().__init__(message)


class ModelNotFound(ApiError):
    """No such model in the store; `name` stands in the text as the client sent it."""

    def __init__(self, name: str, message: str | None = None) -> None:
        super().__init__(404, f"model '{name}' not found" if message is None else message)
        self.name = name


class UnsupportedCapability(BadRequest):
    """The model cannot do what was asked; `name` is written as Ollama writes it for this capability."""

    def __init__(self, name: str, capability: str) -> None:
        super().__init__(f"{name} does not support {capability}")


class ServerBusy(ApiError):
    """More requests wait than OLLAMA_MAX_QUEUE allows."""

    def __init__(self) -> None:
        super().__init__(503, "server busy, please try again.  maximum pending requests exceeded")


class RunnerDied(ApiError):
    """The runner process ended while it still owed an answer."""

    def __init__(self, detail: str = "") -> None:
        text = "model runner has unexpectedly stopped, this may be due to resource limitations or an internal error"
        tail = ", check ollama server logs for details"
        super().__init__(500, f"{text}{tail}" + (f": {detail}" if detail else ""))


class InternalError(ApiError):
    """Something failed on our side of the wire."""

    def __init__(self, message: str) -> None:
        super().__init__(500, message)


_OTHER: tuple[tuple[type[BaseException], int], ...] = (
    (asyncio.CancelledError, 499),
    (TimeoutError, 500),
    (FileNotFoundError, 404),
    (PermissionError, 500),
    (OSError, 500),
)


def answer(error: BaseException) -> tuple[int, dict[str, Any]]:
    """Status and JSON body for any exception; the only table of its kind."""
    if isinstance(error, ApiError):
        return error.status, error.body()
    for kind, status in _OTHER:
        if isinstance(error, kind):
            return status, {"error": _text(error)}
    return 500, {"error": "internal server error"}


def _text(error: BaseException) -> str:
    """What of an exception may be told; an OSError's own words without the path of the server's file system."""
    if isinstance(error, asyncio.CancelledError):
        return "request canceled"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__
