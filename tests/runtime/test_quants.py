"""The NumPy reference of every type against `gguf`, and the table."""

from __future__ import annotations

import gguf
import leaf_twins as twins
import numpy as np
import pytest

from runtime.quants import BY_NAME, TYPES, LeafType, QuantType

Array = np.ndarray
every_type = pytest.mark.parametrize("kind", list(TYPES.values()), ids=lambda kind: kind.name)


def assert_same(kind: QuantType, blocks: Array) -> None:
    """Equal bits; where gguf has a NaN any NaN will do."""
    with np.errstate(all="ignore"):
        expected = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType(kind.type_id)).reshape(len(blocks), -1)
        found = kind.dequantize(blocks)
    assert found.dtype == np.float32
    assert found.shape == (len(blocks), kind.block_size)
    same = (found.view(np.uint32) == expected.view(np.uint32)) | (np.isnan(found) & np.isnan(expected))
    assert np.all(same), np.argwhere(~same)[:5]


@every_type
def test_table_agrees_with_gguf(kind: QuantType) -> None:
    known = gguf.GGMLQuantizationType(kind.type_id)
    assert (known.name, gguf.GGML_QUANT_SIZES[known]) == (kind.name, (kind.block_size, kind.block_bytes))
    assert BY_NAME[kind.name] is TYPES[kind.type_id] is kind


@every_type
def test_random_bytes(kind: QuantType) -> None:
    assert_same(kind, np.random.default_rng(2).integers(0, 256, (500, kind.block_bytes), np.uint8))


@pytest.mark.parametrize("kind", twins.LEAF_TYPES, ids=lambda kind: kind.name)
def test_ordinary_blocks(kind: LeafType) -> None:
    assert_same(kind, twins.random_blocks(kind, 200, np.random.default_rng(3)))


@pytest.mark.parametrize("name", twins.SCALES)
def test_every_f16_scale(name: str) -> None:
    """All 65,536: subnormals, both zeros, infinities and NaNs included."""
    kind = BY_NAME[name]
    every = np.arange(1 << 16, dtype="<u2").view(np.uint8).reshape(-1, 2)
    for offset in twins.SCALES[name]:
        blocks = np.resize(np.random.default_rng(4).integers(0, 256, (1, kind.block_bytes), np.uint8), (256, kind.block_bytes))
        blocks[:, 0:2], blocks[:, 2:4] = np.float16(0.5).tobytes()[0], np.float16(0.25).tobytes()[1]
        for part in every.reshape(256, 256, 2):
            blocks[:, offset : offset + 2] = part
            assert_same(kind, blocks)


@pytest.mark.parametrize("name", ["F16", "BF16"])
def test_every_sixteen_bit_float(name: str) -> None:
    assert_same(BY_NAME[name], np.arange(1 << 16, dtype="<u2").view(np.uint8).reshape(-1, 2))


@pytest.mark.parametrize("name", twins.PACKED_SCALES)
def test_every_byte_in_every_packed_scale(name: str) -> None:
    kind = BY_NAME[name]
    assert isinstance(kind, LeafType)
    base = twins.random_blocks(kind, 1, np.random.default_rng(5))
    for position in range(kind.block_bytes)[twins.PACKED_SCALES[name]]:
        blocks = np.repeat(base, 256, axis=0)
        blocks[:, position] = np.arange(256)
        assert_same(kind, blocks)


@pytest.mark.parametrize("kind", [kind for kind in twins.LEAF_TYPES if kind.block_size > 1], ids=lambda kind: kind.name)
def test_quants_at_their_limits(kind: LeafType) -> None:
    assert_same(kind, np.concatenate(twins.limit_blocks(kind)))
