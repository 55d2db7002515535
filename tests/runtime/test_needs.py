"""Plans for cards that get smaller and smaller; no card is needed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_gguf

from runtime import models
from runtime.execute.needs import first_layer, is_matrix, mixtures, needs_of, on_card, planned
from runtime.execute.placement import SLACK, NoRoom, Plan
from runtime.frames import Load
from runtime.models.transformer import Transformer
from runtime.weights import Weights, open_weights

LAYERS = 6


@pytest.fixture(params=["qwen3moe", "llama"])
def loaded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Weights, Transformer]]:
    shape = tiny_gguf.variant(request.param, "F32")
    path = tiny_gguf.write(tmp_path / "m.gguf", tiny_gguf.dataclasses.replace(shape, layers=LAYERS))
    weights = open_weights(path, lambda *_: None)
    yield weights, models.build(weights)
    weights.close()


def plan_of(loaded: tuple[Weights, Transformer], vram: int, **options: int) -> tuple[Plan, int]:
    return planned(*loaded, Load("m", num_ctx=512, num_parallel=1, num_batch=256, **options), 512, vram, None)


def test_the_output_counts_as_the_last_layer() -> None:
    assert [first_layer(n, 6) for n in (-1, 99, 7, 6, 2, 1)] == [0, 0, 0, 1, 5, 6]


def test_as_many_layers_as_asked_for(loaded: tuple[Weights, Transformer]) -> None:
    weights, model = loaded
    for num_gpu, first in ((7, 0), (6, 1), (3, 4), (1, 6)):
        chosen, _ = plan_of(loaded, 1 << 30, num_gpu=num_gpu)
        assert chosen.first == first
        assert len(chosen.resident) == len(mixtures(model, first))
        here = sum(tensor.nbytes for tensor in weights if on_card(tensor, model, first))
        needs = needs_of(weights, model, 9, 256, 512, first)
        assert needs.dense + sum(count * size for count, size in needs.experts) == here
        assert chosen.vram == here + needs.block * 9


def test_words(loaded: tuple[Weights, Transformer]) -> None:
    words = [plan_of(loaded, 1 << 30, num_gpu=n)[0].words for n in (7, 6, 4, 1)]
    assert words[0].startswith("all 6 layers on GPU 0 (")
    assert words[1].startswith("the first layer on the CPU (")
    assert "then all 5 layers on GPU 0 (" in words[1]
    assert words[2].startswith("the first 3 layers on the CPU (")
    assert "then the output on GPU 0 (" in words[3]


def test_a_card_that_shrinks_gets_fewer_layers_and_at_last_none(loaded: tuple[Weights, Transformer]) -> None:
    """Never more than there is; experts leave the card before layers do."""
    weights, model = loaded
    needs = needs_of(weights, model, 9, 256, 512)
    experts = sum(count * size for count, size in needs.experts)
    vram, firsts = SLACK + needs.step + needs.block * 9 + needs.dense + experts, list[int]()

    def shrink() -> None:
        for taken in range(100):
            room = vram - taken * (needs.dense + experts) // 40
            chosen, rows = plan_of(loaded, room)
            least = needs_of(weights, model, 9, rows, 512, chosen.first)
            stages = chosen.stages * max((count * size for count, size in least.experts), default=0)
            assert SLACK + least.step + stages + chosen.vram + chosen.spare == room
            firsts.append(chosen.first)

    with pytest.raises(NoRoom, match="are needed"):
        shrink()
    assert firsts[0] == 0
    assert firsts == sorted(firsts)
    assert firsts[-1] >= LAYERS - 2


def test_layers_of_experts_in_ram_are_counted_from_the_first(loaded: tuple[Weights, Transformer]) -> None:
    if not mixtures(loaded[1]):
        pytest.skip("no experts")
    chosen, _ = plan_of(loaded, 1 << 30, num_gpu=5, num_cpu_moe=4)
    assert chosen.first == 2
    assert chosen.resident == (0, 0, 8, 8)


def test_the_embedding_stays_with_the_first_layer(loaded: tuple[Weights, Transformer]) -> None:
    weights, model = loaded
    (table,) = (tensor for tensor in weights if tensor.name == "token_embd.weight")
    tied = model.output.weight.name == table.name
    assert on_card(table, model, 0)
    assert on_card(table, model, 1) is tied


@pytest.mark.parametrize("architecture", sorted(tiny_gguf.ARCHITECTURES))
def test_matrices_have_rows_that_a_card_can_divide(architecture: str, tmp_path: Path) -> None:
    weights = open_weights(tiny_gguf.write(tmp_path / "m.gguf", tiny_gguf.ARCHITECTURES[architecture]), lambda *_: None)
    models.build(weights)
    assert [tensor.name for tensor in weights if is_matrix(tensor) and tensor.shape[0] % 8] == []
    weights.close()


def test_states_of_texts_are_counted(tmp_path: Path) -> None:
    weights = open_weights(tiny_gguf.write(tmp_path / "m.gguf", tiny_gguf.ARCHITECTURES["qwen35moe"]), lambda *_: None)
    model = models.build(weights)
    assert model.state_bytes() == 4 * 4 * (3 * 2 * 4 * 64 + 4 * 64 * 64)  # four layers: inputs of 512 channels, four heads
    assert model.state_bytes(4) == model.state_bytes() / 4
    steps = [needs_of(weights, model, 9, 256, 512, num_parallel=parallel).step for parallel in (4, 8)]
    assert steps[1] - steps[0] == 4 * model.state_bytes()
    weights.close()
