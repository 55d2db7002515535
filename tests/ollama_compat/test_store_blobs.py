"""Blobs: uploads, digests, and what is left when something goes wrong."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from store_files import chunks

from ollama_compat.errors import BadRequest
from ollama_compat.store.blobs import Blobs, DigestMismatch

DATA = b"weights" * 1000
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "store" / "blobs")


def files(blobs: Blobs) -> list[str]:
    return sorted(path.name for path in blobs.folder.iterdir())


async def test_an_upload_is_stored_under_its_digest(blobs: Blobs) -> None:
    assert not blobs.has(DIGEST)
    assert await blobs.receive(DIGEST, chunks(DATA[:10], b"", DATA[10:]))
    assert blobs.has(DIGEST)
    assert files(blobs) == [DIGEST.replace(":", "-")]
    assert blobs.read(DIGEST) == DATA
    assert blobs.path(DIGEST).stat().st_mode & 0o777 == 0o644


async def test_an_empty_upload_is_a_blob_too(blobs: Blobs) -> None:
    digest = f"sha256:{hashlib.sha256(b'').hexdigest()}"
    assert await blobs.receive(digest, chunks())
    assert blobs.read(digest) == b""


async def test_an_upload_of_many_blocks_is_put_together_in_order(blobs: Blobs) -> None:
    data = os.urandom(1 << 20) * 13
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert await blobs.receive(digest, chunks(*(data[i : i + 700_001] for i in range(0, len(data), 700_001))))
    assert blobs.read(digest) == data


async def test_what_is_there_is_not_read_again(blobs: Blobs) -> None:
    await blobs.receive(DIGEST, chunks(DATA))

    async def unread() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    assert not await blobs.receive(DIGEST, unread())


async def test_other_bytes_than_announced_leave_nothing(blobs: Blobs) -> None:
    with pytest.raises(DigestMismatch) as error:
        await blobs.receive(DIGEST, chunks(b"x"))
    got = "sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    assert error.value.message == f'digest mismatch, expected "{DIGEST}", got "{got}"'
    assert files(blobs) == []


@pytest.mark.parametrize("spelling", [DIGEST.replace(":", "-"), f"sha256:{DIGEST[7:].upper()}"])
async def test_a_digest_is_announced_in_one_spelling_only(blobs: Blobs, spelling: str) -> None:
    with pytest.raises(DigestMismatch):
        await blobs.receive(spelling, chunks(DATA))
    assert files(blobs) == []


async def test_an_upload_that_breaks_off_leaves_nothing(blobs: Blobs) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * (5 << 20)
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await blobs.receive(DIGEST, broken())
    assert files(blobs) == []


async def test_a_cancelled_upload_leaves_nothing(blobs: Blobs) -> None:
    started = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * (1 << 20)
            started.set()
            await asyncio.sleep(0)

    task = asyncio.create_task(blobs.receive(DIGEST, endless()))
    await started.wait()
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert files(blobs) == []


async def test_uploads_of_one_digest_side_by_side(blobs: Blobs) -> None:
    async def slow() -> AsyncIterator[bytes]:
        for i in range(0, len(DATA), 500):
            yield DATA[i : i + 500]
            await asyncio.sleep(0)

    results = await asyncio.gather(*(blobs.receive(DIGEST, slow()) for _ in range(16)))
    assert any(results)
    assert files(blobs) == [DIGEST.replace(":", "-")]
    assert blobs.read(DIGEST) == DATA


def test_a_blob_of_the_wrong_size_is_replaced(blobs: Blobs) -> None:
    blobs.folder.mkdir(parents=True)
    blobs.path(DIGEST).write_bytes(DATA[:5])
    with blobs.writer() as writer:
        writer.write(DATA)
        assert writer.seal() == DIGEST
        assert writer.commit()
    assert blobs.read(DIGEST) == DATA


@pytest.mark.parametrize(
    "digest",
    [
        "", "sha256:", "sha256:abcd", f"{DIGEST}0", f"{DIGEST}\n", f" {DIGEST}", "md5:00000000000000000000000000000000",
        "../../etc/passwd", f"sha256:{'../' * 21}x", f"sha256:{'g' * 64}", f"sha256/{'a' * 64}", f"SHA256:{'a' * 64}",
    ],
)  # fmt: skip
def test_what_is_no_digest_never_becomes_a_path(blobs: Blobs, digest: str) -> None:
    with pytest.raises(BadRequest) as error:
        blobs.path(digest)
    assert error.value.message == "invalid digest format"


def test_a_blob_is_a_regular_file(blobs: Blobs) -> None:
    blobs.path(DIGEST).mkdir(parents=True)
    assert not blobs.has(DIGEST)
    blobs.path(DIGEST).rmdir()
    os.mkfifo(blobs.path(DIGEST))
    assert not blobs.has(DIGEST)


async def test_a_blob_that_nobody_hashed_is_hashed_before_it_is_trusted(blobs: Blobs) -> None:
    blobs.folder.mkdir(parents=True)
    path = blobs.path(DIGEST)
    path.write_bytes(DATA)
    assert not blobs.verified.knows(path)
    assert blobs.has(DIGEST)
    assert blobs.verified.knows(path)


async def test_a_damaged_blob_is_not_there_and_is_replaced(blobs: Blobs) -> None:
    blobs.folder.mkdir(parents=True)
    blobs.path(DIGEST).write_bytes(b"X" + DATA[1:])
    assert not blobs.has(DIGEST)
    assert await blobs.receive(DIGEST, chunks(DATA))
    assert blobs.read(DIGEST) == DATA
    assert files(blobs) == [DIGEST.replace(":", "-")]


async def test_a_blob_that_changed_is_hashed_again(blobs: Blobs) -> None:
    await blobs.receive(DIGEST, chunks(DATA))
    path = blobs.path(DIGEST)
    assert blobs.verified.knows(path)
    blobs.verified.touch(path)
    assert blobs.verified.knows(path)
    path.write_bytes(b"X" + DATA[1:])
    assert not blobs.has(DIGEST)


async def test_a_record_goes_with_its_blob(blobs: Blobs) -> None:
    await blobs.receive(DIGEST, chunks(DATA))
    blobs.remove(DIGEST)
    assert list((blobs.own / "verified").iterdir()) == []
    assert blobs.journal.names() == []
