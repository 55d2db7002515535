"""The functions that a template can call: Go's own, and the four that Ollama adds. Facts: text/template/funcs.go."""

from __future__ import annotations

import dataclasses
import datetime
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ollama_compat.template.gotemplate import escape, printf, values
from ollama_compat.template.gotemplate.literals import from_bytes, to_bytes
from ollama_compat.template.gotemplate.marshal import MarshalError, marshal
from ollama_compat.template.gotemplate.values import Kind, Type, Value, Window

REFLECT = Type(Kind.INTERFACE, "reflect.Value")
"""Type of a parameter that takes any value as it stands; ANY takes what an interface holds."""


class CallError(Exception):
    """The function refuses its arguments; the text is Go's."""


@dataclasses.dataclass(frozen=True, slots=True)
class Function:
    """`call` gets a Value or None for each argument. The last of `params` repeats when `variadic`."""

    name: str
    params: tuple[Type, ...]
    variadic: bool
    call: Callable[..., Value | None]

    def param(self, index: int) -> Type:
        """Type of argument `index`."""
        return self.params[min(index, len(self.params) - 1)]


def _of(data: Any) -> Value:
    value = values.of(data)
    assert value is not None
    return value


# ---------------------------------------------------------------- comparison


def _same_kind(a: Value | None, b: Value | None) -> bool:
    """Whether both are basic and of kinds that compare; int and uint8 do."""
    if a is None or b is None or not values.is_basic(a) or not values.is_basic(b):
        return False
    whole = (Kind.INT, Kind.UINT8)
    return a.type.kind is b.type.kind or (a.type.kind in whole and b.type.kind in whole)


def _equal(a: Value | None, b: Value | None) -> bool:
    if _same_kind(a, b):
        assert a is not None
        assert b is not None
        return bool(a.data == b.data)
    if values.is_basic(a) or values.is_basic(b):
        if a is None or b is None:
            return False
        raise CallError(f"incompatible types for comparison: {a.type.name} and {b.type.name}")
    if a is not None and b is not None and a.type.kind is not b.type.kind:
        names = f"{printf.show(a, 's')}: {a.type.name}, {b.type.name}: {printf.show(b)}"
        raise CallError(f"non-comparable types {names}")
    if values.is_nil(a) or values.is_nil(b):
        return values.is_nil(a) == values.is_nil(b)
    assert a is not None
    assert b is not None
    if not _comparable(b.type):
        raise CallError(f"non-comparable type {printf.show(b, 's')}: {b.type.name}")
    return a.type is b.type and _identical(a, b)


def _comparable(type: Type) -> bool:
    if type.kind is Kind.STRUCT:
        return all(_comparable(field.type) for field in type.fields)
    return type.kind not in (Kind.SLICE, Kind.MAP)


def _identical(a: Value, b: Value) -> bool:
    return a.data is b.data if a.type.kind is Kind.POINTER else bool(a.data == b.data)


def _eq(first: Value | None, *rest: Value | None) -> Value:
    if not rest:
        raise CallError("missing argument for comparison")
    first = values.unwrap(first)
    return _of(any(_equal(first, values.unwrap(other)) for other in rest))


def _ne(first: Value | None, second: Value | None) -> Value:
    return _of(not _equal(values.unwrap(first), values.unwrap(second)))


def _less(first: Value | None, second: Value | None) -> bool:
    a, b = values.unwrap(first), values.unwrap(second)
    if not values.is_basic(a) or not values.is_basic(b):
        raise CallError("invalid type for comparison")
    assert a is not None
    assert b is not None
    if not _same_kind(a, b):
        raise CallError(f"incompatible types for comparison: {a.type.name} and {b.type.name}")
    if a.type.kind in (Kind.BOOL, Kind.COMPLEX128):
        raise CallError("invalid type for comparison")
    if a.type.kind is Kind.STRING:
        return to_bytes(a.data) < to_bytes(b.data)
    return bool(a.data < b.data)


def _less_or_equal(first: Value | None, second: Value | None) -> bool:
    return _less(first, second) or _equal(values.unwrap(first), values.unwrap(second))


def _not(value: Value | None) -> Value:
    return _of(not values.is_true(value))


# ---------------------------------------------------------------- collections


def _position(index: Value | None, limit: int) -> int:
    if index is None:
        raise CallError("cannot index slice/array with nil")
    if index.type.kind not in (Kind.INT, Kind.UINT8):
        raise CallError(f"cannot index slice/array with type {index.type.name}")
    if not 0 <= index.data <= limit:
        raise CallError(f"index out of range: {index.data}")
    return int(index.data)


def _index(item: Value | None, *indexes: Value | None) -> Value | None:
    item = values.unwrap(item)
    if item is None:
        raise CallError("index of untyped nil")
    for index in indexes:
        item, is_nil = values.indirect(item)
        if is_nil:
            raise CallError("index of nil pointer")
        assert item is not None
        item = _item(item, values.unwrap(index))
    return item


def _item(item: Value, index: Value | None) -> Value:
    if item.type.kind is Kind.MAP:
        return _entry(item, index)
    if item.type.kind not in (Kind.SLICE, Kind.STRING):
        raise CallError(f"can't index item of type {item.type.name}")
    length = values.length(item)
    position = _position(index, length)
    if position == length:
        raise CallError(f"reflect: {item.type.kind.value} index out of range")
    if item.type.kind is Kind.STRING:
        return Value(values.UINT8, to_bytes(item.data)[position])
    return values.element(item, position)


def _entry(item: Value, key: Value | None) -> Value:
    if key is None:
        raise CallError("value is nil; should be of type string")
    if key.type is not values.STRING:
        raise CallError(f"value has type {key.type.name}; should be string")
    if item.data is None or key.data not in item.data:
        return values.zero(item.type.elem)
    return values.typed(item.type.elem, item.data[key.data])


def _slice(item: Value | None, *indexes: Value | None) -> Value:
    item = values.unwrap(item)
    if item is None:
        raise CallError("slice of untyped nil")
    item, is_nil = values.indirect(item)
    if is_nil:
        raise CallError("slice of nil pointer")
    assert item is not None
    if len(indexes) > 3:
        raise CallError(f"too many slice indexes: {len(indexes)}")
    if item.type.kind is Kind.STRING:
        return _slice_string(item, indexes)
    if item.type.kind is not Kind.SLICE:
        raise CallError(f"can't slice item of type {item.type.name}")
    items, start, stop, end = values.window(item)
    first, last, limit = _bounds(indexes, stop - start, end - start)
    return Value(item.type, Window(items, start + first, start + last, start + limit))


def _slice_string(item: Value, indexes: Sequence[Value | None]) -> Value:
    if len(indexes) == 3:
        raise CallError("cannot 3-index slice a string")
    data = to_bytes(item.data)
    first, last, _ = _bounds(indexes, len(data), len(data))
    return _of(from_bytes(data[first:last]))


def _bounds(indexes: Sequence[Value | None], length: int, capacity: int) -> tuple[int, int, int]:
    """Start, end and capacity of a slice."""
    found = [_position(index, capacity) for index in indexes]
    first, last, limit = found + [0, length, capacity][len(found) :]
    if first > last:
        raise CallError(f"invalid slice index: {first} > {last}")
    if last > limit:
        raise CallError(f"invalid slice index: {last} > {limit}")
    return first, last, limit


def _len(item: Value | None) -> Value:
    item, is_nil = values.indirect(item)
    if is_nil:
        raise CallError("len of nil pointer")
    if item is None:
        raise CallError("reflect: call of reflect.Value.Type on zero Value")
    if item.type.kind not in (Kind.STRING, Kind.SLICE, Kind.MAP):
        raise CallError(f"len of type {item.type.name}")
    return _of(values.length(item))


def call(name: str, target: Value | None, *_: Value | None) -> Value | None:
    """The builtin `call` on `target`, which stands as `name` in the template. No value here is a function."""
    target = values.unwrap(target)
    if target is None:
        raise CallError("call of nil")
    raise CallError(f"non-function {name} of type {target.type.name}")


# ---------------------------------------------------------------- text


def printable(value: Value | None) -> Value | None:
    """What to print for the value of an action: what pointers point to, and words for nothing."""
    value = values.unwrap(value)
    if value is not None and value.type.kind is Kind.POINTER:
        value, _ = values.indirect(value)
    return Value(values.STRING, "<no value>") if value is None else value


def _escaper(escaped: Callable[[str], str]) -> Callable[..., Value]:
    def call(*args: Value | None) -> Value:
        return _of(escaped(printf.sprint([printable(arg) for arg in args])))

    return call


def _printf(text: Value | None, *args: Value | None) -> Value:
    assert text is not None
    return _of(printf.sprintf(text.data, args))


def _json(value: Value | None) -> Value:
    try:
        return _of(marshal(value))
    except MarshalError:
        return _of("")


def _typescript_type(value: Value | None) -> Value:
    if value is not None and value.type.kind is Kind.POINTER and value.data is not None:
        value = Value(value.type.elem, value.data)
    method = None if value is None else value.type.methods.get("ToTypeScriptType")
    return _of("any" if value is None or method is None else method(value))


def _date(today: datetime.date, days_ago: int) -> Callable[..., Value]:
    return lambda *_: _of((today - datetime.timedelta(days_ago)).isoformat())


def _never(*_: Value | None) -> Value:
    raise AssertionError("and, or and call are evaluated by the executor")


@functools.cache
def builtins() -> Mapping[str, Function]:
    """Go's own functions."""
    one, two, more = (REFLECT,), (REFLECT, REFLECT), (values.ANY,)
    table = (
        Function("and", two, True, _never),
        Function("or", two, True, _never),
        Function("call", two, True, _never),
        Function("not", one, False, _not),
        Function("eq", two, True, _eq),
        Function("ne", two, False, _ne),
        Function("lt", two, False, lambda a, b: _of(_less(a, b))),
        Function("le", two, False, lambda a, b: _of(_less_or_equal(a, b))),
        Function("gt", two, False, lambda a, b: _of(not _less_or_equal(a, b))),
        Function("ge", two, False, lambda a, b: _of(not _less(a, b))),
        Function("index", two, True, _index),
        Function("slice", two, True, _slice),
        Function("len", one, False, _len),
        Function("print", more, True, lambda *args: _of(printf.sprint(args))),
        Function("println", more, True, lambda *args: _of(printf.sprintln(args))),
        Function("printf", (values.STRING, values.ANY), True, _printf),
        Function("html", more, True, _escaper(escape.html)),
        Function("js", more, True, _escaper(escape.js)),
        Function("urlquery", more, True, _escaper(escape.url_query)),
    )
    return {function.name: function for function in table}


def ollama(today: datetime.date) -> Mapping[str, Function]:
    """What Ollama adds."""
    table = (
        Function("json", (values.ANY,), False, _json),
        Function("currentDate", (values.STRING,), True, _date(today, 0)),
        Function("yesterdayDate", (values.STRING,), True, _date(today, 1)),
        Function("toTypeScriptType", (values.ANY,), False, _typescript_type),
    )
    return {function.name: function for function in table}


def names() -> frozenset[str]:
    """Every function's name."""
    return frozenset(builtins()) | frozenset(ollama(datetime.date(2000, 1, 1)))
