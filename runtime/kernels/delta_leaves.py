"""The loop of the leaf of the gated delta rule: one token's step of some columns of a head's state (see `runtime.kernels.delta`).

Columns lie in the lanes, so no sum crosses lanes, and a state is read twice and written once. Arguments: see `leaves`.
"""

from __future__ import annotations

from runtime.kernels.basics import Value
from runtime.kernels.emitter import Emitter

COLUMNS = 32  # of a state that lie together, and are one leaf's work
SUMS = 8  # vectors of sums that are in work at a time: fewer wait for one another


def emit_learn(e: Emitter, state: Value, size: Value, query: Value, key: Value, numbers: Value, value: Value, out: Value) -> None:
    """With S (size, COLUMNS) at `state`: S = keep * S + outer(key, change) and out = S^T query, where change = share * (value -
    keep * S^T key). `numbers` (3,) f32: keep, share, and query . key."""
    s, q, k, given, v, result = (e.pointer(address) for address in (state, query, key, numbers, value, out))
    vectors = COLUMNS // e.lanes
    at_once = max(1, SUMS // (2 * vectors))  # rows of S; the size is a multiple
    kind, turns = e.floats(e.lanes), e.builder.udiv(size, e.index(at_once))

    def rows(i: Value) -> list[tuple[Value, Value]]:
        """The rows of a turn: where in S, and where in query and key."""
        numbered = [e.builder.add(e.builder.mul(i, e.index(at_once)), e.index(r)) for r in range(at_once)]
        return [(e.at(s, e.builder.mul(row, e.index(4 * COLUMNS))), e.builder.mul(row, e.index(4))) for row in numbered]

    def recall(i: Value, sums: list[Value]) -> list[Value]:
        added: list[Value] = []
        for here, place in rows(i):
            factors = [e.load_splat(x, place, e.F32, e.lanes) for x in (k, q)]
            for n in range(vectors):
                old = e.load(here, 4 * e.lanes * n, kind)
                added += [e.fma(old, factor, sums[len(added) + j]) for j, factor in enumerate(factors)]
        return added

    sums = e.loop(turns, [e.zero(kind)] * (2 * vectors * at_once), recall)
    recalled = [sums[n : n + 2 * vectors] for n in range(0, len(sums), 2 * vectors)]
    keep, share, both = (e.load_splat(given, 4 * n, e.F32, e.lanes) for n in range(3))
    changes = []
    for n in range(vectors):
        of_key, of_query = (_total(e, [part[2 * n + j] for part in recalled]) for j in range(2))
        change = e.mul(share, e.sub(e.load(v, 4 * e.lanes * n, kind), e.mul(keep, of_key)))
        e.store(e.fma(both, change, e.mul(keep, of_query)), result, 4 * e.lanes * n)
        changes.append(change)

    def learn(i: Value, _: list[Value]) -> list[Value]:
        for here, place in rows(i):
            factor = e.load_splat(k, place, e.F32, e.lanes)
            for n, change in enumerate(changes):
                old = e.load(here, 4 * e.lanes * n, kind)
                e.store(e.fma(factor, change, e.mul(keep, old)), here, 4 * e.lanes * n)
        return []

    e.loop(turns, [], learn)


def _total(e: Emitter, sums: list[Value]) -> Value:
    total = sums[0]
    for more in sums[1:]:
        total = e.add(total, more)
    return total
