"""Images and sounds named in a prompt: found, checked, and taken out of its text."""

from __future__ import annotations

import base64
import re
import sys
from pathlib import Path

from ollama_compat.cli.errors import CommandError
from ollama_compat.duration import quote

MAX_BYTES = 100 * 1024 * 1024
_HEAD = 512  # bytes that tell what a file is
_PATH = re.compile(r"(?:[a-zA-Z]:)?(?:\./|/|\\)[\S\\ ]+?\.(?:jpg|jpeg|png|webp|wav)\b", re.IGNORECASE | re.ASCII)
_ESCAPED = re.compile(r"\\([ ()\[\]{}$&;'\\*?~])")


def paths(text: str) -> list[str]:
    """What looks like paths of images or sounds, as written."""
    return _PATH.findall(text)


def extract(text: str) -> tuple[str, list[str]]:
    """The text without the files that exist, and those files in base64. CommandError for one that is something else."""
    files = []
    for written in paths(text):
        path = _ESCAPED.sub(r"\1", written)
        try:
            data = _read(Path(path))
        except FileNotFoundError:
            continue
        except (OSError, CommandError) as error:
            print(f"Couldn't process file: {quote(str(error))}", file=sys.stderr)
            raise CommandError(str(error)) from error
        kind = "audio" if path.lower().endswith(".wav") else "image"
        print(f"Added {kind} '{path}'", file=sys.stderr)
        for form in (f"'{path}'", f"'{written}'", written):
            text = text.replace(form, "")
        files.append(base64.b64encode(data).decode())
    return text.strip(), files


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        head = file.read(_HEAD)
        kind = _kind(head)
        if kind not in ("image/jpeg", "image/png", "image/webp", "audio/wave"):
            raise CommandError(f"invalid file type: {kind}")
        if path.stat().st_size > MAX_BYTES:
            raise CommandError("file size exceeds maximum limit (100MB)")
        return head + file.read()


def _kind(head: bytes) -> str:
    """The media type that the first bytes tell; a file shorter than they are is filled up with zeros."""
    head = head.ljust(_HEAD, b"\0")
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head.startswith(b"RIFF"):
        return {b"WEBPVP": "image/webp", b"WAVE": "audio/wave"}.get(head[8:14] if head[8:12] == b"WEBP" else head[8:12], "")
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    return "text/plain; charset=utf-8" if head.isascii() and b"\0" not in head else "application/octet-stream"
