"""Converting in /api/create: the files of a Hugging Face folder become a GGUF layer, in a child process."""

from __future__ import annotations

from collections.abc import Mapping

from ollama_compat import job_steps
from ollama_compat.store import Making, manifests
from ollama_compat.store.header import ModelHeader
from ollama_compat.store.sources import Part, Steps, existing

_STATUS = {"status": "converting model"}
_DIGEST = "0000000000000000001"  # clients show a bar for a digest; quantising, which may follow, has another
_FLOATS = ("F32", "F16", "BF16")


def converted(making: Making, files: Mapping[str, str], level: str = "") -> Steps:
    """The layer of the model in `files`, names and digests. `level`: the type that the request wants, if it is no quantised one.

    InternalError, in Ollama's words where it has some, for what is no model that can be converted.
    """
    yield _STATUS
    for digest in files.values():
        making.hold(digest)  # one that is not there is an error when the conversion gets to it
    paths = {name: str(making.path(digest)) for name, digest in files.items()}
    wanted = level.upper() if level.upper() in _FLOATS else ""
    with making.writer() as writer:
        for done in job_steps.steps("convert", {"files": paths, "target": str(writer.path), "type": wanted}):
            if done.total:
                yield _STATUS | {"digest": _DIGEST, "total": done.total, "completed": done.completed}
        for _ in writer.scan():
            yield _STATUS
        layer, is_new = making.finish(manifests.MODEL, writer)
    status = f"creating new layer {layer.digest}" if is_new else existing(layer.digest)
    return Part(layer, status, ModelHeader.read(making.path(layer.digest)), file=min(files))
