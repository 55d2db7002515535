"""Addresses of other servers, whose models a stub stands for."""

from __future__ import annotations

import posixpath
import re
import urllib.parse

from ollama_compat.errors import BadRequest

CLOUD = "https://ollama.com:443"

_ADDRESS = re.compile(r"(?P<host>\[[^]]*\]|[^:\[\]]*)(?::(?P<port>[0-9]+))?")


def remote_url(text: str) -> str:
    """The server's URL with its port, from what a user may write for it; BadRequest for what is none."""
    if text.startswith("/"):
        return f"http://localhost:11434{posixpath.normpath(text)}"
    if text in ("ollama.com", "http://ollama.com"):
        return CLOUD
    try:
        url = urllib.parse.urlsplit(text if "://" in text else f"http://{text}")
    except ValueError:
        raise BadRequest("bad remote") from None
    user, at, address = url.netloc.rpartition("@")
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise BadRequest("bad remote")
    host = match["host"] or "localhost"
    path = posixpath.normpath(url.path) if url.path else ""
    return url._replace(netloc=f"{user}{at}{host}:{match['port'] or 11434}", path="" if path == "/" else path).geturl()
