"""Where the layers of a new model come from: uploaded GGUF files, or a model of the store."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ollama_compat.errors import BadRequest, InternalError
from ollama_compat.store import Making, gotext, manifests
from ollama_compat.store.header import ModelHeader
from ollama_compat.store.manifests import Layer, Manifest
from ollama_compat.template import detect
from runtime.gguf_file import GGUFError

Steps = Generator[dict[str, Any], None, Any]
"""Work that tells its progress; it ends in a value."""

_MAGIC = b"GGUF"


class NotGGUF(BadRequest):
    """A file that should be a model is something else."""

    def __init__(self) -> None:
        super().__init__("supplied file was not in GGUF format")


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """A layer of a model in the making. `header`: of a GGUF file; `file`: the name of the upload it was made from."""

    layer: Layer
    status: str = ""
    header: ModelHeader | None = None
    file: str = ""

    @property
    def is_model(self) -> bool:
        """Whether this is the model itself."""
        return self.header is not None and self.layer.media_type == manifests.MODEL


def existing(digest: str) -> str:
    """The progress line for a blob that was there."""
    return f"using existing layer {digest}"


def add(making: Making, media_type: str, data: bytes) -> Part:
    """A part with a new blob."""
    layer, is_new = making.add(media_type, data)
    return Part(layer, f"creating new layer {layer.digest}" if is_new else existing(layer.digest))


# ---------------------------------------------------------------- from a model


def from_model(making: Making, manifest: Manifest) -> list[Part]:
    """All layers of a model; those that are GGUF files with their headers."""
    files = (manifests.MODEL, manifests.PROJECTOR, manifests.ADAPTER, manifests.DRAFT)
    source = manifest.name.short()
    parts = []
    for layer in manifest.layers:
        size = hold(making, layer.digest)
        kept = Layer(layer.media_type, layer.digest, size, source, layer.name)
        header = _header(making.path(layer.digest)) if layer.media_type in files else None
        parts.append(Part(kept, existing(layer.digest), header))
    return parts


def hold(making: Making, digest: str) -> int:
    """Keeps a blob of the store, and gives its size; InternalError with Ollama's words when it is not there."""
    try:
        size = making.hold(digest)
    except BadRequest as error:  # what is no digest; only an empty one is told apart from what fails later
        raise InternalError(error.message) from None
    if size is None:
        raise InternalError(f"open {making.path(digest)}: no such file or directory")
    return size


def _header(path: Path) -> ModelHeader:
    try:
        return ModelHeader.read(path)
    except GGUFError as error:
        # a file that stops between two values is, in Ollama's words, at its end
        at_end = error.offset >= path.stat().st_size
        raise InternalError("EOF" if at_end else str(error)) from None


# ---------------------------------------------------------------- from files


def from_files(making: Making, files: Mapping[str, str], media_type: str = "", *, single: bool = False) -> Steps:
    """Parts of uploaded GGUF files, given as names and digests. Without `media_type` each file's own kind decides.

    BadRequest for what is no model file; other ApiErrors for one that is damaged.
    """
    if kind(making, files) != "gguf":
        raise BadRequest("unknown type")
    if single and len(files) > 1:
        raise BadRequest("only one adapter is currently supported")
    parts = []
    for name in sorted(files):
        yield {"status": "parsing GGUF"}
        parts.append(_parse(making, name, files[name], media_type))
    return parts


def kind(making: Making, files: Mapping[str, str]) -> str:
    """What the files are, "safetensors" or "gguf", by the first one that shows it; empty when none does."""
    for name, digest in files.items():
        if name.endswith(".safetensors"):
            return "safetensors"
        if name.endswith(".gguf"):
            return "gguf"
        try:
            is_model = _begins(making.path(digest), _MAGIC)
        except (BadRequest, OSError):
            return ""
        if is_model:
            return "gguf"
    return ""


def _begins(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


def _parse(making: Making, name: str, digest: str, media_type: str) -> Part:
    size = hold(making, digest)
    path = making.path(digest)
    if not _begins(path, _MAGIC):
        raise NotGGUF
    header = _header(path)
    digest = digest.replace("-", ":")
    layer = Layer(media_type or _media_type(header), digest, size, source=name)
    return Part(layer, existing(digest), header, file=name)


def detected(making: Making, parts: Sequence[Part]) -> list[Part]:
    """Go template and parameters for files whose Jinja template is close to a known one."""
    found = []
    for part in parts:
        jinja = part.header.chat_template if part.header else ""
        name = detect.named(jinja) if jinja else None
        if name is not None:
            template = add(making, manifests.TEMPLATE, detect.template(name).encode())
            found.append(dataclasses.replace(template, status=f"using autodetected template {name}"))
            params = detect.params(name)
            if params:  # Ollama takes nothing but `stop` from them
                found.append(add(making, manifests.PARAMS, gotext.json_line({"stop": params.get("stop")})))
    return found


def _media_type(header: ModelHeader) -> str:
    if header.kind == "adapter":
        return manifests.ADAPTER
    return manifests.PROJECTOR if header.is_projector else manifests.MODEL
