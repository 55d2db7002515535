"""Quantising as a job: frames in and out, errors as frames, and its end with its parent."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import tiny_gguf

from runtime import frames
from runtime.frames import Failed, Finished, LoadProgress, Work
from runtime.gguf_file import open_gguf


@pytest.fixture
def job() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-m", "runtime.job"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process
        process.kill()


def ask(job: subprocess.Popen[bytes], request: frames.Request) -> list[frames.Frame]:
    """All frames that come back."""
    assert job.stdin is not None
    assert job.stdout is not None
    job.stdin.write(frames.encode(request))
    job.stdin.flush()
    replies = []
    while prefix := job.stdout.read(frames.PREFIX_BYTES):
        replies.append(frames.decode(job.stdout.read(frames.body_length(prefix))))
    return replies


def work(source: Path, target: Path, mix: str, overrides: Sequence[tuple[str, str]] = ()) -> Work:
    return Work("quantize", {"source": str(source), "target": str(target), "mix": mix, "overrides": list(overrides)})


def test_quantizing(job: subprocess.Popen[bytes], tmp_path: Path) -> None:
    source = tiny_gguf.write(tmp_path / "source.gguf", tiny_gguf.variant("llama", "F16"))
    target = tmp_path / "target.gguf"
    target.touch()
    *progress, last = ask(job, work(source, target, "Q8_0", [("attn_k", "F16")]))
    assert last == Finished({})
    assert isinstance(progress[-1], LoadProgress)
    assert progress[-1].completed == progress[-1].total > 0
    with open_gguf(target) as file:
        assert file.tensors["blk.0.attn_q.weight"].type_name == "Q8_0"
        assert file.tensors["blk.0.attn_k.weight"].type_name == "F16"
    assert job.wait(10) == 0


def test_a_file_that_is_no_model(job: subprocess.Popen[bytes], tmp_path: Path) -> None:
    (tmp_path / "source.gguf").write_bytes(b"nothing")
    (tmp_path / "target.gguf").touch()
    (failed,) = ask(job, work(tmp_path / "source.gguf", tmp_path / "target.gguf", "Q8_0"))
    assert isinstance(failed, Failed)
    assert failed.kind == "bad_model"
    assert job.wait(10) == 1


def test_a_mix_that_nobody_knows(job: subprocess.Popen[bytes], tmp_path: Path) -> None:
    (failed,) = ask(job, work(tmp_path, tmp_path, "Q9_9"))
    assert failed == Failed(None, "bad_model", "there is no mix 'Q9_9'")


def test_a_frame_that_is_no_job(job: subprocess.Popen[bytes]) -> None:
    assert ask(job, frames.Load("x")) == []
    assert job.wait(10) == 1


def test_it_ends_when_its_parent_is_gone(job: subprocess.Popen[bytes], tmp_path: Path) -> None:
    source = tiny_gguf.write(tmp_path / "source.gguf", tiny_gguf.Shape(layers=24, feed_forward=2048, vocab=4096))
    (tmp_path / "target.gguf").touch()
    assert job.stdin is not None
    job.stdin.write(frames.encode(work(source, tmp_path / "target.gguf", "Q5_K_M")))
    job.stdin.close()
    assert job.wait(20) == 1
