"""Arrays that grow where they are, on memory that a stand-in hands out; no card is needed."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs the extra cuda")

from runtime.cuda.blocks import BlockMemory  # noqa: E402
from runtime.cuda.nvrtc import CudaError  # noqa: E402

SHAPE, BLOCK = (2, 64, 8), 2 * 64 * 8 * 2  # bytes of a block


class Host:
    """Implements Pages: what is backed, by address. `most`: bytes that can be backed."""

    granularity = 4096

    def __init__(self, most: int = 1 << 30) -> None:
        self.backed: dict[int, int] = {}
        self.left, self.next, self.released = most, 1 << 40, list[tuple[int, int, int]]()

    def reserve(self, nbytes: int) -> int:
        assert nbytes % self.granularity == 0
        self.next += nbytes
        return self.next - nbytes

    def back(self, address: int, nbytes: int) -> None:
        assert nbytes > 0
        assert nbytes % self.granularity == 0
        if nbytes > self.left:
            raise CudaError("cuMemCreate: 2")
        self.left -= nbytes
        self.backed[address] = nbytes

    def release(self, address: int, backed: int, nbytes: int) -> None:
        self.released.append((address, backed, nbytes))


@pytest.fixture
def shapes(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Views are ordinary tensors full of ones."""
    made: list[torch.Tensor] = []

    def view(self: BlockMemory, address: int, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        made.append(torch.ones(shape, dtype=dtype))
        return made[-1]

    monkeypatch.setattr(BlockMemory, "_view", view)
    return made


def test_memory_follows_what_is_there_without_gaps(shapes: list[torch.Tensor]) -> None:
    host = Host()
    memory = BlockMemory(torch.device("cpu"), host, 5, 100)
    keys, values = memory.array(SHAPE, torch.float16), memory.array((2, 64, 24), torch.float16)
    assert keys.shape == (100, *SHAPE)
    for blocks in (5, 6, 40, 100):
        needed = memory.needed(blocks)
        before = sum(host.backed.values())
        memory.grow(blocks)
        assert sum(host.backed.values()) - before == needed
        for array, block in ((memory._arrays[0], BLOCK), (memory._arrays[1], 3 * BLOCK)):
            parts = sorted((at, size) for at, size in host.backed.items() if array.address <= at < array.address + array.reserved)
            ends = [at + size for at, size in parts]
            assert [at for at, _ in parts] == [array.address, *ends[:-1]]
            assert block * blocks <= ends[-1] - array.address < block * blocks + host.granularity
        assert not keys[:blocks].any()
        assert not values[:blocks].any()
        assert keys[blocks:].all()  # untouched


def test_no_memory_is_an_error_and_no_change(shapes: list[torch.Tensor]) -> None:
    memory = BlockMemory(torch.device("cpu"), Host(most=20 * BLOCK), 5, 100)
    memory.array(SHAPE, torch.float16)
    with pytest.raises(CudaError):
        memory.grow(50)
    assert memory.blocks == 5
    memory.grow(10)


def test_everything_is_given_back(shapes: list[torch.Tensor]) -> None:
    host = Host()
    memory = BlockMemory(torch.device("cpu"), host, 5, 100)
    memory.array(SHAPE, torch.float16)
    memory.grow(9)
    (array,) = memory._arrays
    expected = (array.address, sum(host.backed.values()), array.reserved)
    memory.close()
    assert host.released == [expected]


def test_without_such_memory_arrays_are_ordinary(shapes: list[torch.Tensor]) -> None:
    memory = BlockMemory(torch.device("cpu"), None, 5, 100)
    assert memory.most == 5
    assert memory.array(SHAPE, torch.float16).shape == (5, *SHAPE)
    assert not shapes
    memory.close()
