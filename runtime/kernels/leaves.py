"""Leaves: compiled inner loops, one for each (quant type, columns), that drivers call through their address.

All arguments are int64 (addresses, counts):

    dot              void(w, w_stride, rows, a_ptrs, out_ptrs, n_blocks, following)
                     out_ptrs[c][r] = weight row r (at w + r * w_stride) . packed activations at a_ptrs[c], in f32;
                     `following`: where the weights lie that will probably be read next, to be fetched ahead of time
    quantize         void(x, out, n)            n f32 -> packed activations
    dequantize_row   void(w, out, n_blocks)     one row -> f32
    strip            void(w, w_stride, rows, a_ptrs, out_ptrs, n_blocks, following)
                     as dot, of rows in strips (see runtime.quants.strips); `rows` is a multiple of those of a strip. The
                     leaf for most columns takes fewer of them too: see runtime.kernels.tile_leaves
    interleave       void(w, w_stride, out, n_blocks)       the rows of a strip -> the strip
    unpack           void(w, w_stride, rows, out, n_blocks) rows of whole strips -> strips of blocks as `quants.unpacked` has,
                     or, where the rows lie in strips, as `quants.opened` does
    row              void(strip, row, out, n_blocks)        one row of a strip, as it was
    keys, values     void(w, w_stride, rows, x_ptrs, out_ptrs, n, ahead)
                     products with keys, sums of values: see runtime.kernels.mix_leaves. What lies `ahead` bytes behind all that
                     is read is asked for
    weigh            void(scores, first, end, padded, numbers, scales, out): from scores to weights, see there
    learn            void(state, size, query, key, numbers, value, out): see runtime.kernels.delta_leaves

Nothing is read outside the rows (software prefetch touches addresses beyond, which cannot fault). The sum of one
(row, column) has the same bits whatever the number of columns of the leaf.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from numba import types
from numba.extending import intrinsic

from runtime.kernels import delta_leaves, jit, mix_leaves, strip_leaves, tile_leaves
from runtime.kernels.basics import CACHE_LINE, Value
from runtime.kernels.cache import KernelCache
from runtime.kernels.emitter import Emitter
from runtime.kernels.kept import F16, Kept
from runtime.kernels.tiers import activation_of, emitter, few_registers, has_tiles, strip_rows
from runtime.quants import BY_NAME, LeafType
from runtime.quants.activations import ACTIVATIONS
from runtime.quants.opened import OPENED, opened_form
from runtime.quants.strips import StripType, Woven
from runtime.quants.unpacked import UNPACKED, form_of, signed_type

COLUMNS = (1, 2, 4, 8)
"""Activation columns that dot leaves come for."""
ATTENTION = ("keys", "values", "weigh")
"""Leaves of attention."""
LEARN = "learn"
"""The leaf of layers that keep a state."""
PREFETCH_AHEAD = 4096
"""Bytes between the block in work and the one asked for: docs/log.md has what other distances gave."""


def strip_columns(quant: str, tier: str) -> tuple[int, ...]:
    """The column counts that leaves for strips of this type come for."""
    kind = _woven(quant)
    if kind.only_widest:
        return COLUMNS[-1:]
    tiles = (tile_leaves.MOST,) if _in_tiles(kind, tier) else ()
    return *(count for count in COLUMNS if count <= kind.widest or not few_registers(tier)), *tiles


def _in_tiles(kind: Woven, tier: str) -> bool:
    return has_tiles(tier) and tile_leaves.pays(kind)


def unpacked_form(quant: str, form: str, tier: str) -> Woven | None:
    """What rows of that type, as they are ("dot") or in strips ("strip"), are made for many columns, if anything."""
    if form == "strip":
        opened = opened_form(BY_NAME[quant])
        return opened if opened and not _in_tiles(opened.kind, tier) else None
    return form_of(BY_NAME[quant]) if strip_rows(tier) else None


def needed(type_names: Iterable[str], strips: Iterable[str] = (), tier: str = jit.TIER.name) -> list[str]:
    """Names of all leaves for weights of these types, row after row and in strips; types without leaves add none."""
    plain, woven = ({name for name in names if isinstance(BY_NAME[name], LeafType)} for names in (type_names, strips))
    dots = [f"dot.{name}.{count}" for name in sorted(plain) for count in COLUMNS]
    dots += [f"strip.{name}.{count}" for name in sorted(woven) for count in strip_columns(name, tier)]
    packs = [f"quantize.{name}" for name in sorted({activation_of(BY_NAME[name], tier) for name in plain | woven})]
    moves = [f"{move}.{name}" for name in sorted(woven) for move in ("interleave", "row")]
    places = dict.fromkeys(sorted(plain), "dot") | dict.fromkeys(sorted(woven), "strip")
    apart = {name: form for name, place in places.items() if (form := unpacked_form(name, place, tier))}
    moves += [f"unpack.{name}" for name in apart]
    forms = dict.fromkeys(form.name for form in apart.values())
    dots += [f"strip.{name}.{count}" for name in forms for count in strip_columns(name, tier)]
    return [*moves, *(f"dequantize_row.{name}" for name in sorted(plain | woven)), *packs, *dots]


def mixes(kind: Kept = F16) -> list[str]:
    """Names of the leaves that attention takes where keys and values are kept so."""
    return [_weigh(kind), *(f"{form}.{kind.name}.{columns}" for form in ("keys", "values") for columns in COLUMNS)]


def _weigh(kind: Kept) -> str:
    return f"weigh.{'whole' if kind.bits == 16 else 'floats'}"


def activation_bytes(activation: str, n: int) -> int:
    """Bytes of a packed row of `n` activations."""
    return ACTIVATIONS[activation].row_bytes(n)


class Leaves:
    """The compiled leaves of this process; keeps them alive."""

    def __init__(self, cache: KernelCache | None = None, tier: str = jit.TIER.name) -> None:
        self.cache = cache or KernelCache(jit.FOLDER)
        self.tier = tier
        self._compiled: dict[str, Any] = {}

    def columns(self, quant: str, form: str = "dot") -> tuple[int, ...]:
        """The column counts that `dot` takes for this type, or `strip`."""
        return strip_columns(quant, self.tier) if form == "strip" else COLUMNS

    def filled(self, quant: str, form: str = "dot") -> dict[int, int]:
        """Numbers of columns that the leaf for more of them takes sooner than several leaves do: see `matmul.fill`."""
        if self.columns(quant, form) == COLUMNS[-1:]:
            return dict.fromkeys(range(1, COLUMNS[-1]), COLUMNS[-1])
        tiles = self.columns(quant, form)[-1] == tile_leaves.MOST
        few = {7: 8} if form == "strip" and few_registers(self.tier) else {3: 4, 7: 8}
        return few | (dict.fromkeys(range(COLUMNS[-1] + 1, tile_leaves.MOST), tile_leaves.MOST) if tiles else {})

    def dot(self, quant: str, columns: int) -> int:
        """Address of the dot leaf of a type."""
        return self.compile(f"dot.{quant}.{columns}")

    def strip(self, quant: str, columns: int) -> int:
        """Address of the dot leaf of a type whose rows lie in strips."""
        return self.compile(f"strip.{quant}.{columns}")

    def interleave(self, quant: str) -> int:
        """Address of the leaf that makes a strip of rows."""
        return self.compile(f"interleave.{quant}")

    def unpacked_form(self, quant: str, form: str) -> Woven | None:
        """What rows of that type, as they are ("dot") or in strips ("strip"), are made for many columns, if anything."""
        return unpacked_form(quant, form, self.tier)

    def unpack(self, quant: str) -> int:
        """Address of the leaf that makes strips of unpacked blocks of rows."""
        return self.compile(f"unpack.{quant}")

    def row(self, quant: str) -> int:
        """Address of the leaf that takes a row out of a strip."""
        return self.compile(f"row.{quant}")

    def activation(self, quant: str) -> str:
        """The format of what weights of a type are multiplied with."""
        return activation_of(BY_NAME[quant], self.tier)

    @property
    def strip_rows(self) -> int:
        """Rows of a strip; 0 where there are none."""
        return strip_rows(self.tier)

    def sums(self, form: str, kind: Kept, columns: int) -> int:
        """Address of a leaf of attention: it multiplies with "keys" that are kept so, or adds up such "values"."""
        return self.compile(f"{form}.{kind.name}.{columns}")

    def weigh(self, kind: Kept) -> int:
        """Address of the leaf that makes weights of scores, for values that are kept so."""
        return self.compile(_weigh(kind))

    def learn(self) -> int:
        """Address of the leaf that takes a state one token on."""
        return self.compile(LEARN)

    def quantize(self, activation: str) -> int:
        """Address of the leaf that packs activations."""
        return self.compile(f"quantize.{activation}")

    def dequantize_row(self, quant: str) -> int:
        """Address of the leaf that turns a row into floats."""
        return self.compile(f"dequantize_row.{quant}")

    def compile(self, name: str) -> int:
        """Address of the leaf of that name (see `needed`), compiled or loaded at the first call."""
        if name not in self._compiled:
            function, signature = _kernel(name, self.tier)
            self._compiled[name] = self.cache.cfunc(signature, function, error_model="numpy")
        return int(self._compiled[name].address)

    def assembly(self, name: str) -> str:
        """The leaf's machine code as text; only for one that this process has compiled."""
        self.compile(name)
        return str(self._compiled[name]._library.get_asm_str())


# ------------------------------------------------------------ the numba side


@intrinsic(prefer_literal=True)
def _leaf(context: Any, name: Any, tier: Any, arguments: Any) -> Any:
    """The body of leaf `name` (a literal): its whole loop nest."""

    def generate(target: Any, builder: Any, signature: Any, args: Any) -> Any:
        values = [builder.extract_value(args[2], i) for i in range(len(signature.args[2]))]
        _emit(emitter(signature.args[1].literal_value, builder), signature.args[0].literal_value, values)
        return target.get_dummy_value()

    return types.void(name, tier, arguments), generate


def _kernel(name: str, tier: str) -> tuple[Callable[..., None], str]:
    """The numba function and its signature.

    It closes over strings alone: numba types those as literals, and puts them into the key of its disk cache.
    """

    def seven(a: int, b: int, c: int, d: int, e: int, f: int, g: int) -> None:
        _leaf(name, tier, (a, b, c, d, e, f, g))

    def four(a: int, b: int, c: int, d: int) -> None:
        _leaf(name, tier, (a, b, c, d))

    def five(a: int, b: int, c: int, d: int, e: int) -> None:
        _leaf(name, tier, (a, b, c, d, e))

    def three(a: int, b: int, c: int) -> None:
        _leaf(name, tier, (a, b, c))

    kind = name.split(".")[0]
    forms: dict[str, Callable[..., None]] = {"interleave": four, "row": four, "unpack": five}
    function = seven if kind in ("dot", "strip", LEARN, *ATTENTION) else forms.get(kind, three)
    function.__qualname__ = function.__name__ = f"{name.replace('.', '_')}_{tier}"
    return function, f"void({','.join(['int64'] * function.__code__.co_argcount)})"


# ------------------------------------------------------------ the loops around the types' emitters


def _emit(e: Emitter, name: str, arguments: Sequence[Value]) -> None:
    kind, subject, *rest = [*name.split("."), ""]
    if kind == "weigh":
        mix_leaves.emit_weigh(e, subject == "whole", *arguments)
    elif kind == LEARN:
        delta_leaves.emit_learn(e, *arguments)
    elif kind in ("keys", "values"):
        emit = mix_leaves.emit_keys if kind == "keys" else mix_leaves.emit_values
        emit(e, subject, int(rest[0]), *arguments)
    elif kind == "dot":
        _emit_dot(e, _leaf_type(subject), int(rest[0]), *arguments)
    elif kind == "strip":
        strip_leaves.emit_products(e, _woven(subject), int(rest[0]), *arguments)
    elif kind == "interleave":
        strip_leaves.emit_interleave(e, _strip_type(subject), *arguments)
    elif kind == "unpack":
        _emit_unpack(e, subject, *arguments)
    elif kind == "row":
        strip_leaves.emit_row(e, _strip_type(subject), *arguments)
    elif kind == "quantize":
        _emit_quantize(e, subject, *arguments)
    else:
        _emit_dequantize_row(e, _leaf_type(subject), *arguments)


def _emit_unpack(e: Emitter, quant: str, *arguments: Value) -> None:
    form = form_of(BY_NAME[quant])
    if form is not None:
        strip_leaves.emit_unpacked(e, signed_type(quant), form, *arguments)
        return
    opened = opened_form(BY_NAME[quant])
    assert opened is not None, quant
    strip_leaves.emit_opened(e, opened, *arguments)


def _leaf_type(name: str) -> LeafType:
    kind = BY_NAME[name]
    assert isinstance(kind, LeafType), name
    return kind


def _emit_dot(e: Emitter, kind: LeafType, columns: int, w: Value, stride: Value, rows: Value, a_ptrs: Value, out_ptrs: Value,
              n_blocks: Value, following: Value) -> None:  # fmt: skip
    weights, inputs, outputs = (e.pointer(address) for address in (w, a_ptrs, out_ptrs))
    end = e.builder.add(w, e.builder.mul(rows, stride))
    group = min(columns, e.registers // (4 if kind.sums == 1 else 2 * kind.sums))  # columns whose sums stay in registers

    def some(first_row: Value, together: int) -> Callable[[Value, list[Value]], list[Value]]:
        def body(i: Value, _: list[Value]) -> list[Value]:
            row = e.builder.add(first_row, e.builder.mul(i, e.index(together)))
            starts = [e.at(weights, e.builder.mul(e.builder.add(row, e.index(k)), stride)) for k in range(together)]
            for first in range(0, columns, group):
                # pointers are read again for each row: sixteen of them would not stay in registers anyway
                xs = [e.load_pointer(inputs, column) for column in range(first, first + group)]
                aheads = [e.ahead(start, together * PREFETCH_AHEAD, end, following) for start in starts] if first == 0 else []
                totals = _emit_row(e, kind, starts, xs, n_blocks, aheads)
                for k, total in enumerate(totals):
                    place = e.builder.mul(e.builder.add(row, e.index(k // group)), e.index(4))
                    e.store(total, e.load_pointer(outputs, first + k % group), place)
            return []

        return body

    together = kind.together if columns == 1 else 1
    groups = e.builder.udiv(rows, e.index(together))
    done = e.builder.mul(groups, e.index(together))
    e.loop(groups, [], some(e.index(0), together))
    if together > 1:
        e.loop(e.builder.sub(rows, done), [], some(done, 1))


def _woven(name: str) -> Woven:
    return UNPACKED.get(name) or OPENED.get(name) or _strip_type(name)


def _strip_type(name: str) -> StripType:
    kind = BY_NAME[name]
    assert isinstance(kind, StripType), name
    return kind


def _emit_row(
    e: Emitter, kind: LeafType, rows: Sequence[Value], xs: Sequence[Value], n_blocks: Value, aheads: Sequence[Value]
) -> list[Value]:
    """Some weight rows times some columns: the sums, row by row. `aheads`: what is to be fetched meanwhile for each row."""
    width, steps = len(kind.start(e)), kind.steps(e, len(xs))
    packed = ACTIVATIONS[activation_of(kind, e.tier)]
    packed_bytes = packed.block_bytes * (kind.block_size // packed.block_size)

    def step(first: Value, count: int) -> Callable[[Value, list[Value]], list[Value]]:
        def body(i: Value, flat: list[Value]) -> list[Value]:
            block = e.builder.add(first, e.builder.mul(i, e.index(count)))
            place = e.builder.mul(block, e.index(kind.block_bytes))
            for ahead in aheads if count == steps[0] else ():
                for line in range(-(-count * kind.block_bytes // CACHE_LINE)):
                    e.prefetch(e.at(ahead, place), line)
            inputs = [e.at(x, e.builder.mul(block, e.index(packed_bytes))) for x in xs]
            sums = [flat[k : k + width] for k in range(0, len(flat), width)]
            results: list[Value] = []
            for number, row in enumerate(rows):
                of_row = sums[number * len(xs) : (number + 1) * len(xs)]
                results += [value for column in kind.emit_dot(e, e.at(row, place), inputs, of_row, count) for value in column]
            return results

        return body

    flat = [value for _ in rows for _ in xs for value in kind.start(e)]
    for first, count, repeats in e.walked(steps, n_blocks):
        flat = e.loop(repeats, flat, step(first, count))
    return [kind.finish(e, flat[k : k + width]) for k in range(0, len(flat), width)]


def _emit_quantize(e: Emitter, name: str, x: Value, out: Value, n: Value) -> None:
    activation = ACTIVATIONS[name]
    source, target = e.pointer(x), e.pointer(out)
    steps = (activation.together, 1) if activation.together > 1 else (1,)
    for first, count, repeats in e.walked(steps, e.builder.udiv(n, e.index(activation.block_size))):

        def some(i: Value, _: list[Value], first: Value = first, count: int = count) -> list[Value]:
            block = e.builder.add(first, e.builder.mul(i, e.index(count)))
            values = e.at(source, e.builder.mul(block, e.index(4 * activation.block_size)))
            activation.emit_quantize(e, values, e.at(target, e.builder.mul(block, e.index(activation.block_bytes))), count)
            return []

        e.loop(repeats, [], some)


def _emit_dequantize_row(e: Emitter, kind: LeafType, w: Value, out: Value, n_blocks: Value) -> None:
    weights, target = e.pointer(w), e.pointer(out)
    for first, count, repeats in e.walked(kind.steps(e), n_blocks):

        def step(i: Value, _: list[Value], first: Value = first, count: int = count) -> list[Value]:
            block = e.builder.add(first, e.builder.mul(i, e.index(count)))
            at = e.at(weights, e.builder.mul(block, e.index(kind.block_bytes)))
            kind.emit_dequantize(e, at, e.at(target, e.builder.mul(block, e.index(4 * kind.block_size))), count)
            return []

        e.loop(repeats, [], step)

