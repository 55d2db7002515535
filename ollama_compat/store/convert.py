"""Converting in /api/create: the files of a Hugging Face folder become a GGUF layer, in a child process."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ollama_compat import job_steps
from ollama_compat.errors import InternalError
from ollama_compat.store import Making, manifests
from ollama_compat.store.header import ModelHeader
from ollama_compat.store.sources import Part, Steps, existing

_MODEL, _ADAPTER = {"status": "converting model"}, {"status": "converting adapter"}
_DIGEST = "0000000000000000001"  # clients show a bar for a digest; quantising, which may follow, has another
_FLOATS = ("F32", "F16", "BF16")


def converted(making: Making, files: Mapping[str, str], level: str = "") -> Steps:
    """The layer of the model in `files`, names and digests. `level`: the type that the request wants, if it is no quantised one.

    InternalError, in Ollama's words where it has some, for what is no model that can be converted.
    """
    yield _MODEL
    wanted = level.upper() if level.upper() in _FLOATS else ""
    part = yield from _done(making, files, "convert", {"type": wanted}, _MODEL)
    return dataclasses.replace(part, file=min(files))


def adapted(making: Making, files: Mapping[str, str], base: Sequence[Part]) -> Steps:
    """The layer of the LoRA adapter in `files` for the model among the parts; InternalError as above."""
    model = next((part for part in base if part.header is not None), None)
    if model is None:
        raise InternalError("no base model was found")
    yield _ADAPTER
    path = str(making.path(model.layer.digest))
    return (yield from _done(making, files, "convert_adapter", {"base": path}, _ADAPTER))


def _done(making: Making, files: Mapping[str, str], job: str, arguments: Mapping[str, str], line: dict[str, Any]) -> Steps:
    for digest in files.values():
        making.hold(digest)  # one that is not there is an error when the conversion gets to it
    paths = {name: str(making.path(digest)) for name, digest in files.items()}
    with making.writer() as writer:
        for done in job_steps.steps(job, {"files": paths, "target": str(writer.path), **arguments}):
            if done.total:
                yield {**line, "digest": _DIGEST, "total": done.total, "completed": done.completed}
        for _ in writer.scan():
            yield line
        layer, is_new = making.finish(manifests.ADAPTER if line is _ADAPTER else manifests.MODEL, writer)
    status = f"creating new layer {layer.digest}" if is_new else existing(layer.digest)
    return Part(layer, status, ModelHeader.read(making.path(layer.digest)))
