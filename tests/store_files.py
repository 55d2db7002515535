"""Small model files for a store, requests to it, and a check that nothing in it is broken."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from ollama_compat.schema import CreateRequest, ShowRequest
from ollama_compat.store import Store
from ollama_compat.store.create import create
from ollama_compat.store.show import show

Pairs = Sequence[tuple[str, str, Any]]
"""Keys as they stand in the file: name, the writer's word for the type, value."""

TOKENS = (
    ("tokenizer.ggml.model", "string", "gpt2"),
    ("tokenizer.ggml.tokens", "array", ["a", "b"]),
    ("tokenizer.ggml.token_type", "array", [1, 1]),
)


def write_gguf(
    path: Path, architecture: str = "llama", pairs: Pairs | None = None, shapes: Mapping[str, Any] | None = None
) -> Path:
    """A file with these keys (by default those of a small language model) and zeros for tensors, NumPy shapes."""
    writer = gguf.GGUFWriter(path, architecture)
    for key, kind, value in language_model(architecture) if pairs is None else pairs:
        getattr(writer, f"add_{kind}")(key, value)
    for name, shape in (shapes or {"token_embd.weight": (2, 64), "output_norm.weight": (64,)}).items():
        writer.add_tensor(name, np.zeros(shape, np.float16 if len(shape) > 1 else np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def language_model(architecture: str = "llama", file_type: int | None = 1, *more: tuple[str, str, Any]) -> Pairs:
    """Keys of a small language model; `more` follow the tokenizer."""
    named = () if file_type is None else (("general.file_type", "uint32", file_type),)
    lengths = ((f"{architecture}.context_length", "uint32", 77), (f"{architecture}.embedding_length", "uint32", 64))
    return (*named, *lengths, *TOKENS, *more)


def split_model(folder: Path) -> list[Path]:
    """A model in three files; tensor `blk.i.x.weight` is full of i."""
    writer = gguf.GGUFWriter(folder / "sp.gguf", "llama", split_max_tensors=2)
    for key, kind, value in language_model("llama", 1, ("general.tags", "array", [True, False]), ("x.f", "float64", 0.1)):
        getattr(writer, f"add_{kind}")(key, value)
    for i in range(5):
        writer.add_tensor(f"blk.{i}.x.weight", np.full((3, 5), i, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(folder.glob("sp-*.gguf"))


async def upload(store: Store, path: Path) -> str:
    """Puts the file into the store as a client would; its digest."""
    data = path.read_bytes()  # noqa: ASYNC240
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    await store.write_blob(digest, chunks(data))
    return digest


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    """The body of an upload."""
    for part in parts:
        yield part


async def make(store: Store, model: str, **fields: Any) -> list[str]:
    """Creates a model; the progress lines."""
    return [progress["status"] async for progress in create(store, CreateRequest(model=model, **fields))]


def describe(store: Store, model: str, **fields: Any) -> dict[str, Any]:
    """What /api/show answers."""
    return show(store, ShowRequest(model=model, **fields))


def assert_sound(store: Store) -> None:
    """Every manifest can be read and has its blobs, and every blob is what its name says."""
    for name in store.names():
        for digest in store.manifests.read(name).digests:
            assert store.has_blob(digest), f"{name} has lost {digest}"
    for path in store.blobs.folder.glob("sha256-*"):
        if len(path.name) == len("sha256-") + 64:
            assert path.name == f"sha256-{hashlib.sha256(path.read_bytes()).hexdigest()}"
