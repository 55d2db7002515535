"""Request bodies that clients have compressed with zstd, as Ollama takes them under /v1."""

from __future__ import annotations

import sys

from ollama_compat.errors import BadRequest

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_MAGIC = bytes.fromhex("28b52ffd")  # what a frame begins with
MOST = 20 << 20  # bytes of a body once it is inflated
_WINDOW_LOG = 23  # a decoder may look back 8 MiB


def inflate(body: bytes) -> bytes:
    """What a body of one or several frames says; BadRequest for a broken one, and for one that is too long."""
    options = {int(zstd.DecompressionParameter.window_log_max): _WINDOW_LOG}
    parts, size = [], 0
    while body:
        if len(body) < len(_MAGIC):
            raise BadRequest("unexpected EOF")
        if not body.startswith(_MAGIC):
            raise BadRequest("invalid input: magic number mismatch")
        decoder = zstd.ZstdDecompressor(options=options)
        try:
            part = decoder.decompress(body, MOST - size + 1)
        except zstd.ZstdError as error:
            raise BadRequest("failed to decompress request body") from error
        size += len(part)
        if size > MOST:
            raise BadRequest("http: request body too large")
        if not decoder.eof:
            raise BadRequest("unexpected EOF")
        parts.append(part)
        body = decoder.unused_data
    return b"".join(parts)
