"""The GGUF reader: what it reads equals what gguf's writer wrote, and whatever is wrong with a file ends in GGUFError."""

from __future__ import annotations

import array
import os
import random
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from runtime.gguf_file import TYPES, GGUFError, open_gguf

DEMO = Path(__file__).resolve().parents[2] / "ollama_compat/data/demo-moe-Q4_K_M.gguf"
U8, BOOL, U32, STRING, ARRAY = 0, 7, 4, 8, 9
U64_MAX = (1 << 64) - 1


def text(value: str | bytes) -> bytes:
    raw = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(raw)) + raw


def pair(key: str | bytes, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def strings(key: str, items: list[str | bytes]) -> bytes:
    return pair(key, ARRAY, struct.pack("<IQ", STRING, len(items)) + b"".join(map(text, items)))


def tensor(name: str | bytes, shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def header(
    pairs: list[bytes], tensors: list[bytes], *, version: int = 3, n_tensors: int | None = None, n_pairs: int | None = None
) -> bytes:
    counts = (len(tensors) if n_tensors is None else n_tensors, len(pairs) if n_pairs is None else n_pairs)
    return b"GGUF" + struct.pack("<IQQ", version, *counts) + b"".join(pairs) + b"".join(tensors)


def padded(head: bytes, data: int = 4096, alignment: int = 32) -> bytes:
    return head + bytes(-len(head) % alignment + data)


def read_all(path: Path) -> dict[str, Any]:
    with open_gguf(path) as file:
        return {key: file.metadata[key] for key in file.metadata}


def write_sample(path: Path) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint8("n.u8", 255)
    writer.add_int8("n.i8", -128)
    writer.add_uint16("n.u16", 65535)
    writer.add_int16("n.i16", -32768)
    writer.add_uint32("n.u32", 2**32 - 1)
    writer.add_int32("n.i32", -(2**31))
    writer.add_uint64("n.u64", U64_MAX)
    writer.add_int64("n.i64", -(2**63))
    writer.add_float32("n.f32", 0.5)
    writer.add_float64("n.f64", 0.1)
    writer.add_bool("n.bool", True)
    writer.add_string("n.text", "größer ▁")
    writer.add_array("a.i32", [1, -2, 3])
    writer.add_array("a.f32", [0.5, 2.0])
    writer.add_array("a.bool", [True, False])
    writer.add_array("a.text", ["", "a", "日本"])
    writer.add_tensor("output.weight", np.arange(96, dtype=np.float32).reshape(3, 32))
    writer.add_tensor("q", np.zeros((2, 34), dtype=np.uint8), raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    return write_sample(tmp_path / "sample.gguf")


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., GGUFError]:
    """Write the bytes, open them, use every array; the error that comes of it."""

    def check(content: bytes, match: str = "") -> GGUFError:
        path = tmp_path / "refused.gguf"
        path.write_bytes(content)
        with pytest.raises(GGUFError, match=match) as caught:
            read_all(path)
        assert f"refused.gguf: {caught.value.where} at byte {caught.value.offset}: " in str(caught.value)
        assert 0 <= caught.value.offset <= len(content)
        return caught.value

    return check


def test_values(sample: Path) -> None:
    values = read_all(sample)
    assert [values[f"n.{kind}"] for kind in ("u8", "i8", "u16", "i16", "u32", "i32")] == [
        255, -128, 65535, -32768, 2**32 - 1, -(2**31),
    ]  # fmt: skip
    assert (values["n.u64"], values["n.i64"]) == (U64_MAX, -(2**63))
    assert (values["n.f32"], values["n.f64"], values["n.bool"], values["n.text"]) == (0.5, 0.1, True, "größer ▁")
    assert values["a.i32"] == array.array("i", [1, -2, 3])
    assert list(values["a.f32"]) == [0.5, 2.0]
    assert values["a.bool"] == [True, False]
    assert values["a.text"] == ["", "a", "日本"]


def test_metadata_is_a_mapping_with_types(sample: Path) -> None:
    with open_gguf(sample) as file:
        metadata = file.metadata
        assert "a.text" in metadata
        assert "missing" not in metadata
        assert metadata.get("missing", 7) == 7
        assert metadata.array_length("a.text") == 3
        assert metadata["a.text"] is metadata["a.text"]  # decoded once
        assert metadata.array_length("a.text") == 3
        assert metadata.array_length("n.u8") is None
        assert metadata.type_name("a.text") == "array[string]"
        assert metadata.type_name("n.u8") == "uint8"
        assert len(metadata) == len(list(metadata)) == 17


def test_tensors(sample: Path) -> None:
    with open_gguf(sample) as file:
        first, second = file.tensors.values()
        assert (first.name, first.shape, first.type_name, first.nbytes, first.part) == ("output.weight", (32, 3), "F32", 384, 0)
        assert (second.shape, second.type_id, second.nbytes) == ((32, 2), 8, 68)
        assert (file.version, file.alignment, file.size, file.parts) == (3, 32, sample.stat().st_size, [sample])
        raw = sample.read_bytes()
        assert np.array_equal(np.frombuffer(raw, np.float32, 96, first.offset), np.arange(96))
        assert first.offset == file.data_offset


def test_demo_model_agrees_with_gguf() -> None:
    theirs = gguf.GGUFReader(DEMO)
    with open_gguf(DEMO) as ours:
        assert list(ours.tensors) == [t.name for t in theirs.tensors]
        for t in theirs.tensors:
            info = ours.tensors[t.name]
            assert (info.offset, info.nbytes, info.shape) == (t.data_offset, t.n_bytes, tuple(t.shape.tolist()))
        for key, field in theirs.fields.items():
            if not key.startswith("GGUF."):
                value = ours.metadata[key]
                assert (list(value) if isinstance(value, array.array) else value) == field.contents()


def test_types_agree_with_gguf() -> None:
    sizes = {t.value: gguf.constants.GGML_QUANT_SIZES[t] for t in gguf.GGMLQuantizationType if t.name != "Q8_1"}
    assert {i: (t.block_size, t.block_bytes) for i, t in TYPES.items() if i in sizes} == sizes
    assert all(TYPES[t.value].name == t.name for t in gguf.GGMLQuantizationType)


def test_every_type_opens(tmp_path: Path) -> None:
    for kind in TYPES.values():
        path = tmp_path / kind.name
        path.write_bytes(padded(header([], [tensor("t", (kind.block_size, 2), kind.id)]), kind.block_bytes * 2))
        with open_gguf(path) as file:
            assert file.tensors["t"].nbytes == kind.block_bytes * 2


def test_version_2_and_custom_alignment(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    pairs = [pair("general.alignment", U32, struct.pack("<I", 256))]
    path.write_bytes(padded(header(pairs, [tensor("t", (4,), offset=256)], version=2), 272, 256))
    with open_gguf(path) as file:
        assert (file.version, file.alignment, file.data_offset, file.tensors["t"].offset) == (2, 256, 256, 512)


def test_scalar_and_empty_tensors(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(padded(header([], [tensor("scalar", ()), tensor("none", (32, 0), offset=32)]), 36))
    with open_gguf(path) as file:
        assert file.tensors["scalar"].shape == (1,)
        assert file.tensors["none"].nbytes == 0


def test_file_without_tensors_needs_no_padding(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(header([pair("k", U8, b"\1")], []))
    assert read_all(path) == {"k": 1}


ONE = pair("k", U8, b"\1")
BAD_HEADERS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty"),
    "magic": (b"GGML" + bytes(60), "magic"),
    "only magic": (b"GGUF", "version"),
    "version 0": (header([], [], version=0), "neither 2 nor 3"),
    "version 1": (header([], [], version=1), "version 1"),
    "version 4": (header([], [], version=4), "neither 2 nor 3"),
    "big endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "tensor count -1": (header([], [], n_tensors=U64_MAX), "tensor count"),
    "key count -1": (header([], [], n_pairs=U64_MAX), "key count"),
    "key count 10^7": (header([ONE], [], n_pairs=10**7), "key count"),
    "one key too many": (header([ONE], [], n_pairs=2), "key count"),
}
BAD_PAIRS: dict[str, tuple[list[bytes], str]] = {
    "empty key": ([pair("", U8, b"\1")], "is empty"),
    "long key": ([pair("k" * 65536, U8, b"\1")], "longer than 65535"),
    "key length": ([struct.pack("<Q", U64_MAX) + b"abcdef"], "longer than"),
    "key not utf-8": ([pair(b"k\xff", U8, b"\1")], "UTF-8"),
    "duplicate key": ([ONE, ONE], "key 'k' at byte 38: appears twice"),
    "value type 13": ([pair("k", 13, bytes(8))], "key 'k' at byte 33: has the unknown value type 13"),
    "value type 255": ([pair("k", 255, bytes(8))], "unknown value type 255"),
    "bool 7": ([pair("k", BOOL, b"\7")], "holds 7"),
    "string cut": ([pair("k", STRING, struct.pack("<Q", 99) + b"x")], "needs 99 bytes"),
    "string 2^63": ([pair("k", STRING, struct.pack("<Q", 1 << 63) + b"x")], "longer than"),
    "string not utf-8": ([pair("k", STRING, text(b"ab\xc3"))], "at byte 47: is not UTF-8"),
    "surrogate": ([pair("k", STRING, text(b"\xed\xa0\x80"))], "not UTF-8"),
    "nested array": ([pair("k", ARRAY, struct.pack("<IQ", ARRAY, 1) + bytes(64))], "array of arrays"),
    "array type": ([pair("k", ARRAY, struct.pack("<IQ", 77, 1) + bytes(64))], "unknown value type 77"),
    "array count": ([pair("k", ARRAY, struct.pack("<IQ", U32, 1 << 62) + bytes(64))], "do not fit"),
    "array count 2^64-1": ([pair("k", ARRAY, struct.pack("<IQ", U8, U64_MAX) + bytes(64))], "do not fit"),
    "string count": ([pair("k", ARRAY, struct.pack("<IQ", STRING, 1 << 26) + bytes(300))], "do not fit"),
    "string in array": ([pair("k", ARRAY, struct.pack("<IQQ", STRING, 2, 1 << 40) + bytes(64))], "beyond the end"),
    "last string": ([pair("k", ARRAY, struct.pack("<IQQ", STRING, 1, 9) + b"12345678")], "beyond the end"),
    "array text": ([strings("k", ["fine", b"\xff"])], "item 1 is not UTF-8"),
    "array bool": ([pair("k", ARRAY, struct.pack("<IQ", BOOL, 2) + b"\1\2")], "array of bools"),
    "alignment 0": ([pair("general.alignment", U32, bytes(4))], "power of two"),
    "alignment 12": ([pair("general.alignment", U32, struct.pack("<I", 12))], "'general.alignment' at byte 53: 12 is not"),
    "alignment type": ([pair("general.alignment", STRING, text("32"))], "must be uint32"),
    "alignment array": ([pair("general.alignment", ARRAY, struct.pack("<IQI", U32, 1, 32))], "must be uint32"),
}
BAD_TENSORS: dict[str, tuple[list[bytes], str]] = {
    "empty name": ([tensor("", (4,))], "a tensor name at byte 24: is empty"),
    "long name": ([tensor("t" * 64, (4,))], "longer than 63"),
    "name not utf-8": ([tensor(b"\x80", (4,))], "UTF-8"),
    "five dimensions": ([tensor("t", (1, 1, 1, 1, 1))], "tensor 't' at byte 33: has 5 dimensions"),
    "dimensions 2^32-1": ([text("t") + struct.pack("<I", (1 << 32) - 1) + bytes(99)], "dimensions"),
    "negative": ([tensor("t", (U64_MAX,))], "too many elements"),
    "product 2^64": ([tensor("t", (1 << 32, 1 << 32))], "too many elements"),
    "product hidden by 0": ([tensor("t", (1 << 40, 1 << 40, 0))], "too many elements"),
    "bytes beyond 2^63": ([tensor("t", (1 << 62,))], "end beyond"),
    "unknown type": ([tensor("t", (4,), 43)], "tensor 't' at byte 45: has the unknown type 43"),
    "type -1": ([tensor("t", (4,), (1 << 32) - 1)], "unknown type"),
    "removed type": ([tensor("t", (32,), 31)], "Q4_0_4_4"),
    "broken row": ([tensor("t", (33, 2), 8)], "no whole blocks of 32"),
    "broken row, whole product": ([tensor("t", (128, 2), 12)], "no whole blocks of 256"),
    "duplicate": ([tensor("t", (4,)), tensor("t", (4,), offset=32)], "tensor 't' at byte 57: appears twice"),
    "offset unaligned": ([tensor("t", (4,), offset=4)], "multiple of the alignment"),
    "offset 2^63": ([tensor("t", (4,), offset=1 << 63)], "end beyond"),
    "offset 2^64-32": ([tensor("t", (4,), offset=U64_MAX - 31)], "end beyond"),
    "one byte too long": ([tensor("t", (4097,), 24)], "end beyond"),
    "overlap": ([tensor("a", (16,)), tensor("b", (4,), offset=32)], "overlaps tensor 'a'"),
    "same place": ([tensor("a", (4,)), tensor("b", (4,))], "overlaps"),
}


@pytest.mark.parametrize("name", BAD_HEADERS)
def test_bad_header(refused: Callable[..., GGUFError], name: str) -> None:
    refused(*BAD_HEADERS[name])


@pytest.mark.parametrize("name", BAD_PAIRS)
def test_bad_pair(refused: Callable[..., GGUFError], name: str) -> None:
    pairs, match = BAD_PAIRS[name]
    refused(header(pairs, []), match)


@pytest.mark.parametrize("name", BAD_TENSORS)
def test_bad_tensor(refused: Callable[..., GGUFError], name: str) -> None:
    tensors, match = BAD_TENSORS[name]
    refused(padded(header([], tensors)), match)


def test_every_truncation(sample: Path) -> None:
    with open_gguf(sample) as file:
        end = max(info.offset + info.nbytes for info in file.tensors.values())
    for size in reversed(range(end)):
        os.truncate(sample, size)
        with pytest.raises(GGUFError):
            read_all(sample)


def test_mutations(sample: Path, tmp_path: Path) -> None:
    """Flipped bits, boundary numbers and splices in a valid header load or end in GGUFError; nothing else comes out."""
    rng = random.Random(4)
    content = sample.read_bytes()
    path = tmp_path / "mutant.gguf"
    loaded = 0
    for _ in range(3000):
        mutant = bytearray(content)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(mutant) - 8)
            match rng.randrange(4):
                case 0:
                    mutant[at] ^= 1 << rng.randrange(8)
                case 1:
                    mutant[at] = rng.randrange(256)
                case 2:
                    mutant[at : at + 8] = struct.pack("<Q", rng.choice((0, 1, 1 << 31, 1 << 32, 1 << 63, U64_MAX)))
                case 3:
                    source = rng.randrange(len(content) - 16)
                    mutant[at : at + 8] = content[source : source + rng.randrange(16)]
        path.write_bytes(mutant)
        try:
            read_all(path)
            loaded += 1
        except GGUFError:
            pass
    assert 0 < loaded < 3000


def test_small_file_that_promises_much_costs_no_memory(tmp_path: Path) -> None:
    """A child whose address space is hardly larger than an interpreter's opens hostile counts."""
    path = tmp_path / "m.gguf"
    hostile = [
        header([pair("k", ARRAY, struct.pack("<IQ", STRING, 1 << 26) + bytes(300))], []),
        header([pair("k", ARRAY, struct.pack("<IQ", U8, 1 << 40) + bytes(300))], []),
        header([pair("k", STRING, struct.pack("<Q", 1 << 33) + bytes(300))], []),
        header([], [], n_tensors=1 << 40),
        header([], [], n_pairs=1 << 40),
        padded(header([], [tensor("t", (1 << 40, 1 << 20), 24)])),
    ]
    script = (
        "import resource, sys\n"
        "from runtime.gguf_file import GGUFError, open_gguf\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (16 << 20),) * 2)\n"
        "try:\n    open_gguf(sys.argv[1])\n"
        "except GGUFError:\n    sys.exit(3)\n"
    )
    for content in hostile:
        path.write_bytes(content)
        assert subprocess.run([sys.executable, "-c", script, str(path)], check=False).returncode == 3


def test_stdlib_only() -> None:
    script = (
        "import sys; before = set(sys.modules); import runtime.gguf_file\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "print(*sorted(new - sys.stdlib_module_names))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["runtime"]


def test_not_a_regular_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path):
        with pytest.raises(GGUFError, match="no regular file"):
            open_gguf(path)
    with pytest.raises(FileNotFoundError):
        open_gguf(tmp_path / "missing")


def split_pairs(number: int, count: int, tensors: int) -> list[bytes]:
    return [
        pair("split.no", 2, struct.pack("<H", number)),
        pair("split.count", 2, struct.pack("<H", count)),
        pair("split.tensors.count", 5, struct.pack("<i", tensors)),
    ]


@pytest.fixture
def split(tmp_path: Path) -> Callable[..., Path]:
    """Write a model of two parts; `second` replaces the second file, `stem` the name."""

    def write(second: bytes | None = None, tensors: int = 2, stem: str = "m") -> Path:
        first = tmp_path / f"{stem}-00001-of-00002.gguf"
        first.write_bytes(padded(header(split_pairs(0, 2, tensors), [tensor("a", (4,))]), 16))
        other = padded(header(split_pairs(1, 2, tensors), [tensor("b", (8,))]), 32)
        first.with_name(f"{stem}-00002-of-00002.gguf").write_bytes(other if second is None else second)
        return first

    return write


def test_split(split: Callable[..., Path]) -> None:
    first = split()
    with open_gguf(first) as file:
        assert [(t.name, t.part, t.nbytes) for t in file.tensors.values()] == [("a", 0, 16), ("b", 1, 32)]
        assert file.parts == [first, first.with_name("m-00002-of-00002.gguf")]
        assert file.size == sum(part.stat().st_size for part in file.parts)


def test_split_written_by_gguf(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama", split_max_tensors=1)
    for name in "abc":
        writer.add_tensor(name, np.zeros((2, 4), np.float32))
    writer.write_header_to_file(tmp_path / "m.gguf")
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with open_gguf(tmp_path / "m-00001-of-00003.gguf") as file:
        assert [(t.name, t.part) for t in file.tensors.values()] == [("a", 0), ("b", 1), ("c", 2)]
    with pytest.raises(GGUFError, match="part 2 of 3"):
        open_gguf(tmp_path / "m-00002-of-00003.gguf")
    with open_gguf(tmp_path / "m-00002-of-00003.gguf", follow_split=False) as file:
        assert list(file.tensors) == ["b"]


@pytest.mark.parametrize(
    ("second", "match"),
    [
        (padded(header(split_pairs(0, 2, 2), [tensor("b", (8,))])), "split.no"),
        (padded(header(split_pairs(1, 3, 2), [tensor("b", (8,))])), "split.count"),
        (padded(header(split_pairs(1, 2, 2), [tensor("a", (8,))])), "repeats the tensor 'a'"),
        (padded(header([], [tensor("b", (8,))])), "missing or no integer"),
        (padded(header(split_pairs(1, 2, 2), [tensor("b", (8,)), tensor("c", (8,), offset=32)])), "promises 2 tensors"),
        (b"GGUF", "m-00002-of-00002.gguf: the version"),
    ],
)
def test_split_with_a_bad_part(split: Callable[..., Path], second: bytes, match: str) -> None:
    with pytest.raises(GGUFError, match=match):
        open_gguf(split(second))


def test_split_names_and_missing_parts(split: Callable[..., Path], tmp_path: Path) -> None:
    first = split()
    first.with_name("m-00002-of-00002.gguf").unlink()
    with pytest.raises(GGUFError, match=r"m-00002-of-00002\.gguf is missing"):
        open_gguf(first)
    first.rename(tmp_path / "sha256-00")
    with pytest.raises(GGUFError, match="is not named"):
        open_gguf(tmp_path / "sha256-00")
