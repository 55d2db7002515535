"""The files that a Modelfile names: which of a directory belong to a model, and their digests."""

from __future__ import annotations

import fnmatch
import hashlib
import os
from pathlib import Path

from ollama_compat.cli.errors import CommandError

NO_MODEL = "no Modelfile or safetensors files found"
_SNIFFED = 512  # bytes that decide what a file is
_CHUNK = 1 << 20
_BINARY = frozenset(range(0x20)) - {0x09, 0x0A, 0x0C, 0x0D, 0x1B}

# pattern and content of the weights, the first that exist; weights may be pointers of Git LFS, whose content tells
_WEIGHTS = (
    ("consolidated*.safetensors", ""),
    ("adapter*.safetensors", ""),  # not looked for by Ollama, whose server takes them
    ("pytorch_model*.bin", "application/zip"),
    ("consolidated*.pth", "application/zip"),
    ("*.gguf", "application/octet-stream"),
    ("*.bin", "application/octet-stream"),
)


def digests(path: Path) -> dict[str, str]:
    """Path -> `sha256:<hex>` of a file, or of a directory's model files; FileNotFoundError when there is nothing."""
    path.stat()
    files = [path] if not path.is_dir() else [_inside(path, file) for file in model_files(path)]
    return {str(file): digest(file) for file in files}


def digest(path: Path) -> str:
    """`sha256:<hex>` of a file's bytes."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            total.update(chunk)
    return f"sha256:{total.hexdigest()}"


def _inside(directory: Path, file: Path) -> Path:
    """The file that a link leads to, which has to lie in the directory."""
    real = Path(os.path.realpath(file))
    relative = os.path.relpath(real, os.path.realpath(directory))
    if relative.startswith(".."):
        hint = "\n\nUse --local-dir <dir> when downloading model to disable caching" if ".cache" in relative else ""
        raise CommandError(f"insecure path: {relative}{hint}")
    return real


def model_files(directory: Path) -> list[Path]:
    """Weights of the first kind found, configuration, chat template and tokenizer; CommandError without weights."""
    files = [*_weights(directory)]
    for pattern in ("*.json", "*/*.json", "chat_template.jinja"):
        files.extend(_glob(directory, pattern, "text/plain"))
    return [
        *files,
        *(_try(directory, "tokenizer.model", "application/octet-stream") or _try(directory, "*/tokenizer.model", "text/plain")),
    ]


def _weights(directory: Path) -> list[Path]:
    if found := _glob(directory, "model*.safetensors"):
        return [*found, *_glob(directory, "*/model*.safetensors")]
    for pattern, content in _WEIGHTS:
        if found := _try(directory, pattern, content):
            return found
    raise CommandError(NO_MODEL)


def _try(directory: Path, pattern: str, content: str) -> list[Path]:
    """As `_glob`, but nothing when one of the files is something else."""
    try:
        return _glob(directory, pattern, content)
    except CommandError:
        return []


def _glob(directory: Path, pattern: str, content: str = "") -> list[Path]:
    """Files of a directory, hidden ones too, in order; CommandError when one is not `content`."""
    first, slash, rest = pattern.partition("/")
    if slash:
        parents = [path for path in sorted(directory.iterdir()) if path.is_dir()]
        return [file for parent in parents for file in _glob(parent, rest, content)]
    files = [path for path in sorted(directory.iterdir()) if fnmatch.fnmatchcase(path.name, first)]
    for file in files:
        kind = _content(file)
        if content and kind != content:
            raise CommandError(f"invalid content type: expected {kind} for {file}")
    return files


def _content(path: Path) -> str:
    """What the first bytes look like: a zip, text, or anything."""
    with path.open("rb") as file:
        head = file.read(_SNIFFED)
    if head.startswith(b"PK\x03\x04"):
        return "application/zip"
    return "application/octet-stream" if _BINARY.intersection(head) else "text/plain"
