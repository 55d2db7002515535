"""TQ1_0: 256 values of -1, 0 and 1, five to a byte, and a scale."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from runtime.quants.base import Bytes, Floats, Value, halves
from runtime.quants.signed_block import Integers
from runtime.quants.strips import Strip
from runtime.quants.ternary import TernaryType

if TYPE_CHECKING:
    from runtime.kernels.emitter import Emitter
    from runtime.kernels.strips import StripEmitter

POWERS = (1, 3, 9, 27, 81)


class TQ1_0(TernaryType):
    # ggml-common.h block_tq1_0: u8 qs[48]; u8 qh[4]; f16 d.  value = d * (q - 1)
    # A byte b holds the digits of a fraction b / 256 to the base 3: digit n is what (b * 3^n mod 256) * 3 carries over.
    # Digits 0 of the first 32 bytes are values 0-31, digits 1 the next 32, ...; then the same for the next 16 bytes, and
    # for qh, which has only four digits.
    name = "TQ1_0"
    type_id = 34
    block_bytes = 54
    elements = (4,) * 13 + (2,)
    D = 52

    def parts(self, blocks: Bytes) -> tuple[Floats, Integers, Integers]:
        pieces = (blocks[:, None, :32], POWERS), (blocks[:, None, 32:48], POWERS), (blocks[:, None, 48:52], POWERS[:4])
        shifted = [(piece * np.array(powers, np.uint8)[:, None]).reshape(len(blocks), -1) for piece, powers in pieces]
        digits = np.concatenate(shifted, axis=1).astype(np.int16) * 3 >> 8
        return halves(blocks[:, self.D :]), np.ones((len(blocks), 16), np.int8), digits - np.int16(self.OFFSET)

    def emit_quants(self, e: Emitter, w: Value) -> Iterator[Value]:
        return (self._quarter(e, w, quarter) for quarter in range(4))

    def _quarter(self, e: Emitter, w: Value, quarter: int) -> Value:
        source, powers = self._source(e, w, quarter)
        shifted = e.mul(source, e.constant(source.type, powers))
        carries = [e.builder.icmp_unsigned(">=", shifted, e.constant(source.type, limit)) for limit in (86, 171)]
        return e.add(*(e.zext(carry, e.I8) for carry in carries))

    @staticmethod
    def _source(e: Emitter, w: Value, quarter: int) -> tuple[Value, list[int]]:
        """The bytes of 64 values and the powers of three that bring their digits up."""
        if quarter < 2:
            first, second = POWERS[2 * quarter : 2 * quarter + 2]
            return e.doubled(e.load(w, 0, e.bytes(32))), [first] * 32 + [second] * 32
        sixteen = e.load(w, 32, e.bytes(16))
        if quarter == 2:
            return e.concat(e.load(w, 0, e.bytes(32)), e.doubled(sixteen)), [81] * 32 + [1] * 16 + [3] * 16
        four = e.shuffle(e.load(w, 48, e.bytes(4)), [*range(4)] * 4)
        powers = [power for power in (9, 27, 81) for _ in range(16)] + [power for power in POWERS[:4] for _ in range(4)]
        return e.concat(e.doubled(sixteen), e.concat(sixteen, four)), powers

    def strip_quants(self, e: StripEmitter, w: Strip) -> Iterator[tuple[Iterator[Value], list[int], int]]:
        for source in range(0, 52, 4):
            first, step, digits = (source, 32, 5) if source < 32 else (128 + source, 16, 5) if source < 48 else (240, 4, 4)
            yield self._strip_digits(e, w.bytes(source), digits), [first + step * n for n in range(digits)], 1

    @staticmethod
    def _strip_digits(e: StripEmitter, packed: Value, count: int) -> Iterator[Value]:
        """The first digits of every byte. Signed bytes are what CPUs compare, and 128 more stays 128 more when it is tripled."""
        biased = e.xor(packed, 0x80)
        for n in range(count):
            biased = e.add(biased, e.add(biased, biased)) if n else biased
            above = [e.builder.icmp_signed(">", biased, e.constant(biased.type, limit - 128)) for limit in (85, 170)]
            first, second = (e.sext(part, e.I8) for part in above)
            yield e.sub(e.sub(e.zero(biased.type), first), second)
