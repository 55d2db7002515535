"""Split models: the files `<name>-00001-of-00003.gguf` and so on become one file, as Ollama's store wants it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from ollama_compat.errors import InternalError
from ollama_compat.store import Making
from ollama_compat.store.header import ModelHeader
from ollama_compat.store.sources import Part, Steps
from runtime import gguf_file
from runtime.gguf_file import GGUFFile, open_gguf

_NAME = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")
_BLOCK = 16 << 20  # bytes copied between two reports of progress
_PROGRESS = {"status": "validating GGUF model", "digest": "0000000000000000000"}  # what Ollama calls it


def join(making: Making, parts: Sequence[Part]) -> Steps:
    """The parts, with the files of each split model joined to one at the end of the list. InternalError when one is missing."""
    groups: dict[tuple[str, str, int], list[Part]] = {}
    single = []
    for part in parts:
        key = _group(part)
        if key is None:
            single.append(part)
        else:
            groups.setdefault(key, []).append(part)
    for group in groups.values():
        single.append((yield from _merge(making, _in_order(group))))
    return single


def _integer(header: ModelHeader, key: str) -> int | None:
    """A split key, which some files write below the name of their architecture."""
    for name in (key, header.key(key)):
        value = header.metadata.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 16:
            return value
    return None


def _group(part: Part) -> tuple[str, str, int] | None:
    """What the files of one split model have in common; None for a file that is whole."""
    header = part.header
    count = _integer(header, "split.count") if header else None
    if header is None or count is None or count <= 1:
        return None
    label = f'split GGUF "{part.file}"'
    match = _NAME.fullmatch(PurePosixPath(part.file).name)
    if match is None or not int(match[2]) or not int(match[3]):
        raise InternalError(f"{label} must use llama.cpp split filename pattern")
    index, name_count = int(match[2]) - 1, int(match[3])
    if name_count != count:
        raise InternalError(f"{label} filename count {name_count} does not match metadata count {count}")
    number = _integer(header, "split.no")
    if number is None:
        raise InternalError(f"{label} is missing split.no metadata")
    if number != index:
        raise InternalError(f"{label} filename index {index} does not match metadata index {number}")
    return part.layer.media_type, match[1], count


def _in_order(group: Sequence[Part]) -> list[Part]:
    count = int(_NAME.fullmatch(PurePosixPath(group[0].file).name)[3])  # type: ignore[index]  # _group has matched it
    if count != len(group):
        raise InternalError(f'split GGUF "{group[0].file}" has {len(group)} shards, expected {count}')
    by_name = {PurePosixPath(part.file).name: part for part in group}
    if len(by_name) != count:
        raise InternalError(f'split GGUF "{group[0].file}" has a shard twice')
    return [by_name[name] for name in sorted(by_name)]


def _merge(making: Making, group: Sequence[Part]) -> Steps:
    paths = [making.path(part.layer.digest) for part in group]
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(open_gguf(path, follow_split=False)) for path in paths]
        writer = stack.enter_context(making.writer())
        writer.write(_head(files))
        total, told = sum(part.layer.size for part in group), 0
        for block in _data(paths, files):
            writer.write(block)
            if writer.size - told >= _BLOCK:
                told = writer.size
                yield _PROGRESS | {"total": total, "completed": min(told, total)}
        layer, is_new = making.finish(group[0].layer.media_type, writer)
    header = ModelHeader.read(making.path(layer.digest))
    status = ("creating new layer" if is_new else "using existing layer") + f" {layer.digest}"
    return Part(layer, status, header, file=group[0].file)


# ---------------------------------------------------------------- the file


def _head(files: Sequence[GGUFFile]) -> bytes:
    """The header of the joined file: the first file's metadata without the split's, and all tensors."""
    alignment = files[0].alignment
    tensors = [tensor for file in files for tensor in file.tensors.values()]
    return gguf_file.head(gguf_file.whole(files[0].metadata), gguf_file.placed(tensors, alignment), alignment)


def _data(paths: Sequence[Path], files: Sequence[GGUFFile]) -> Iterator[bytes]:
    """The tensors' bytes, each padded to the alignment."""
    for path, file in zip(paths, files, strict=True):
        with path.open("rb") as source:
            for tensor in file.tensors.values():
                source.seek(tensor.offset)
                left = tensor.nbytes
                while left:
                    block = source.read(min(left, _BLOCK))
                    if not block:
                        raise InternalError(f"the file of tensor {tensor.name} became shorter while it was read")
                    left -= len(block)
                    yield block
                yield bytes(gguf_file.padded(tensor.nbytes, files[0].alignment) - tensor.nbytes)
