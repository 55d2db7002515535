"""Addresses of other servers, whose models a stub stands for."""

from __future__ import annotations

import posixpath
import urllib.parse

from ollama_compat.errors import BadRequest

CLOUD = "https://ollama.com:443"


def remote_url(text: str) -> str:
    """The server's URL with its port, from what a user may write for it; BadRequest for what is none."""
    if text.startswith("/"):
        return f"http://localhost:11434{posixpath.normpath(text)}"
    if text in ("ollama.com", "http://ollama.com"):
        return CLOUD
    try:
        url = urllib.parse.urlsplit(text if "://" in text else f"http://{text}")
        host = url.hostname or "localhost"
        port = url.port
    except ValueError:
        raise BadRequest("bad remote") from None
    address = f"[{host}]" if ":" in host else host
    path = posixpath.normpath(url.path) if url.path else ""
    return url._replace(netloc=f"{address}:{port or 11434}", path="" if path == "/" else path).geturl()
