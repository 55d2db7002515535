"""How products are divided among threads, and into rows that are unpacked and rows that are not."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import tiny_gguf
from stepping import Text, open_model

from runtime.execute import recorder
from runtime.kernels import jit, tiers
from runtime.kernels.matmul import PIECES, piece_rows
from runtime.quants.opened import Opened
from runtime.quants.strips import Woven
from runtime.quants.unpacked import Unpacked


@pytest.mark.parametrize("threads", [1, 2, 16])
def test_all_threads_find_pieces_however_few_experts_there_are(threads: int) -> None:
    for rows, least, active in itertools.product((768, 1536, 4096), (4, 16), (1, 2, 3, 8)):
        most = rows * 8 // (threads * PIECES) // least * least
        step = piece_rows(rows, least, most, active, threads)
        assert step % least == 0
        assert step <= most
        assert active * -(-rows // step) >= min(threads * PIECES, active * rows // least)


def test_pieces_are_no_smaller_than_the_least_and_no_larger_than_the_most() -> None:
    assert piece_rows(64, 8, 64, 1, 16) == 8
    assert piece_rows(4096, 4, 416, 128, 2) == 416
    assert piece_rows(1536, 4, 192, 0, 16) == 4  # no expert at all
    assert piece_rows(5, 4, 5, 8, 1) == 5


@pytest.mark.parametrize(("kind", "form"), [("IQ2_XXS", Unpacked), ("IQ3_S", Unpacked), ("Q4_K", Opened), ("Q6_K", Opened)])
@pytest.mark.parametrize("architecture", ["llama", "qwen3moe"])
@pytest.mark.parametrize("room", [1, recorder.UNPACKED_BYTES])
def test_rows_unpacked_for_a_prompt_give_the_bits_of_single_tokens(
    architecture: str, kind: str, form: type[Woven], room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In room for a strip, so that pieces have several parts, and for more than they have."""
    monkeypatch.setattr(recorder, "UNPACKED_BYTES", room)
    path = tiny_gguf.write(tmp_path / "m.gguf", tiny_gguf.variant(architecture, kind))
    tokens = np.random.default_rng(3).integers(0, 300, 3 * Opened.pays_from).tolist()
    logits = []
    for step in (1, form.pays_from - 1, form.pays_from, len(tokens)):
        with closing(open_model(path, threads=2)) as executor:
            text = Text(executor, [0, 1])
            logits.append(np.concatenate([text.feed(tokens[at : at + step]) for at in range(0, len(tokens), step)]))
    assert np.ptp(logits[0]) > 0
    for other in logits[1:]:
        assert np.array_equal(logits[0], other)


@pytest.mark.skipif(not tiers.has_tiles(jit.TIER.name), reason="the tests before ran without tiles")
def test_the_same_without_tiles() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", "unpacked"]
    done = subprocess.run(command, env=os.environ | {"MOELLAMA_ISA": "avx512bf16"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("kind", ["Q4_K", "IQ3_S"])
@pytest.mark.parametrize("architecture", ["llama", "qwen3moe"])
def test_any_number_of_rows_gives_the_bits_of_single_tokens(architecture: str, kind: str, tmp_path: Path) -> None:
    path = tiny_gguf.write(tmp_path / "m.gguf", tiny_gguf.variant(architecture, kind))
    tokens = np.random.default_rng(4).integers(0, 300, 33).tolist()
    with closing(open_model(path, threads=2)) as executor:
        rows = [Text(executor, [0]).feed(tokens[:at])[-1] for at in range(1, len(tokens) + 1)]
        singles = np.concatenate([text.feed([token]) for text in [Text(executor, [1])] for token in tokens])
    assert np.ptp(singles) > 0
    assert np.array_equal(np.stack(rows), singles)
