"""Raw memory for kernels: typed views of an address, atomics, and calls through an address.

A kernel gets addresses as int64 and reads them through these; numba sees plain arrays without bounds checks, so whoever
records a kernel has checked the shapes before.
"""

from __future__ import annotations

import platform
from typing import Any

from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic

from runtime.kernels.jit import njit

_I32, _I64, _F32 = ir.IntType(32), ir.IntType(64), ir.FloatType()
_VOID = ir.VoidType()


def _pointer_intrinsic(kind: Any) -> Any:
    """An intrinsic that turns an int64 address into a pointer to `kind`."""

    @intrinsic
    def pointer(context: Any, address: Any) -> Any:
        def generate(cx: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], cx.get_value_type(signature.return_type))

        return types.CPointer(kind)(types.int64), generate

    return pointer


_pointer_i64 = _pointer_intrinsic(types.int64)
_pointer_f64 = _pointer_intrinsic(types.float64)
_pointer_i32 = _pointer_intrinsic(types.int32)
_pointer_i16 = _pointer_intrinsic(types.int16)
_pointer_u8 = _pointer_intrinsic(types.uint8)
_pointer_u16 = _pointer_intrinsic(types.uint16)
_pointer_f32 = _pointer_intrinsic(types.float32)


@njit(inline="always")
def i64(address: int, count: int) -> Any:
    """`count` int64 at `address`."""
    return carray(_pointer_i64(address), (count,))


@njit(inline="always")
def f64(address: int, count: int) -> Any:
    """`count` float64 at `address`."""
    return carray(_pointer_f64(address), (count,))


@njit(inline="always")
def i32(address: int, count: int) -> Any:
    """`count` int32 at `address`."""
    return carray(_pointer_i32(address), (count,))


@njit(inline="always")
def i16(address: int, count: int) -> Any:
    """`count` int16 at `address`."""
    return carray(_pointer_i16(address), (count,))


@njit(inline="always")
def u8(address: int, count: int) -> Any:
    """`count` bytes at `address`."""
    return carray(_pointer_u8(address), (count,))


@njit(inline="always")
def u16(address: int, count: int) -> Any:
    """`count` uint16 at `address` (the bits of f16 values)."""
    return carray(_pointer_u16(address), (count,))


@njit(inline="always")
def f32(address: int, count: int) -> Any:
    """`count` float32 at `address`."""
    return carray(_pointer_f32(address), (count,))


@intrinsic
def bits_f32(context: Any, bits: Any) -> Any:
    """The float32 whose bits are the int32 `bits`."""
    return types.float32(types.int32), lambda cx, builder, signature, args: builder.bitcast(args[0], _F32)


@intrinsic
def f32_bits(context: Any, value: Any) -> Any:
    """The int32 whose bits are those of a float32."""
    return types.int32(types.float32), lambda cx, builder, signature, args: builder.bitcast(args[0], _I32)


def _load_intrinsic(kind: Any, order: str) -> Any:
    """An intrinsic that loads the integer of type `kind` at an int64 address."""

    @intrinsic
    def load(context: Any, address: Any) -> Any:
        def generate(cx: Any, builder: Any, signature: Any, args: Any) -> Any:
            pointer = builder.inttoptr(args[0], ir.IntType(kind.bitwidth).as_pointer())
            return builder.load_atomic(pointer, order, kind.bitwidth // 8)

        return kind(types.int64), generate

    return load


def _store_intrinsic(kind: Any) -> Any:
    """An intrinsic that stores an integer of type `kind`; whoever acquires it sees everything written before."""

    @intrinsic
    def store(context: Any, address: Any, value: Any) -> Any:
        def generate(cx: Any, builder: Any, signature: Any, args: Any) -> Any:
            pointer = builder.inttoptr(args[0], ir.IntType(kind.bitwidth).as_pointer())
            builder.store_atomic(args[1], pointer, "release", kind.bitwidth // 8)
            return cx.get_dummy_value()

        return types.void(types.int64, kind), generate

    return store


# After an acquire, later reads see what the integer's writer had written before. `load_strict` stands in one order with all
# `fetch_add`s (the sleep protocol of the pool needs it).
load_acquire, load_acquire32 = _load_intrinsic(types.int64, "acquire"), _load_intrinsic(types.int32, "acquire")
load_strict = _load_intrinsic(types.int64, "seq_cst")
store_release, store_release32 = _store_intrinsic(types.int64), _store_intrinsic(types.int32)


@intrinsic
def fetch_add(context: Any, address: Any, value: Any) -> Any:
    """Add to the int64 at `address`; returns what it was."""

    def generate(cx: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", builder.inttoptr(args[0], _I64.as_pointer()), args[1], "seq_cst")

    return types.int64(types.int64, types.int64), generate


@intrinsic
def compare_swap(context: Any, address: Any, expected: Any, value: Any) -> Any:
    """Write `value` to the int64 at `address` if it is `expected`; returns whether it was."""

    def generate(cx: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], _I64.as_pointer())
        return builder.extract_value(builder.cmpxchg(pointer, args[1], args[2], "seq_cst", "seq_cst"), 1)

    return types.boolean(types.int64, types.int64, types.int64), generate


@intrinsic
def acquired(context: Any) -> Any:
    """Keep what was read before in front of what is read after."""

    def generate(cx: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.fence("acquire")
        return cx.get_dummy_value()

    return types.void(), generate


def call_intrinsic(n_args: int) -> Any:
    """An intrinsic that calls `void f(int64 * n_args)` at an address."""

    @intrinsic
    def call(context: Any, function: Any, arguments: Any) -> Any:
        signature = types.void(types.int64, types.UniTuple(types.int64, n_args))

        def generate(cx: Any, builder: Any, signature: Any, args: Any) -> Any:
            kind = ir.FunctionType(_VOID, [_I64] * n_args)
            values = [builder.extract_value(args[1], i) for i in range(n_args)]
            builder.call(builder.inttoptr(args[0], kind.as_pointer()), values)
            return cx.get_dummy_value()

        return signature, generate

    return call


call3 = call_intrinsic(3)
call4 = call_intrinsic(4)
call5 = call_intrinsic(5)
call6 = call_intrinsic(6)
call7 = call_intrinsic(7)


@intrinsic
def pause(context: Any) -> Any:
    """Tell the core that this is a spin loop (nothing where the ISA has no such hint)."""

    def generate(cx: Any, builder: Any, signature: Any, args: Any) -> Any:
        if platform.machine().lower() in ("x86_64", "amd64"):
            kind = ir.FunctionType(_VOID, [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse2.pause"), [])
        return cx.get_dummy_value()

    return types.void(), generate


@intrinsic
def ticks(context: Any) -> Any:
    """The CPU's counter, which on x86 runs at the same pace on all cores whatever their clocks; 0 where there is none."""

    def generate(cx: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(_I64, [])
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.readcyclecounter"), [])

    return types.int64(), generate


@intrinsic
def prefetch(context: Any, address: Any) -> Any:
    """Ask for the cache line at an address; one that is not mapped is ignored by the CPU."""

    def generate(cx: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(_VOID, [byte, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [builder.inttoptr(args[0], byte), number(0), number(3), number(1)])
        return cx.get_dummy_value()

    return types.void(types.int64), generate
