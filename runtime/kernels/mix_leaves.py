"""The loops of the leaves of attention: sums of kept rows (see `runtime.kernels.kept`), each times a factor.

Elements of a row lie in the lanes, so no sum crosses lanes; each sum is one chain over the rows. Arguments: see `leaves`.
Of whole numbers two rows are one, their elements side by side, and so are factors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from runtime.core import BLOCK_TOKENS
from runtime.kernels.basics import CACHE_LINE, Value
from runtime.kernels.emitter import Emitter
from runtime.kernels.kept import GROUP, KINDS, LARGEST, WEIGHTS
from runtime.quants.activations import ROUND

UNROLLED = 4  # rows of quants in one turn of the loop
NONE = -3e38  # in the place of a score that does not count
SUMMED = 4  # vectors of weights in one turn of the loop
PAIR = 4  # bytes of two whole numbers
WHOLE_LANES = 16  # weights that are made whole together
EXP = (8.31250132e-3, 4.18903318e-2, 1.66671154e-1, 4.99992302e-1, 1.0, 1.0)  # of e**r, |r| <= ln 2 / 2, relative error 1.1e-7


def _words(e: Emitter, columns: int, w: Value, stride: Value, rows: Value, x_ptrs: Value, out_ptrs: Value, n: Value, ahead: Value,
           scales: Value | None) -> None:  # fmt: skip
    """Sums of `rows` rows of `n` pairs of whole numbers, each times a pair of factors, as f32: each element times one of the
    `scales`, or, if there are none, added to what is there."""
    xs, outs = _pointers(e, columns, x_ptrs, out_ptrs)
    some, widths = _tile(e, columns)
    for first in range(0, columns, some):
        asked = ahead if first == 0 else None
        some_xs, some_outs = xs[first : first + some], outs[first : first + some]
        _words_columns(e, e.pointer(w), stride, rows, some_xs, some_outs, n, widths, asked, scales)


def _tile(e: Emitter, columns: int) -> tuple[int, Sequence[int]]:
    """How many columns are taken at a time, and how many vectors of a row, falling. With 16 registers four times two, or three
    where one instruction multiplies and adds: its sums wait longer for one another, and need no register for products."""
    if columns >= 4 and e.registers == 16:
        return 4, (3, 2, 1) if e.adds_words else (2, 1)
    return columns, (_vectors(e, columns), 1)


def _words_columns(e: Emitter, w: Value, stride: Value, rows: Value, xs: Sequence[Value], outs: Sequence[Value], n: Value,
                   widths: Sequence[int], ahead: Value | None, scales: Value | None) -> None:  # fmt: skip
    """The sums of some columns. `ahead` as in `keys`, if anything is to be asked for."""
    done = e.index(0)
    for lanes, vectors in (*((e.lanes, width) for width in widths), (1, 1)):
        repeats = e.builder.udiv(e.builder.sub(n, done), e.index(lanes * vectors))
        if vectors == 3:
            repeats = _threes(e, e.builder.udiv(n, e.index(lanes)))

        def part(i: Value, _: list[Value], first: Value = done, lanes: int = lanes, vectors: int = vectors) -> list[Value]:
            place = e.builder.add(first, e.builder.mul(i, e.index(lanes * vectors)))
            at = e.builder.mul(place, e.index(PAIR))
            sums = _words_part(e, e.at(w, at), stride, rows, xs, lanes, vectors, ahead)
            found = [e.float(total) for total in sums]
            if scales is None:
                _add(e, found, outs, place, lanes, vectors)
            else:
                some = [e.load(e.at(scales, at), 4 * lanes * v, e.vector(e.F32, lanes)) for v in range(vectors)]
                found = [e.mul(value, some[k % vectors]) for k, value in enumerate(found)]
                _store(e, found, outs, place, lanes, vectors)
            return []

        e.loop(repeats, [], part)
        done = e.builder.add(done, e.builder.mul(repeats, e.index(lanes * vectors)))


def _threes(e: Emitter, vectors: Value) -> Value:
    """How many times three of so many vectors are taken: once less where one would be left over: its few sums would wait
    for one another."""
    alone = e.builder.icmp_unsigned("==", e.builder.urem(vectors, e.index(3)), e.index(1))
    enough = e.builder.icmp_unsigned(">", vectors, e.index(3))
    return e.builder.sub(e.builder.udiv(vectors, e.index(3)), e.builder.zext(e.builder.and_(alone, enough), e.I64))


def _words_part(e: Emitter, w: Value, stride: Value, rows: Value, xs: Sequence[Value], lanes: int, vectors: int,
                ahead: Value | None) -> list[Value]:  # fmt: skip
    """The sums of some elements: `vectors` values of `lanes` lanes for each column."""

    def row(r: Value, sums: list[Value]) -> list[Value]:
        here, at = e.at(w, e.builder.mul(r, stride)), e.builder.mul(r, e.index(PAIR))
        if ahead is not None:
            _ask(e, e.at(here, ahead), PAIR * lanes * vectors)
        pairs = [e.load(here, PAIR * lanes * v, e.vector(e.I16, 2 * lanes)) for v in range(vectors)]
        added: list[Value] = []
        for x in xs:
            factors = e.cast(e.load_splat(x, at, e.I32, lanes), pairs[0].type)
            added += [e.dot_words(sums[len(added) + v], pair, factors) for v, pair in enumerate(pairs)]
        return added

    return e.loop(rows, [e.zero(e.vector(e.I32, lanes))] * (len(xs) * vectors), row)


def emit_keys(e: Emitter, kind: str, columns: int, w: Value, stride: Value, rows: Value, x_ptrs: Value, out_ptrs: Value,
              n: Value, ahead: Value) -> None:  # fmt: skip
    """out_ptrs[c][t] = x_ptrs[c] . key t, for the 64 keys at w; `rows` is their size."""
    bits = KINDS[kind].bits
    if bits == 16:
        pairs = e.builder.udiv(e.builder.add(rows, e.index(1)), e.index(2))
        scales = e.at(e.pointer(w), e.builder.mul(pairs, stride))
        _words(e, columns, w, stride, pairs, x_ptrs, out_ptrs, n, ahead, scales)
        return
    xs, outs = _pointers(e, columns, x_ptrs, out_ptrs)
    vectors, group_rows = _vectors(e, columns), GROUP * bits // 8
    group_bytes = BLOCK_TOKENS * (group_rows + 2)
    for place in range(0, BLOCK_TOKENS, e.lanes * vectors):

        def group(g: Value, totals: list[Value], place: int = place) -> list[Value]:
            start = e.at(e.pointer(w), e.builder.add(e.builder.mul(g, e.index(group_bytes)), e.index(place)))
            inputs = [e.at(x, e.builder.mul(g, e.index(4 * GROUP))) for x in xs]

            def some(i: Value, sums: list[Value]) -> list[Value]:
                for k in range(UNROLLED):
                    r = e.builder.add(e.builder.mul(i, e.index(UNROLLED)), e.index(k))
                    here, at = e.at(start, e.builder.mul(r, e.index(BLOCK_TOKENS))), e.builder.mul(r, e.index(4))
                    if place == 0:
                        _ask(e, e.at(here, ahead), BLOCK_TOKENS)
                    quants = [e.load(here, e.lanes * v, e.bytes(e.lanes)) for v in range(vectors)]
                    for part in range(8 // bits):
                        values = [_float(e, q, bits, part) for q in quants]
                        sums = _added(e, sums, values, inputs, e.builder.add(at, e.index(2 * GROUP * part)), e.lanes)
                return sums

            sums = e.loop(group_rows // UNROLLED, [e.zero(total.type) for total in totals], some)
            at = e.at(start, group_rows * BLOCK_TOKENS + place)  # two bytes for each scale, and `place` is in `start` once
            _ask(e, e.at(at, ahead), 2 * e.lanes * vectors)
            scales = [e.half(e.load(at, 2 * e.lanes * v, e.vector(e.I16, e.lanes))) for v in range(vectors)]
            return [e.fma(total, scales[k % vectors], before) for k, (total, before) in enumerate(zip(sums, totals, strict=True))]

        groups = e.builder.udiv(rows, e.index(GROUP))
        totals = e.loop(groups, [e.zero(e.floats(e.lanes))] * (columns * vectors), group)
        _store(e, totals, outs, e.index(place), e.lanes, vectors)


def emit_values(e: Emitter, kind: str, columns: int, w: Value, stride: Value, rows: Value, x_ptrs: Value, out_ptrs: Value,
                n: Value, ahead: Value) -> None:  # fmt: skip
    """out_ptrs[c][j] += sum over the `rows` values at w of x_ptrs[c][r] times element j of `n`; `stride` is the bytes of a row's
    quants. Of whole numbers `rows` counts pairs, and their scales are not looked at."""
    bits = KINDS[kind].bits
    if bits == 16:
        _words(e, columns, w, stride, rows, x_ptrs, out_ptrs, n, ahead, None)
        return
    xs, outs = _pointers(e, columns, x_ptrs, out_ptrs)
    weights, groups = e.pointer(w), e.builder.udiv(n, e.index(GROUP))
    scales = e.at(weights, e.builder.mul(stride, e.index(BLOCK_TOKENS)))
    most, done = _vectors(e, columns), e.index(0)
    for vectors in dict.fromkeys((most, min(most, GROUP // e.lanes))):
        span = max(1, vectors * e.lanes // GROUP)  # groups in one turn, which may take several parts
        repeats = e.builder.udiv(e.builder.sub(groups, done), e.index(span))

        def turn(i: Value, _: list[Value], first: Value = done, vectors: int = vectors, span: int = span) -> list[Value]:
            g = e.builder.add(first, e.builder.mul(i, e.index(span)))
            here, scale = e.at(weights, e.builder.mul(g, e.index(4 * bits))), e.at(scales, e.builder.mul(g, e.index(2)))
            for place in range(0, span * GROUP, vectors * e.lanes):
                places = [place + v * e.lanes for v in range(vectors)]
                sums = _values_part(e, here, stride, scale, groups, rows, xs, bits, places, ahead)
                _add(e, sums, outs, e.builder.add(e.builder.mul(g, e.index(GROUP)), e.index(place)), e.lanes, vectors)
            return []

        e.loop(repeats, [], turn)
        done = e.builder.add(done, e.builder.mul(repeats, e.index(span)))


def _values_part(e: Emitter, w: Value, stride: Value, scales: Value, groups: Value, rows: Value, xs: Sequence[Value], bits: int,
                 places: Sequence[int], ahead: Value) -> list[Value]:  # fmt: skip
    """The sums of the elements at `places`, a vector each, counted from the group at `w`."""

    def row(r: Value, sums: list[Value]) -> list[Value]:
        here = e.at(w, e.builder.mul(r, stride))
        scale = e.at(scales, e.builder.mul(e.builder.mul(r, groups), e.index(2)))
        for group in dict.fromkeys(place // GROUP for place in places):
            _ask(e, e.at(e.at(here, group * 4 * bits), ahead), 1)
        _ask(e, e.at(scale, ahead), 1)
        known = {group: e.load_half(scale, 2 * group, e.lanes) for group in dict.fromkeys(place // GROUP for place in places)}
        values = [e.mul(_element(e, here, bits, place), known[place // GROUP]) for place in places]
        return _added(e, sums, values, xs, e.builder.mul(r, e.index(4)), e.lanes)

    return e.loop(rows, [e.zero(e.floats(e.lanes))] * (len(xs) * len(places)), row)


def _element(e: Emitter, row: Value, bits: int, place: int) -> Value:
    """A vector of quants of a row of values as floats."""
    group, inside = divmod(place, GROUP)
    part, inside = divmod(inside, GROUP * bits // 8)
    return _float(e, e.load(row, group * 4 * bits + inside, e.bytes(e.lanes)), bits, part)


def _float(e: Emitter, quants: Value, bits: int, part: int) -> Value:
    """Bytes of quants as floats; of nibbles the low ones (part 0) or the high ones."""
    if bits == 8:
        return e.float(e.sext(quants, e.I32))
    wide = e.zext(quants, e.I32)
    return e.float(e.sub(e.shr(wide, 4) if part else e.band(wide, 15), e.constant(wide.type, 8)))


def emit_weigh(e: Emitter, whole: bool, scores: Value, first: Value, end: Value, padded: Value, numbers: Value, scales: Value,
               out: Value) -> None:  # fmt: skip
    """The scores in [first, end) become e**(score * scale - maximum), the others up to `padded`, a multiple of 64, become 0.

    `numbers` (2,) f32: scale, and what the maximum is at least. `out` (3,) f32: the maximum, the sum of the weights, and, if
    weights are made `whole`, what these have to be multiplied with; else it is left alone. Whole weights are i16 and have the
    `scales` (padded,) f32 of values in them; none is more than LARGEST, and those of 64 neighbours are at most WEIGHTS together.
    """
    x, given, results = e.pointer(scores), e.pointer(numbers), e.pointer(out)
    scale, none = e.load_splat(given, 0, e.F32, e.lanes), e.constant(e.floats(e.lanes), NONE)
    _fill(e, x, e.index(0), first, NONE)
    _fill(e, x, end, padded, NONE)
    turns = e.builder.udiv(padded, e.index(SUMMED * e.lanes))

    def vectors(i: Value) -> list[tuple[Value, int]]:
        here = e.at(x, e.builder.mul(i, e.index(4 * SUMMED * e.lanes)))
        return [(here, 4 * e.lanes * v) for v in range(SUMMED)]

    def largest(i: Value, so_far: list[Value]) -> list[Value]:
        return [e.maximum(e.load(*place, e.floats(e.lanes)), before) for place, before in zip(vectors(i), so_far, strict=True)]

    tops = e.loop(turns, [none] * SUMMED, largest)
    highest = _largest(e, e.maximum(e.maximum(tops[0], tops[1]), e.maximum(tops[2], tops[3])))
    peak = e.maximum(e.mul(highest, e.load(given, 0, e.F32)), e.load(given, 4, e.F32))  # scales are positive
    e.store(peak, results, 0)
    if whole:
        _whole_weights(e, x, _blocks(e, first, end, padded), given, peak, e.pointer(scales), results)
        return
    top = e.splat(peak, e.lanes)

    def weights(i: Value, sums: list[Value]) -> list[Value]:
        added = []
        for (here, offset), total in zip(vectors(i), sums, strict=True):
            score = e.load(here, offset, e.floats(e.lanes))
            weight = e.where_above(score, none, _exp(e, e.sub(e.mul(score, scale), top)))
            e.store(weight, here, offset)
            added.append(e.add(total, weight))
        return added

    sums = e.loop(turns, [e.zero(e.floats(e.lanes))] * SUMMED, weights)
    e.store(e.sum(e.add(e.add(sums[0], sums[1]), e.add(sums[2], sums[3]))), results, 4)


def _blocks(e: Emitter, first: Value, end: Value, padded: Value) -> tuple[Value, Value, Value]:
    """The first of the blocks that lie in [first, end), the one after the last of them, and the number of all."""
    size = e.index(BLOCK_TOKENS)
    begin, after = e.builder.udiv(e.builder.add(first, e.index(BLOCK_TOKENS - 1)), size), e.builder.udiv(end, size)
    after = e.builder.select(e.builder.icmp_unsigned(">", after, begin), after, begin)
    return begin, after, e.builder.udiv(padded, size)


def _whole_weights(e: Emitter, x: Value, blocks: tuple[Value, Value, Value], given: Value, peak: Value, scales: Value,
                   results: Value) -> None:  # fmt: skip
    """The second half of `emit_weigh`. A number takes the place of half a float, so each is written where all was read. The same
    lanes on every CPU, so that it makes the same numbers."""
    kind = e.floats(WHOLE_LANES)
    scale, under = e.load_splat(given, 0, e.F32, WHOLE_LANES), e.splat(e.builder.fneg(peak), WHOLE_LANES)
    zero, none = e.zero(kind), e.constant(kind, NONE)
    inside, after, count = blocks
    places = range(0, 4 * BLOCK_TOKENS, 4 * WHOLE_LANES)

    def weights(start: Value, *, all_count: bool) -> Callable[[Value, list[Value]], list[Value]]:
        def body(i: Value, so_far: list[Value]) -> list[Value]:
            at = e.builder.mul(e.builder.add(start, i), e.index(4 * BLOCK_TOKENS))
            here, of_values = e.at(x, at), e.at(scales, at)
            weighed, largest, most, total = so_far
            together = zero
            for place in places:
                score = e.load(here, place, kind)
                weight = _exp(e, e.add(e.mul(score, scale), under))  # rounded between, as elsewhere: a near-tie may depend on it
                scaled = e.mul(weight, e.load(of_values, place, kind))
                if not all_count:  # the scale of a token that is not there yet may be anything
                    weight, scaled = e.where_above(score, none, weight), e.where_above(score, none, scaled)
                e.store(scaled, here, place)
                weighed, together, largest = e.add(weighed, weight), e.add(together, scaled), e.maximum(largest, scaled)
            return [weighed, largest, e.maximum(most, together), e.add(total, together)]

        return body

    # of each lane the most that a block has: together at least what any block has; what is not a number shows in the whole sum
    sums = e.loop(inside, [zero] * 4, weights(e.index(0), all_count=False))
    sums = e.loop(e.builder.sub(after, inside), sums, weights(inside, all_count=True))
    weighed, largest, most, total = e.loop(e.builder.sub(count, after), sums, weights(after, all_count=False))
    e.store(e.sum(weighed), results, 4)
    share = e.fma(e.sum(total), e.constant(e.F32, 0), e.mul(e.sum(most), LARGEST / WEIGHTS))
    share = _at_least(e, _at_least(e, share, _largest(e, largest)), e.constant(e.F32, 1e-30))
    inverse = e.builder.fdiv(e.constant(e.F32, LARGEST), share)
    e.store(e.builder.fdiv(e.constant(e.F32, 1), inverse), results, 8)
    factor, half = e.splat(inverse, WHOLE_LANES), e.constant(kind, 0.5)

    def rounded(block: Value, _: list[Value]) -> list[Value]:
        at = e.builder.mul(block, e.index(2 * BLOCK_TOKENS))
        here, target = e.at(x, e.builder.shl(at, e.index(1))), e.at(x, at)
        for place in places:
            number = e.truncated(e.fma(e.load(here, place, kind), factor, half))
            e.store(e.trunc(number, e.I16), target, place // 2)
        return []

    e.loop(count, [], rounded)


def _largest(e: Emitter, vector: Value) -> Value:
    """Of all lanes."""
    while vector.type.count > 1:
        vector = e.maximum(*e.halves(vector))
    return e.lane(vector, 0)


def _at_least(e: Emitter, value: Value, least: Value) -> Value:
    """The larger one; if `value` is not a number, that."""
    return e.builder.select(e.builder.fcmp_unordered(">", value, least), value, least)


def _fill(e: Emitter, x: Value, first: Value, end: Value, number: float) -> None:
    """Some elements of an array of f32."""

    def one(i: Value, _: list[Value]) -> list[Value]:
        e.store(e.constant(e.F32, number), e.at(x, e.builder.mul(e.builder.add(first, i), e.index(4))), 0)
        return []

    e.loop(e.builder.sub(end, first), [], one)


def _exp(e: Emitter, x: Value) -> Value:
    """e**x for x up to about 0, relative error below 2e-7, and 1 for 0."""
    kind, integers = x.type, e.vector(e.I32, x.type.count)
    x = e.maximum(x, e.constant(kind, -87.0))
    shifted = e.fma(x, e.constant(kind, 1.44269504), e.constant(kind, ROUND))  # in its last bits round(x / ln 2)
    whole = e.sub(shifted, e.constant(kind, ROUND))
    r = e.fma(whole, e.constant(kind, -0.693359375), x)  # ln 2 in two parts
    r = e.fma(whole, e.constant(kind, 2.12194440e-4), r)
    p = e.constant(kind, EXP[0])
    for factor in EXP[1:]:
        p = e.fma(p, r, e.constant(kind, factor))
    return e.cast(e.add(e.cast(p, integers), e.shl(e.cast(shifted, integers), 23)), kind)


def _added(e: Emitter, sums: Sequence[Value], values: Sequence[Value], xs: Sequence[Value], at: Value, lanes: int) -> list[Value]:
    """The sums of all columns with one more row, whose factors stand `at` so many bytes behind the xs."""
    factors: Iterator[Value] = (e.load_splat(x, at, e.F32, lanes) for x in xs)
    added: list[Value] = []
    for factor in factors:
        added += [e.fma(value, factor, sums[len(added) + v]) for v, value in enumerate(values)]
    return added


def _store(e: Emitter, sums: Sequence[Value], outs: Sequence[Value], place: Value, lanes: int, vectors: int) -> None:
    """Sums, `vectors` of each column, to element `place` and after it."""
    for k, total in enumerate(sums):
        e.store(total, e.at(outs[k // vectors], e.builder.mul(place, e.index(4))), 4 * lanes * (k % vectors))


def _add(e: Emitter, sums: Sequence[Value], outs: Sequence[Value], place: Value, lanes: int, vectors: int) -> None:
    """The same, added to what is there."""
    at = [e.at(out, e.builder.mul(place, e.index(4))) for out in outs]
    before = [e.load(at[k // vectors], 4 * lanes * (k % vectors), total.type) for k, total in enumerate(sums)]
    _store(e, [e.add(old, total) for old, total in zip(before, sums, strict=True)], outs, place, lanes, vectors)


def _ask(e: Emitter, pointer: Value, length: int) -> None:
    """For so many bytes, or the cache lines that begin among them."""
    for line in range(-(-length // CACHE_LINE)):
        e.prefetch(pointer, line)


def _pointers(e: Emitter, columns: int, x_ptrs: Value, out_ptrs: Value) -> tuple[list[Value], list[Value]]:
    inputs, outputs = e.pointer(x_ptrs), e.pointer(out_ptrs)
    return [e.load_pointer(inputs, c) for c in range(columns)], [e.load_pointer(outputs, c) for c in range(columns)]


def _vectors(e: Emitter, columns: int) -> int:
    """Vectors of a row whose sums stay in registers."""
    return max(1, min(4, e.registers // 2 // columns))
