"""How a value prints by one verb of Go's fmt, with its flags."""

from __future__ import annotations

import dataclasses

from ollama_compat.template.gotemplate import values
from ollama_compat.template.gotemplate.floats import format_float
from ollama_compat.template.gotemplate.literals import can_backquote, from_bytes, quote, to_bytes
from ollama_compat.template.gotemplate.values import Kind, Value

_ADDRESS = 0xC000000000  # stands for every address: Go's differ from run to run
_BASES = {"v": 10, "d": 10, "b": 2, "o": 8, "O": 8, "x": 16, "X": 16}


@dataclasses.dataclass(slots=True)
class Spec:
    """The flags of one verb."""

    minus: bool = False
    plus: bool = False
    sharp: bool = False
    space: bool = False
    zero: bool = False
    width: int | None = None
    precision: int | None = None
    plus_v: bool = False
    sharp_v: bool = False
    erroring: bool = False  # inside a %!verb(...): no String methods

    def pad(self, text: str, *, zero: bool | None = None) -> str:
        if not self.width or len(text) >= self.width:
            return text
        if self.minus:
            return text.ljust(self.width)
        fill = "0" if (self.zero if zero is None else zero) else " "
        return text.rjust(self.width, fill)


def argument(spec: Spec, verb: str, arg: Value | None) -> str:
    arg = values.unwrap(arg)
    if arg is None:
        return spec.pad("<nil>") if verb in "Tv" else _bad(spec, verb, None)
    if verb == "T":
        return _string(spec, arg.type.name)
    if verb == "p":
        return _pointer(spec, "p", arg)
    return _value(spec, verb, arg, 0)


def _bad(spec: Spec, verb: str, value: Value | None) -> str:
    """A verb that the value does not have."""
    if value is None:
        return f"%!{verb}(<nil>)"
    before, spec.erroring = spec.erroring, True
    text = f"%!{verb}({value.type.name}={_value(spec, 'v', value, 0)})"
    spec.erroring = before
    return text


def _value(spec: Spec, verb: str, value: Value, depth: int) -> str:
    text = value.type.methods.get("String")
    if text is not None and verb in "vsxXq" and not spec.erroring and not spec.sharp_v:
        return _text(spec, verb, Value(values.STRING, text(value)))
    match value.type.kind:
        case Kind.BOOL:
            return spec.pad("true" if value.data else "false") if verb in "tv" else _bad(spec, verb, value)
        case Kind.INT | Kind.UINT8:
            return _integer(spec, verb, value)
        case Kind.FLOAT64:
            return _float(spec, verb, value)
        case Kind.COMPLEX128:
            return _complex(spec, verb, value)
        case Kind.STRING:
            return _text(spec, verb, value)
        case Kind.SLICE:
            return _slice(spec, verb, value, depth)
        case Kind.MAP:
            return _map(spec, verb, value, depth)
        case Kind.STRUCT:
            return _struct(spec, verb, value, depth)
        case Kind.POINTER:
            return _pointer_value(spec, verb, value, depth)
        case Kind.INTERFACE:
            return _inner(spec, verb, value, depth)


def _inner(spec: Spec, verb: str, value: Value, depth: int) -> str:
    """An interface inside something else."""
    if value.data is not None:
        return _value(spec, verb, value.data, depth + 1)
    return f"{value.type.name}(nil)" if spec.sharp_v else "<nil>"


def _integer(spec: Spec, verb: str, value: Value) -> str:
    number: int = value.data
    if verb == "c":
        return spec.pad(_rune(number))
    if verb == "q":
        return spec.pad(quote(_rune(number), "'", ascii_only=spec.plus))
    if verb == "U":
        return _code_point(spec, number)
    if verb not in _BASES:
        return _bad(spec, verb, value)
    if verb == "v" and spec.sharp_v and value.type is values.UINT8:
        return _digits(dataclasses.replace(spec, sharp=True), number, "x")
    return _digits(spec, number, verb)


def _rune(number: int) -> str:
    if not 0 <= number < 0x110000 or 0xD800 <= number < 0xE000:
        return "\ufffd"
    return chr(number)


def _code_point(spec: Spec, number: int) -> str:
    number &= (1 << 64) - 1
    text = f"U+{number:0{max(4, spec.precision or 0)}X}"
    if spec.sharp and number < 0x110000 and chr(number).isprintable():
        text += f" '{chr(number)}'"
    return spec.pad(text, zero=False)


def _digits(spec: Spec, number: int, verb: str) -> str:
    """A whole number in the base of the verb, with sign, prefix and leading zeros."""
    if spec.precision == 0 and number == 0:
        return " " * (spec.width or 0)
    sign = "-" if number < 0 else "+" if spec.plus else " " if spec.space else ""
    least = spec.precision or 0
    if spec.precision is None and spec.zero and not spec.minus and spec.width is not None:
        least = spec.width - len(sign)
    base = _BASES[verb]
    text = format(abs(number), {10: "d", 2: "b", 8: "o", 16: verb}.get(base, "d")).rjust(least, "0")
    if spec.sharp:
        text = {10: "", 2: "0b", 8: "" if text[0] == "0" else "0", 16: "0" + verb}[base] + text
    if verb == "O":
        text = "0o" + text
    return spec.pad(sign + text, zero=False)


def _float(spec: Spec, verb: str, value: Value) -> str:
    if verb not in "vbgGxXfFeE":
        return _bad(spec, verb, value)
    return _float_text(spec, verb, value.data)


def _float_text(spec: Spec, verb: str, number: float) -> str:
    kind = {"v": "g", "F": "f"}.get(verb, verb)
    precision = spec.precision if spec.precision is not None else 6 if kind in "feE" else -1
    text = format_float(number, kind, precision)
    if text[0] not in "+-":
        text = "+" + text
    if spec.space and text[0] == "+" and not spec.plus:
        text = " " + text[1:]
    if text[1] in "IN":
        text = text[1:] if text[1] == "N" and not spec.space and not spec.plus else text
        return spec.pad(text, zero=False)
    if spec.sharp and kind != "b":
        text = _with_point(text, kind, precision)
    if not spec.plus and text[0] == "+":
        return spec.pad(text[1:])
    if spec.zero and not spec.minus and spec.width is not None and spec.width > len(text):
        return text[0] + text[1:].rjust(spec.width - 1, "0")
    return spec.pad(text)


def _with_point(text: str, kind: str, precision: int) -> str:
    """With a decimal point in any case, and for g with all digits of the precision (flag `#`)."""
    cut = next((at for at, char in enumerate(text) if char in ("pP" if kind in "xX" else "eE")), len(text))
    body, tail = text[:cut], text[cut:]
    wanted = (6 if precision < 0 else precision) if kind in "gGx" else 0
    digits = body[1:].replace(".", "").lstrip("0")
    missing = wanted - len(digits)
    if "." not in body:
        missing -= body[1:] == "0"
        body += "."
    return body + "0" * missing + tail


def _complex(spec: Spec, verb: str, value: Value) -> str:
    if verb not in "vbgGxXfFeE":
        return _bad(spec, verb, value)
    real = _float_text(spec, verb, value.data.real)
    imaginary = _float_text(dataclasses.replace(spec, plus=True), verb, value.data.imag)
    return f"({real}{imaginary}i)"


def _text(spec: Spec, verb: str, value: Value) -> str:
    text: str = value.data
    if verb == "s" or (verb == "v" and not spec.sharp_v):
        return _string(spec, text)
    if verb in "xX":
        return _hex(spec, to_bytes(text), verb)
    if verb in "qv":
        return _quoted(spec, text)
    return _bad(spec, verb, value)


def _string(spec: Spec, text: str) -> str:
    return spec.pad(text if spec.precision is None else text[: spec.precision])


def _quoted(spec: Spec, text: str) -> str:
    text = text if spec.precision is None else text[: spec.precision]
    if spec.sharp and can_backquote(text):
        return spec.pad(f"`{text}`")
    return spec.pad(quote(text, ascii_only=spec.plus))


def _hex(spec: Spec, data: bytes, verb: str) -> str:
    data = data if spec.precision is None else data[: spec.precision]
    if not data:
        return spec.pad("")
    prefix = f"0{verb}" if spec.sharp else ""
    pairs = [f"{byte:02{verb}}" for byte in data]
    text = " ".join(prefix + pair for pair in pairs) if spec.space else prefix + "".join(pairs)
    return spec.pad(text)


def _slice(spec: Spec, verb: str, value: Value, depth: int) -> str:
    if value.type.elem is values.UINT8 and verb in "sqxX":
        return _bytes(spec, verb, bytes(values.elements(value)))
    if spec.sharp_v:
        if value.data is None:
            return f"{value.type.name}(nil)"
        name = "[]byte" if value.type is values.BYTES and depth == 0 else value.type.name
        start, between, end = name + "{", ", ", "}"
    else:
        start, between, end = "[", " ", "]"
    elem = value.type.elem
    parts = [_value(spec, verb, values.typed(elem, item), depth + 1) for item in values.elements(value)]
    return start + between.join(parts) + end


def _bytes(spec: Spec, verb: str, data: bytes) -> str:
    text = from_bytes(data)
    if verb in "xX":
        return _hex(spec, data, verb)
    return _string(spec, text) if verb == "s" else _quoted(spec, text)


def _map(spec: Spec, verb: str, value: Value, depth: int) -> str:
    if spec.sharp_v and value.data is None:
        return f"{value.type.name}(nil)"
    start, between, end = (value.type.name + "{", ", ", "}") if spec.sharp_v else ("map[", " ", "]")
    elem = value.type.elem
    parts = (
        _text(spec, verb, Value(values.STRING, key)) + ":" + _value(spec, verb, values.typed(elem, item), depth + 1)
        for key, item in values.entries(value)
    )
    return start + between.join(parts) + end


def _struct(spec: Spec, verb: str, value: Value, depth: int) -> str:
    named = spec.plus_v or spec.sharp_v
    start = value.type.name if spec.sharp_v else ""
    parts = (
        (f"{field.name}:" if named else "") + _value(spec, verb, values.typed(field.type, value.data[field.name]), depth + 1)
        for field in value.type.fields
    )
    return f"{start}{{{(', ' if spec.sharp_v else ' ').join(parts)}}}"


def _pointer_value(spec: Spec, verb: str, value: Value, depth: int) -> str:
    inner = value.type.elem
    if depth == 0 and value.data is not None and inner.kind in (Kind.SLICE, Kind.STRUCT, Kind.MAP):
        return "&" + _value(spec, verb, Value(inner, value.data), depth + 1)
    return _pointer(spec, verb, value)


def _pointer(spec: Spec, verb: str, value: Value) -> str:
    """An address. Only nil prints as in Go."""
    if value.type.kind not in (Kind.POINTER, Kind.SLICE, Kind.MAP) or verb not in "vpbodxX":
        return _bad(spec, verb, value)
    address = 0 if value.data is None else _ADDRESS
    if verb in "bodxX":
        return _digits(spec, address, verb)
    if verb == "v" and spec.sharp_v:
        return f"({value.type.name})({hex(address) if address else 'nil'})"
    if verb == "v" and not address:
        return spec.pad("<nil>")
    return _digits(dataclasses.replace(spec, sharp=not spec.sharp), address, "x")
