"""Which matrices of a model lie in strips, and the Program that lays them out before the first step."""

from __future__ import annotations

from collections.abc import Iterable

from runtime.kernels.leaves import Leaves
from runtime.quants import BY_NAME
from runtime.quants.strips import StripType
from runtime.weights import Tensor


def fits(tensor: Tensor, rows: int) -> bool:
    """Whether a tensor can be multiplied in strips of `rows` rows (0: there are none)."""
    return _divides(tensor, rows) and tensor.rows % rows == 0


def split(tensor: Tensor, rows: int) -> list[Tensor]:
    """A matrix as its rows that fit strips, and those after the last whole strip; a stack stays one."""
    whole = tensor.rows // rows * rows if len(tensor.shape) == 2 and _divides(tensor, rows) else 0
    if whole in (0, tensor.rows):
        return [tensor]
    return [tensor.part(0, whole), tensor.part(whole, tensor.rows - whole)]


def _divides(tensor: Tensor, rows: int) -> bool:
    """Whether there are strips of so many rows for the tensor's type and width."""
    if rows == 0 or len(tensor.shape) < 2 or not isinstance(tensor.quant, StripType):
        return False
    return tensor.row_blocks % tensor.quant.strip_blocks == 0


def types(tensors: Iterable[Tensor], rows: int) -> tuple[set[str], set[str]]:
    """Names of the types of matrices: of those that keep their rows, and of those that lie in strips."""
    plain, strips = set[str](), set[str]()
    for tensor in tensors:
        if len(tensor.shape) > 1:
            for part in split(tensor, rows):
                (strips if fits(part, rows) else plain).add(part.quant.name)
    return plain, strips


def woven(type_names: Iterable[str], rows: int) -> set[str]:
    """Those of the types that can lie in strips."""
    return {name for name in type_names if rows > 0 and isinstance(BY_NAME[name], StripType)}


class Strips:
    """The matrices that a recorder multiplies, each laid out once; `rows` of a strip, 0: all stay as they are."""

    def __init__(self, leaves: Leaves, rows: int) -> None:
        self.rows = rows
        self._leaves = leaves
        self.tensors: dict[int, Tensor] = {}  # by address

    def take(self, tensor: Tensor) -> bool:
        """Note a matrix that is multiplied. True: it will lie in strips."""
        if not fits(tensor, self.rows):
            return False
        self.tensors[tensor.address] = tensor
        return True

    def split(self, tensor: Tensor) -> list[Tensor]:
        """See `split`."""
        return split(tensor, self.rows)

    def step(self, rows: int) -> int:
        """Rows of a piece, made whole strips."""
        return -(-rows // self.rows) * self.rows if self.rows else rows

    def arguments(self, tensor: Tensor, scratch: int, scratch_bytes: int) -> tuple[int, ...]:
        """Those of `interleave.interleave`."""
        strips = tensor.nbytes // (tensor.row_bytes * self.rows)
        leaf = self._leaves.interleave(tensor.quant.name)
        return tensor.address, tensor.row_bytes, tensor.row_blocks, self.rows, strips, leaf, scratch, scratch_bytes

    def scratch_bytes(self) -> int:
        """Bytes that laying out needs a thread."""
        return max((tensor.row_bytes * self.rows + 63) // 64 * 64 for tensor in self.tensors.values())
