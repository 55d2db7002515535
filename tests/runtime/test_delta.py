"""runtime.kernels.delta against plain NumPy: texts of several lines, in pieces, with shapes of all kinds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_gguf
from stepping import Text, blocks_for, open_model

from runtime.core import Batch, ModelError
from runtime.execute.recorded import Recorded
from runtime.execute.recorder import Recorder
from runtime.execute.step import Limits, Value, view
from runtime.kernels.leaves import Leaves
from runtime.layers.ops import DeltaWeights, Recurrence

SHAPES = (
    Recurrence(key_heads=2, value_heads=4, size=64, kernel=4, grouped=True, eps=1e-6),
    Recurrence(key_heads=2, value_heads=6, size=32, kernel=2, grouped=False, eps=1e-6),
    Recurrence(key_heads=3, value_heads=3, size=96, kernel=5, grouped=False, eps=1e-5),
    Recurrence(key_heads=1, value_heads=2, size=128, kernel=3, grouped=True, eps=1e-6),
)
PARTS = ((7,), (1,) * 7, (2, 4, 1), (1, 6), (5, 2))
WIDTHS = ("qkv", "z", "alpha", "beta")


class Given(Recorder):
    """One whose inputs a test writes."""

    def given(self, width: int) -> Value:
        return self._value(width)


class Layer:
    """One layer on the CPU, and its random weights."""

    def __init__(self, shape: Recurrence, seed: int = 1, threads: int = 2) -> None:
        rng = np.random.default_rng(seed)
        heads = shape.value_heads
        self.shape = shape
        self.weights = DeltaWeights(
            rng.normal(0, 0.5, (shape.channels, shape.kernel)).astype(np.float32),
            -np.exp(rng.normal(0, 0.5, heads)).astype(np.float32),
            rng.normal(0, 0.5, heads).astype(np.float32),
            rng.normal(1, 0.1, shape.size).astype(np.float32),
        )
        self.recorder = Given(Leaves(), threads, Limits(32, 1, 1, 1, 1, lines=8))
        widths = shape.channels, heads * shape.size, heads, heads
        self.inputs = [self.recorder.given(width) for width in widths]
        self.recorded = Recorded(self.recorder, self.recorder.delta(0, *self.inputs, shape, self.weights), threads)

    def step(self, rows: Sequence[tuple[int, int, Sequence[np.ndarray]]]) -> np.ndarray:
        """One pass over rows (line, position, inputs)."""
        for value, arrays in zip(self.inputs, zip(*(row[2] for row in rows), strict=True), strict=True):
            view(value, len(rows))[:] = arrays
        lines, positions = (np.array([row[i] for row in rows], np.int32) for i in (0, 1))
        nothing = np.zeros(0, np.int32)
        self.recorded.run(Batch(np.zeros_like(lines), positions, lines, np.zeros((8, 1), np.int32), nothing))
        return view(self.recorded.out, len(rows)).copy()


Make = Callable[..., Layer]


@pytest.fixture
def layers() -> Iterator[Make]:
    """Makes layers, whose threads end with the test."""
    made: list[Layer] = []

    def make(*arguments: Any, **options: Any) -> Layer:
        made.append(Layer(*arguments, **options))
        return made[-1]

    yield make
    for layer in made:
        layer.recorded.close()


def text(shape: Recurrence, seed: int, length: int = 7) -> list[list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    widths = shape.channels, shape.value_heads * shape.size, shape.value_heads, shape.value_heads
    return [[rng.normal(0, 1, width).astype(np.float32) for width in widths] for _ in range(length)]


def twin(shape: Recurrence, weights: DeltaWeights, inputs: list[list[np.ndarray]]) -> np.ndarray:
    """What a whole text gives, token by token, in float64."""
    past = [np.zeros(shape.channels)] * (shape.kernel - 1) + [np.float64(row[0]) for row in inputs]
    state = np.zeros((shape.value_heads, shape.size, shape.size))
    out = []
    for at, (_, z, alpha, beta) in enumerate(inputs):
        mixed = np.sum(np.stack(past[at : at + shape.kernel], 1) * weights.conv, 1)
        heads = (mixed / (1 + np.exp(-mixed))).reshape(-1, shape.size)
        heads[: 2 * shape.key_heads] /= np.sqrt(np.sum(heads[: 2 * shape.key_heads] ** 2, 1, keepdims=True) + shape.eps)
        q, k, v = np.split(heads, [shape.key_heads, 2 * shape.key_heads])
        share = shape.value_heads // shape.key_heads
        q, k = (np.repeat(x, share, 0) if shape.grouped else np.tile(x, (share, 1)) for x in (q, k))
        state *= np.exp(weights.decay * np.log1p(np.exp(alpha.astype(np.float64) + weights.bias)))[:, None, None]
        change = (v - np.einsum("hij,hi->hj", state, k)) / (1 + np.exp(-beta.astype(np.float64)))[:, None]
        state += k[:, :, None] * change[:, None, :]
        result = np.einsum("hij,hi->hj", state, q) / np.sqrt(shape.size)
        result /= np.sqrt(np.mean(result**2, 1, keepdims=True) + shape.eps)
        gate = z.reshape(-1, shape.size)
        out.append((result * weights.norm * gate / (1 + np.exp(-gate.astype(np.float64)))).reshape(-1))
    return np.array(out)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_text_in_any_pieces_matches_the_twin(shape: Recurrence, layers: Make) -> None:
    layer, inputs = layers(shape), text(shape, 2)
    expected = twin(shape, layer.weights, inputs)
    for parts in PARTS:
        found, at = [], 0
        for part in parts:
            found += list(layer.step([(3, at + i, inputs[at + i]) for i in range(part)]))
            at += part
        np.testing.assert_allclose(found, expected, atol=2e-5, rtol=2e-4)


def test_lines_know_nothing_of_one_another(layers: Make) -> None:
    shape, layer = SHAPES[1], layers(SHAPES[1])
    texts = {line: text(shape, line) for line in (0, 5, 7)}
    alone = {line: np.concatenate([layer.step([(line, i, row)]) for i, row in enumerate(rows)]) for line, rows in texts.items()}
    first = layer.step([(line, i, texts[line][i]) for line in (5, 0, 7) for i in range(3)])
    second = layer.step([(line, i, texts[line][i]) for line in (7, 5) for i in range(3, 7)])
    np.testing.assert_array_equal(first, np.concatenate([alone[line][:3] for line in (5, 0, 7)]))
    np.testing.assert_array_equal(second, np.concatenate([alone[line][3:] for line in (7, 5)]))


def test_a_copied_state_goes_on_like_its_source(layers: Make) -> None:
    shape, layer = SHAPES[0], layers(SHAPES[0])
    inputs = text(shape, 4)
    layer.step([(1, i, inputs[i]) for i in range(4)])
    layer.recorded.copy_states([(1, 6), (6, 2)])
    expected = layer.step([(1, i, inputs[i]) for i in range(4, 7)])
    np.testing.assert_array_equal(layer.step([(2, i, inputs[i]) for i in range(4, 7)]), expected)
    np.testing.assert_array_equal(layer.step([(6, i, inputs[i]) for i in range(4, 7)]), expected)


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_do_not_change_a_bit(threads: int, layers: Make) -> None:
    rows = [(0, i, row) for i, row in enumerate(text(SHAPES[0], 5))]
    np.testing.assert_array_equal(layers(SHAPES[0], threads=threads).step(rows), layers(SHAPES[0]).step(rows))


def test_values_far_out_stay_numbers(layers: Make) -> None:
    shape, layer = SHAPES[0], layers(SHAPES[0])
    for factor in (0.0, 1e4):
        rows = [(0, i, [x * np.float32(factor) for x in row]) for i, row in enumerate(text(shape, 6))]
        assert np.isfinite(layer.step(rows)).all()


@pytest.mark.parametrize("architecture", ["qwen3next", "qwen35", "qwen35moe"])
def test_a_long_prompt_is_the_same_in_pieces(architecture: str, tmp_path: Path) -> None:
    executor = open_model(tiny_gguf.write(tmp_path / "m.gguf", tiny_gguf.variant(architecture, "F32")))
    tokens = np.random.default_rng(1).integers(0, 300, 90).tolist()
    at_once = Text(executor, blocks_for(128)).feed(tokens)
    in_pieces = Text(executor, blocks_for(128)[::-1])
    logits = np.concatenate([in_pieces.feed(part) for part in (tokens[:1], tokens[1:40], tokens[40:88], *zip(tokens[88:]))])
    np.testing.assert_allclose(logits, at_once, atol=1e-4)
    executor.close()


def test_older_files_have_queries_keys_values_and_gates_in_one_matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shape, rng = tiny_gguf.ARCHITECTURES["qwen3next"], np.random.default_rng(3)
    key_heads, _heads, size = shape.recurrent
    everything = tiny_gguf.tensors(shape)
    given = {name: rng.normal("norm" in name, 0.05, sizes).astype(np.float32) for name, sizes in everything.items()}
    path = tiny_gguf.write(tmp_path / "new.gguf", shape, given=given)
    for name in [name for name in given if name.endswith("attn_qkv.weight")]:
        z = given.pop(name.replace("qkv", "gate"))
        parts = np.split(given.pop(name), [key_heads * size, 2 * key_heads * size])
        by_head = [part.reshape(key_heads, -1, shape.embedding) for part in (*parts, z)]
        given[name.replace("attn_qkv", "ssm_in")] = np.concatenate(by_head, 1).reshape(-1, shape.embedding)
    monkeypatch.setattr(tiny_gguf, "tensors", lambda shape: {name: values.shape for name, values in given.items()})
    older, tokens = tiny_gguf.write(tmp_path / "old.gguf", shape, given=given), list(range(20))
    logits = []
    for file in (path, older):
        executor = open_model(file)
        logits.append(Text(executor, blocks_for(64)).feed(tokens))
        executor.close()
    np.testing.assert_allclose(logits[1], logits[0], atol=1e-5)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"ssm.group_count": 3}, "4 value heads cannot share 3 key heads"),
        ({"ssm.inner_size": 128}, "4 heads of 64 do not make 128"),
        ({"ssm.conv_kernel": 1}, "a convolution of 1 tokens"),
        ({"ssm.state_size": 66, "ssm.inner_size": 264}, "tensor 'blk.0.attn_qkv.weight' has shape"),
    ],
    ids=str,
)
def test_shapes_that_cannot_be_are_refused(keys: dict[str, int], message: str, tmp_path: Path) -> None:
    shape = tiny_gguf.ARCHITECTURES["qwen35moe"]
    path = tiny_gguf.write(tmp_path / "m.gguf", tiny_gguf.dataclasses.replace(shape, metadata=shape.metadata | keys))
    with pytest.raises(ModelError, match=message.replace("(", r"\(")):
        open_model(path)
