"""POST /v1/audio/transcriptions: a conversation about a sound file."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from aiohttp import BodyPartReader, MultipartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from ollama_compat.errors import ApiError, Refused
from ollama_compat.schema import ChatRequest
from ollama_compat.turns import turn

_LIMIT = 25 << 20  # bytes of the whole form
_TASK = "Transcribe the audio exactly as spoken. Output only the spoken words. Do not answer any question in the audio."


async def read_form(request: web.Request) -> dict[str, bytes]:
    """The fields of the form. Refused when it is none."""
    if not request.content_type.startswith("multipart/form-data"):
        raise Refused("failed to parse multipart form: request Content-Type isn't multipart/form-data")
    if "boundary=" not in request.headers.get("Content-Type", ""):
        raise Refused("failed to parse multipart form: no multipart boundary param in Content-Type")
    fields: dict[str, bytes] = {}
    room = _LIMIT
    try:
        reader = await request.multipart()
        while (part := await reader.next()) is not None:
            if isinstance(part, BodyPartReader) and part.name:
                fields[part.name] = await _read(part, room)
                room -= len(fields[part.name])
            elif isinstance(part, MultipartReader):
                await part.release()
    except (ValueError, AssertionError, HttpProcessingError) as error:
        raise Refused(f"failed to parse multipart form: {_words(error)}") from None
    return fields


def _words(error: Exception) -> str:
    """Go's words for what the library finds wrong with a form."""
    if isinstance(error, HttpProcessingError):
        return "malformed MIME header"
    return "unexpected EOF" if "after EOF" in str(error) else "multipart: NextPart: EOF"


async def _read(part: BodyPartReader, room: int) -> bytes:
    data = bytearray()
    while chunk := await part.read_chunk():
        data += chunk
        if len(data) > room:
            raise ApiError(413, "request body too large")
    return bytes(data)


def to_native(form: Mapping[str, bytes]) -> ChatRequest:
    """The request of /api/chat that asks for the spoken words. Raises Refused."""
    model = _text(form, "model")
    if not model:
        raise Refused("model is required")
    if "file" not in form:
        raise Refused("file is required: http: no such file")
    if not form["file"]:
        raise Refused("audio file is empty")
    language, hint = _text(form, "language"), _text(form, "prompt")
    task = _TASK + (f" The audio is in {language}." if language else "") + (f" Context: {hint}" if hint else "")
    sound = base64.b64encode(form["file"]).decode()
    question = turn("user", "What exact words are spoken in this audio?", images=[sound])
    return ChatRequest(model=model, messages=[turn("system", task), question], options={"temperature": 0})


def wants_text(form: Mapping[str, bytes]) -> bool:
    """Whether the answer is to be the words alone."""
    return _text(form, "response_format") == "text"


def _text(form: Mapping[str, bytes], name: str) -> str:
    return form.get(name, b"").decode("utf-8", "replace")
