"""POST /v1/embeddings: requests and answers."""

from __future__ import annotations

import base64
import dataclasses
import struct
from typing import Annotated, Any

from ollama_compat import gotypes, schema
from ollama_compat.errors import Refused
from ollama_compat.stream import Part


@dataclasses.dataclass(frozen=True, slots=True)
class EmbedRequest:
    """The request."""

    input: Annotated[Any, gotypes.raw] = None
    model: schema.Text = ""
    dimensions: schema.Count = 0
    encoding_format: schema.Text = ""


def to_native(request: EmbedRequest) -> schema.EmbedRequest:
    """The request of /api/embed that means the same. Raises Refused."""
    if request.encoding_format.lower() not in ("", "float", "base64"):
        known = "Supported values: ['float', 'base64']."
        raise Refused(f"Invalid value for 'encoding_format' = {request.encoding_format}. {known}")
    if request.input is None or request.input == []:
        raise Refused("invalid input")
    wanted = [""] if request.input == "" else request.input
    return schema.EmbedRequest(model=request.model, input=wanted, dimensions=request.dimensions)


def listing(request: EmbedRequest, reply: Part) -> Part:
    """The answer."""
    encode = _base64 if request.encoding_format.lower() == "base64" else list
    data = [
        {"object": "embedding", "embedding": encode(vector), "index": index} for index, vector in enumerate(reply["embeddings"])
    ]
    tokens = reply.get("prompt_eval_count", 0)
    return {"object": "list", "data": data, "model": request.model, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}


def _base64(vector: list[float]) -> str:
    """Little-endian float32 values."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
