"""Tiles of AMX in plain vectors, so that what is made with them runs on any CPU of the tier below."""

from __future__ import annotations

from collections.abc import Callable

from runtime.kernels.amx import LINE, TILE_BYTES, Amx
from runtime.kernels.basics import I32, Value

LINES = TILE_BYTES // LINE


class EmulatedTiles(Amx):
    """Eight tiles on the stack."""

    _memory: Value

    def configure_tiles(self) -> None:
        self._memory = self.scratch(8 * TILE_BYTES, LINE)

    def release_tiles(self) -> None:
        pass

    def zero_tile(self, tile: int) -> None:
        self._each(lambda i: self.store(self.zero(self.bytes(LINE)), self._line(tile, i), 0))

    def load_tile(self, tile: int, pointer: Value, stride: int) -> None:
        def line(i: Value) -> None:
            self.store(self.load(pointer, self.builder.mul(i, self.index(stride)), self.bytes(LINE)), self._line(tile, i), 0)

        self._each(line)

    def store_tile(self, tile: int, pointer: Value) -> None:
        def line(i: Value) -> None:
            self.store(self.load(self._line(tile, i), 0, self.bytes(LINE)), pointer, self.builder.mul(i, self.index(LINE)))

        self._each(line)

    def multiply_tiles(self, total: int, inputs: int, weights: int, *, signed: bool) -> None:
        widen = self.sext if signed else self.zext

        def line(m: Value) -> None:
            def four(k: Value) -> None:
                w = widen(self.load(self._line(weights, k), 0, self.bytes(LINE)), I32)
                x = self.sext(self.load(self._line(inputs, m), self.builder.mul(k, self.index(4)), self.bytes(4)), I32)
                products = self.mul(w, self.shuffle(x, [0, 1, 2, 3] * LINES))
                so_far = self.load(self._line(total, m), 0, self.vector(I32, LINES))
                for byte in range(4):
                    so_far = self.add(so_far, self.shuffle(products, range(byte, LINE, 4)))
                self.store(so_far, self._line(total, m), 0)

            self._each(four)

        self._each(line)

    def _line(self, tile: int, number: Value) -> Value:
        return self.at(self._memory, self.builder.add(self.index(TILE_BYTES * tile), self.builder.mul(number, self.index(LINE))))

    def _each(self, body: Callable[[Value], None]) -> None:
        """For each line of a tile."""

        def one(i: Value, _: list[Value]) -> list[Value]:
            body(i)
            return []

        self.loop(LINES, [], one)
