"""The folder of compiled kernels."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import numba
import pytest
from numba.core.caching import IndexDataCacheFile

from runtime.kernels import cache, isa, jit
from runtime.kernels.cache import KernelCache


@pytest.fixture(autouse=True)
def _numba_folder() -> Iterator[None]:
    """`configure` tells numba of its folder; tell it the old one afterwards."""
    before = numba.config.CACHE_DIR
    yield
    numba.config.CACHE_DIR = before


def nothing(a: int) -> None:
    """A kernel."""


def added(a: int) -> int:
    """Called by kernels."""
    return a + 1


def test_numbas_own_variable_wins(tmp_path: Path) -> None:
    folder = cache.configure({"NUMBA_CACHE_DIR": str(tmp_path / "mine"), "XDG_CACHE_HOME": str(tmp_path / "xdg")})
    assert folder == tmp_path / "mine" / f"kernels-{cache.digest()}"
    assert folder.is_dir()
    assert folder == Path(numba.config.CACHE_DIR)


def test_xdg_cache_home(tmp_path: Path) -> None:
    assert cache.configure({"XDG_CACHE_HOME": str(tmp_path)}) == tmp_path / "moellama" / f"kernels-{cache.digest()}"


@pytest.mark.parametrize("xdg", ["", "relative/path"])
def test_home_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, xdg: str) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = cache.configure({"XDG_CACHE_HOME": xdg})
    assert folder == tmp_path / ".cache" / "moellama" / f"kernels-{cache.digest()}"


def test_a_folder_that_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = numba.config.CACHE_DIR
    (tmp_path / "moellama").write_text("a file")
    with caplog.at_level(logging.WARNING):
        assert cache.configure({"XDG_CACHE_HOME": str(tmp_path)}) is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(tmp_path) in caplog.text
    assert before == numba.config.CACHE_DIR


def test_the_three_newest_folders_stay(tmp_path: Path) -> None:
    root = tmp_path / "moellama"
    for age, name in enumerate(["a", "b", "c", "d"]):
        folder = root / f"kernels-{name * 16}"
        folder.mkdir(parents=True)
        os.utime(folder, (1000 - age, 1000 - age))
    (root / "something-else").mkdir()
    folder = cache.configure({"XDG_CACHE_HOME": str(tmp_path)})
    assert folder is not None
    assert {path.name for path in root.iterdir()} == {
        *(folder.name, "kernels-aaaaaaaaaaaaaaaa", "kernels-bbbbbbbbbbbbbbbb", "something-else")
    }


def test_digest_covers_every_kernel_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "kernels"
    source.mkdir()
    monkeypatch.setattr(cache, "_RUNTIME", tmp_path)
    digests = [cache.digest()]
    for name, text in [("a.py", "1"), ("b.py", "1"), ("a.py", "2")]:
        (source / name).write_text(text)
        digests.append(cache.digest())
    (source / "b.py").rename(source / "c.py")
    digests.append(cache.digest())
    assert len(set(digests)) == 5


def test_digest_covers_what_is_asked_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for answer in (True, False):
        monkeypatch.setattr(isa, "reads_past_caches", lambda answer=answer: answer)
        found.append(cache.digest())
    assert found[0] != found[1]


def test_seconds_are_counted_over_processes(tmp_path: Path) -> None:
    cache.configure({"NUMBA_CACHE_DIR": str(tmp_path)})
    for _ in range(2):
        kernels = KernelCache(tmp_path)
        kernels.cfunc("void(int64)", nothing)
        assert kernels.compiled + kernels.loaded == 1
    assert (kernels.compiled, kernels.loaded, kernels.seconds) == (0, 1, 0.0)
    lines = (tmp_path / cache.LEDGER).read_text().splitlines()
    assert [line.split()[1] for line in lines] == ["nothing"]
    assert cache.compile_seconds(tmp_path) == float(lines[0].split()[0]) > 0
    assert cache.compile_seconds(tmp_path / "nowhere") == 0.0


def test_a_disk_that_fills_up(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(IndexDataCacheFile, "save", full)
    cache.configure({"NUMBA_CACHE_DIR": str(tmp_path)})
    kernels = KernelCache(tmp_path)
    for _ in range(2):
        assert kernels.cfunc("void(int64)", nothing).address
    assert caplog.text.count("No space left on device") == 1
    assert (kernels.folder, kernels.compiled) == (None, 2)


def test_what_kernels_call_is_compiled_on_a_full_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Functions inside a kernel, and those that Python calls, are kept by numba when they are first called."""

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(IndexDataCacheFile, "save", full)
    numba.config.CACHE_DIR = str(tmp_path)
    monkeypatch.setattr(jit, "FOLDER", tmp_path)
    inner = jit.njit(cache=True)(lambda a: a + 1)
    outer = jit.njit(nogil=True, cache=True)(lambda a: inner(a) + 1)
    assert outer(1) == 3
    assert KernelCache(tmp_path).cfunc("int64(int64)", lambda a: outer(a)).ctypes(1) == 3


def test_whether_kernels_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "ROOM", 0)
    assert cache.keeps(tmp_path)
    assert not cache.keeps(None)
    assert not cache.keeps(tmp_path / "nowhere")
    monkeypatch.setattr(cache, "ROOM", 1 << 62)
    assert not cache.keeps(tmp_path)


def test_functions_are_kept_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numba.config.CACHE_DIR = str(tmp_path)
    monkeypatch.setattr(jit, "FOLDER", tmp_path)
    for hits in (0, 1):
        made = jit.njit(cache=True)(added)
        assert made(1) == 2
        assert sum(made.stats.cache_hits.values()) == hits


def test_decorators_drop_the_cache_where_there_is_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit, "FOLDER", None)
    monkeypatch.setattr(numba.config, "CACHE_DIR", "/dev/null/nowhere")
    assert jit.njit(cache=True)(nothing)._cache.cache_path is None
    assert jit.cfunc("void(int64)", cache=True)(nothing).cache_hits == 0
