"""API keys: optional, and then asked for on every route but a few that tell nothing."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping
from pathlib import Path

OPEN = frozenset({"/", "/health", "/api/version"})  # by which clients and supervisors find out that a server is there


class KeyFileError(Exception):
    """The file of keys cannot be read; a server that was to be closed must not start open."""


def load(listed: str, file: str) -> tuple[str, ...]:
    """The keys of a comma-separated list and of a file that has one a line; KeyFileError when the file has none."""
    keys = [key.strip() for key in listed.split(",") if key.strip()]
    if not file:
        return tuple(keys)
    try:
        lines = Path(file).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(f"MOELLAMA_API_KEY_FILE: {file}: {getattr(error, 'strerror', None) or error}") from error
    found = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not found:
        raise KeyFileError(f"MOELLAMA_API_KEY_FILE: {file} holds no key")
    return (*keys, *found)


def allowed(route: str, headers: Mapping[str, str], keys: Iterable[str]) -> bool:
    """Whether a request for a route may pass: `Authorization: Bearer KEY`, or `x-api-key: KEY` as Anthropic's clients send it."""
    if route in OPEN:
        return True
    scheme, _, bearer = headers.get("Authorization", "").partition(" ")
    shown = bearer.strip() if scheme.lower() == "bearer" else headers.get("X-Api-Key", "")
    given = shown.encode("utf-8", "surrogateescape")
    return sum(hmac.compare_digest(given, key.encode()) for key in keys) > 0  # all are compared, so the time tells nothing
