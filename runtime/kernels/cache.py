"""Where compiled kernels lie on disk, and what compiling them cost.

The folder is `<root>/kernels-<digest>` with root = $NUMBA_CACHE_DIR, else $XDG_CACHE_HOME/moellama, else ~/.cache/moellama.
The digest covers every source that becomes machine code, because numba itself only looks at the file of the kernel and
not at what that calls. A folder that cannot be written means one warning, and kernels are compiled in memory.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core.caching import FunctionCache

from runtime.kernels import isa

log = logging.getLogger(__name__)

KEPT_FOLDERS = 3
ROOM = 16 << 20  # bytes: all kernels of a type and tier take 2 to 4 MB
LEDGER = "compiled.log"
"""In the folder: a line `seconds name` for each kernel compiled, by whatever process."""

_RUNTIME = Path(__file__).parents[1]
_SOURCES = ("kernels/*.py", "quants/*.py", "quantize/*.py", "core.py")  # whose functions and constants become machine code
_FOLDER_NAME = re.compile(r"kernels-[0-9a-f]{16}")


def configure(environ: Mapping[str, str] = os.environ) -> Path | None:
    """Point numba at this version's folder, made if need be; None (after a warning) when it cannot be written.

    Must come before the first `cache=True` decorator.
    """
    folder = _folder(environ)
    problem = "no home folder" if folder is None else _make(folder)
    if folder is None or problem:
        log.warning("compiled kernels are not kept: %s; set XDG_CACHE_HOME or NUMBA_CACHE_DIR to a folder that can", problem)
        return None
    numba.config.CACHE_DIR = str(folder)
    return folder


def digest() -> str:
    """Of the kernel sources, the compiler's version, and what the sources ask of the CPU beside its tier."""
    compiler = f"numba {numba.__version__} llvmlite {llvmlite.__version__}"
    total = hashlib.sha256(f"{compiler} {isa.reads_past_caches()}".encode())
    for path in sorted(path for source in _SOURCES for path in _RUNTIME.glob(source)):
        content = path.read_bytes()
        total.update(f"\n{path.parent.name}/{path.name} {len(content)}\n".encode())
        total.update(content)
    return total.hexdigest()[:16]


def compile_seconds(folder: Path) -> float:
    """Seconds that all processes together have spent on compiling into `folder`."""
    try:
        lines = (folder / LEDGER).read_text().splitlines()
    except OSError:
        return 0.0
    return sum(float(line.split()[0]) for line in lines)


class Kept(FunctionCache):  # type: ignore[misc]  # numba has no types
    """numba's cache of a function that kernels call: what the disk has no room for is not kept, and the function runs all the
    same. KernelCache tells of it, once for all."""

    def save_overload(self, sig: Any, data: Any) -> None:
        """As numba's own, whose errors end a compilation."""
        try:
            super().save_overload(sig, data)
        except OSError as error:
            log.debug("%s is not kept: %s", self._name, error)


def keeps(folder: Path | None) -> bool:
    """Whether compiled kernels stay on disk: there is a folder, with room for those of some models."""
    try:
        return folder is not None and shutil.disk_usage(folder).free >= ROOM
    except OSError:
        return False


class KernelCache:
    """Compiles kernels, through the folder where there is one, and counts. One owner a process; not for several threads."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.seconds = 0.0  # spent on compiling in this process
        self.compiled = 0  # kernels compiled here
        self.loaded = 0  # kernels found in the folder

    def cfunc(self, signature: str, function: Callable[..., Any], **options: Any) -> Any:
        """`function` as a numba C callback (`.address`). Keep the object: the machine code lives as long as it does.

        numba keeps one index file for each qualified name, and processes that compile in parallel would overwrite each
        other's entries there; so `function.__qualname__` has to name the kernel and not only its factory.
        """
        started = time.perf_counter()
        compiled = self._compile(signature, function, options)
        if compiled.cache_hits:
            self.loaded += 1
        else:
            self._count(time.perf_counter() - started, function.__qualname__)
        return compiled

    def _compile(self, signature: str, function: Callable[..., Any], options: dict[str, Any]) -> Any:
        if self.folder:
            try:
                return numba.cfunc(signature, cache=True, **options)(function)
            except OSError as error:  # a full disk, a folder removed or made read-only meanwhile
                log.warning("compiled kernels are not kept: %s", error)
                self.folder = None
        return numba.cfunc(signature, cache=False, **options)(function)

    def _count(self, seconds: float, name: str) -> None:
        self.seconds += seconds
        self.compiled += 1
        if self.folder:
            _append(self.folder / LEDGER, f"{seconds:.3f} {name}\n")


def _folder(environ: Mapping[str, str]) -> Path | None:
    name = f"kernels-{digest()}"
    if chosen := environ.get("NUMBA_CACHE_DIR"):
        return Path(chosen).absolute() / name
    base = environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):  # the XDG specification has relative ones ignored
        return Path(base) / "moellama" / name
    try:
        return Path.home() / ".cache" / "moellama" / name
    except RuntimeError:
        return None


def _make(folder: Path) -> str:
    """Create `folder` and write to it; returns what is in the way, or ""."""
    try:
        fresh = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        os.utime(folder)  # its age is the time of the last use
    except OSError as error:
        return str(error)
    if fresh:
        _prune(folder.parent)
    return ""


def _prune(root: Path) -> None:
    """Remove all but the most recently used folders."""
    folders = [path for path in root.iterdir() if _FOLDER_NAME.fullmatch(path.name)]
    for old in sorted(folders, key=_age)[KEPT_FOLDERS:]:
        shutil.rmtree(old, ignore_errors=True)


def _age(path: Path) -> float:
    try:
        return -path.stat().st_mtime
    except OSError:  # removed by another process meanwhile
        return 0.0


def _append(path: Path, line: str) -> None:
    try:
        with path.open("a") as ledger:
            ledger.write(line)
    except OSError as error:
        log.debug("no ledger of compile times: %s", error)


def main() -> None:
    """Print what compiling into this version's folder has cost."""
    folder = configure()
    if folder:
        print(f"{compile_seconds(folder):.1f} s spent compiling kernels into {folder}")


if __name__ == "__main__":
    main()
