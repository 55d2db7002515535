"""Changes a store in children that kill themselves before their n-th change of the disk, and checks what they leave.

Usage: crashing_store.py FOLDER with a file m.gguf. Prints how many places to die at there were.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

from store_files import assert_sound, make, upload

from ollama_compat.store import Store
from ollama_compat.store.names import ModelName

CHANGES = ("fsync", "replace", "link", "unlink", "mkdir", "rmdir", "fchmod", "utime")


def main(folder: Path) -> int:
    """Kills children at every place there is; the number of places."""
    asyncio.run(_fill(Store(folder / "start"), folder / "m.gguf"))
    for place in range(1, 1000):
        shutil.rmtree(folder / "models", ignore_errors=True)
        shutil.copytree(folder / "start", folder / "models")
        child = os.fork()
        if not child:
            _die_at(place)
            asyncio.run(_change(Store(folder / "models")))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        _check(Store(folder / "models"))
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            return place
    raise AssertionError("the changes never end")


async def _fill(store: Store, path: Path) -> None:
    digest = await upload(store, path)
    await make(store, "a", files={"m.gguf": digest}, system="first")
    await make(store, "b", from_="a", parameters={"seed": 1})


async def _change(store: Store) -> None:
    await make(store, "a", from_="a", system="second")
    await make(store, "ns/new", from_="b", license="L")
    store.copy(ModelName.parse("b"), ModelName.parse("c"))
    store.delete(ModelName.parse("b"))


def _check(store: Store) -> None:
    assert_sound(store)
    found = {model.name.model: model for model in store.list()}
    assert len(found) == len(store.names())
    assert found["a"].system in ("first", "second")
    assert found.keys() <= {"a", "b", "c", "new"}
    assert "b" in found or "c" in found


def _die_at(place: int) -> None:
    """Makes the process end in the instant before it changes the disk for the `place`-th time."""
    count = 0

    def deadly(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == place:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)

        return wrapped

    for change in CHANGES:
        setattr(os, change, deadly(getattr(os, change)))


if __name__ == "__main__":
    print(main(Path(sys.argv[1])))
