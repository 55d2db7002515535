"""What a runner refuses, in the words that a client of Ollama gets for it."""

from __future__ import annotations

import json

from ollama_compat.errors import ApiError, BadRequest, InternalError
from runtime.frames import SCHEMA_FAILED, Failed


class PromptTooLong(ApiError):
    """The prompt does not fit the context."""


class SchemaRefused(BadRequest):
    """No grammar can be made of the request's schema. `native`: the engine made the prompt, and words it for that."""

    def __init__(self, reason: str, *, native: bool = False) -> None:
        begin = "Unable to generate parser for this template. Automatic parser generation failed: " if native else SCHEMA_FAILED
        super().__init__(engine_error(400, begin + reason, "invalid_request_error"))
        self.reason = reason


class Unsupported(ApiError):
    """The runner cannot do this with this model."""

    def __init__(self, message: str) -> None:
        super().__init__(501, message)


class OutOfMemory(InternalError):
    """The model does not fit the memory that is free."""


def failure(failed: Failed) -> ApiError:
    """The error that a client gets for a runner's Failed; what is wrong with the request is worded as llama-server does."""
    if failed.kind == "context_length":
        return PromptTooLong(400, engine_error(400, failed.message, "exceed_context_size_error", failed))
    if failed.kind == "out_of_memory":
        return OutOfMemory(failed.message)
    if failed.kind == "bad_request" and failed.message.startswith(SCHEMA_FAILED):
        return SchemaRefused(failed.message.removeprefix(SCHEMA_FAILED))
    if failed.kind == "bad_request":
        return BadRequest(engine_error(400, failed.message, "invalid_request_error"))
    return Unsupported(failed.message) if failed.kind == "unsupported" else ApiError(500, failed.message)


def embed_failure(failed: Failed) -> ApiError:
    """The same for a request for vectors, where Ollama hands on the bare text."""
    return BadRequest(failed.message) if failed.kind in ("context_length", "bad_request") else failure(failed)


def engine_error(code: int, message: str, kind: str, failed: Failed | None = None) -> str:
    """The text of llama-server's own error object, which Ollama hands to its client as one string."""
    error: dict[str, object] = {"code": code, "message": message, "type": kind}
    if failed is not None:
        error |= {"n_prompt_tokens": failed.n_prompt, "n_ctx": failed.n_ctx}
    return json.dumps({"error": error}, separators=(",", ":"), ensure_ascii=False)
