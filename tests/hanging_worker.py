"""A runner whose hand-off thread hangs in the middle of an answer; needs an NVIDIA GPU. All experts stay in RAM."""

from __future__ import annotations

import itertools
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a script's path begins with its own folder

from runtime.execute import hybrid
from runtime.frames import Load
from runtime.gguf_file import open_gguf
from runtime.loader import Model
from runtime.tokenizer import Tokenizer
from runtime.weights import Progress
from runtime.worker import main

STEPS = 5  # before the one that hangs


def open_hanging(request: Load, progress: Progress) -> Model:
    """Stands in for runtime.loader.open_model."""
    with open_gguf(request.path) as file:
        tokenizer = Tokenizer.from_gguf(file.metadata)
    executor = hybrid.load(request, progress, resident=0, over_pcie=0.0)
    assert executor is not None
    assert executor._program is not None
    run, steps = executor._program.run, itertools.count()

    def run_until_it_hangs(rows: int) -> None:
        if next(steps) == STEPS:
            threading.Event().wait()
        run(rows)

    executor._program.run = run_until_it_hangs
    return Model("hanging", executor, tokenizer, executor.num_ctx)


if __name__ == "__main__":
    main(open_hanging)
