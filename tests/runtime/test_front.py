"""The first layers on the CPU, and the others from what these made."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path

import naive
import numpy as np
import pytest
import tiny_gguf
from stepping import Text, blocks_for, open_model

torch = pytest.importorskip("torch", reason="needs the extra cuda")

from runtime import models  # noqa: E402
from runtime.core import Batch, FloatArray  # noqa: E402
from runtime.execute.front import Front, FrontSize  # noqa: E402
from runtime.execute.recorded import Recorded  # noqa: E402
from runtime.execute.recorder import Recorder  # noqa: E402
from runtime.execute.step import Limits, view  # noqa: E402
from runtime.kernels.leaves import Leaves  # noqa: E402
from runtime.models.transformer import Transformer  # noqa: E402
from runtime.weights import open_weights  # noqa: E402

LIMITS = Limits(64, 64, 16, 16, 8)
LAYERS = 3


class Rest:
    """Stands in for the card: the layers after a front, recorded too."""

    def __init__(self, model: Transformer, first: int) -> None:
        recorder = Recorder(Leaves(), 2, LIMITS, 0)
        recorder.caches = [None] * first  # type: ignore[list-item]
        self._x = recorder._value(model.config.embedding_length)
        self._recorded = Recorded(recorder, model.end(recorder, self._x, first), 2)

    def run(self, batch: Batch, states: FloatArray) -> FloatArray:
        view(self._x, len(states))[:] = states
        self._recorded.run(batch)
        return self._recorded.result[: len(batch.outputs)].copy()

    def close(self) -> None:
        self._recorded.close()


@pytest.mark.parametrize("first", [1, 2, LAYERS])
@pytest.mark.parametrize("architecture", ["qwen3moe", "llama"])
def test_both_parts_make_the_whole(architecture: str, first: int, tmp_path: Path) -> None:
    shape = tiny_gguf.dataclasses.replace(tiny_gguf.variant(architecture, "F32"), layers=LAYERS)
    path = tiny_gguf.write(tmp_path / "m.gguf", shape)
    tokens = np.random.default_rng(2).integers(0, 300, 50).astype(np.int32)
    weights = open_weights(path, lambda *_: None)
    model, device = models.build(weights), torch.device("cpu")
    with ExitStack() as opened:
        text = Text(opened.enter_context(closing(open_model(path, ctx=512))), blocks_for(64))
        rest = opened.enter_context(closing(Rest(model, first)))
        front = opened.enter_context(closing(Front(Leaves(), model, FrontSize(first, LIMITS, 2), device)))
        at = 0
        for rows in (30, 1, 1, 18):
            part, every = tokens[at : at + rows], np.arange(rows, dtype=np.int32)
            batch = Batch(part, at + every, np.zeros(rows, np.int32), np.array([blocks_for(64)], np.int32), every)
            front.run(batch)
            logits = rest.run(batch, front.upload(rows).numpy())
            # keys and values are rounded to f16, for a difference in the last bit to another neighbour
            assert naive.nmse(logits, text.feed(part.tolist())) <= 1e-7
            at += rows
    weights.close()


def test_blocks_are_copied(tmp_path: Path) -> None:
    path = tiny_gguf.write(tmp_path / "m.gguf", tiny_gguf.variant("qwen3moe", "F32"))
    weights = open_weights(path, lambda *_: None)
    front = Front(Leaves(), models.build(weights), FrontSize(1, LIMITS, 1), torch.device("cpu"))
    (cache,) = front._recorded.recorder.caches
    cache.keys[3], cache.values[3] = 7, 9
    front.copy_blocks([(3, 5)])
    assert (cache.keys[5] == 7).all()
    assert (cache.values[5] == 9).all()
    front.close()
    weights.close()
