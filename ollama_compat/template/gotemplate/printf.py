"""Go's fmt: Sprint, Sprintln and Sprintf."""

from __future__ import annotations

from collections.abc import Sequence

from ollama_compat.template.gotemplate import values
from ollama_compat.template.gotemplate.values import Kind, Value
from ollama_compat.template.gotemplate.verbs import Spec, argument

_LIMIT = 1_000_000  # width and precision beyond it are not numbers


def sprint(args: Sequence[Value | None]) -> str:
    """The values one after the other, with a space between two that are no strings."""
    parts: list[str] = []
    was_string = True
    for arg in args:
        is_string = arg is not None and arg.type.kind is Kind.STRING
        if not was_string and not is_string:
            parts.append(" ")
        parts.append(argument(Spec(), "v", arg))
        was_string = is_string
    return "".join(parts)


def sprintln(args: Sequence[Value | None]) -> str:
    """The values with spaces between them, and a line end."""
    return " ".join(argument(Spec(), "v", arg) for arg in args) + "\n"


def show(value: Value | None, verb: str = "v") -> str:
    """The value by one verb without flags."""
    return argument(Spec(), verb, value)


# ---------------------------------------------------------------- Sprintf


def sprintf(text: str, args: Sequence[Value | None]) -> str:
    """`text` with its verbs filled in; mistakes in it show in the result, as in Go."""
    return _Format(text, args).run()


class _Format:
    def __init__(self, text: str, args: Sequence[Value | None]) -> None:
        self._text = text
        self._args = args
        self._at = 0
        self._next = 0  # argument
        self._reordered = False
        self._indexed = False  # just read an index such as [3]
        self._good = True  # the indexes of this verb exist
        self._out: list[str] = []

    def run(self) -> str:
        while True:
            percent = self._text.find("%", self._at)
            self._out.append(self._text[self._at : len(self._text) if percent < 0 else percent])
            if percent < 0:
                break
            self._at = percent + 1
            self._verb()
        if not self._reordered and self._next < len(self._args):
            self._out.append(f"%!(EXTRA {', '.join(map(_extra, self._args[self._next :]))})")
        return "".join(self._out)

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _verb(self) -> None:
        spec = Spec()
        self._good = True
        self._indexed = False
        self._flags(spec)
        self._index()
        self._width(spec)
        if self._peek() == "." and self._at + 1 < len(self._text):
            self._at += 1
            self._precision(spec)
        if not self._indexed:
            self._index()
        verb = self._peek()
        if not verb:
            self._out.append("%!(NOVERB)")
            return
        self._at += 1
        self._out.append(self._filled(spec, verb))

    def _filled(self, spec: Spec, verb: str) -> str:
        if verb == "%":
            return "%"
        if not self._good:
            return f"%!{verb}(BADINDEX)"
        if self._next >= len(self._args):
            return f"%!{verb}(MISSING)"
        if verb == "v":
            spec.sharp_v, spec.sharp = spec.sharp, False
            spec.plus_v, spec.plus = spec.plus, False
        self._next += 1
        return argument(spec, verb, self._args[self._next - 1])

    def _flags(self, spec: Spec) -> None:
        names = {"#": "sharp", "0": "zero", "+": "plus", "-": "minus", " ": "space"}
        while (char := self._peek()) in names:
            setattr(spec, names[char], True)
            self._at += 1

    def _index(self) -> None:
        """`[n]`: the next argument is number n, from 1."""
        self._indexed = False
        if self._peek() != "[":
            return
        self._reordered = True
        close = self._text.find("]", self._at + 1)
        if close < 0:
            self._good = False
            self._at += 1
            return
        digits = self._text[self._at + 1 : close]
        self._at = close + 1
        number = _number(digits)
        self._indexed = number is not None
        if number is not None and 0 < number <= len(self._args):
            self._next = number - 1
        else:
            self._good = False

    def _width(self, spec: Spec) -> None:
        if self._peek() == "*":
            self._at += 1
            spec.width = self._integer()
            if spec.width is None:
                self._out.append("%!(BADWIDTH)")
            elif spec.width < 0:
                spec.width, spec.minus, spec.zero = -spec.width, True, False
            self._indexed = False
            return
        spec.width = self._digits()
        if self._indexed and spec.width is not None:
            self._good = False

    def _precision(self, spec: Spec) -> None:
        if self._indexed:
            self._good = False
        self._index()
        if self._peek() == "*":
            self._at += 1
            spec.precision = self._integer()
            if spec.precision is None or spec.precision < 0:
                spec.precision = None
                self._out.append("%!(BADPREC)")
            self._indexed = False
        else:
            spec.precision = self._digits() or 0

    def _digits(self) -> int | None:
        end = self._at
        while self._text[end : end + 1] in tuple("0123456789"):
            end += 1
        number = _number(self._text[self._at : end])
        self._at = len(self._text) if number is None and end > self._at else end
        return number

    def _integer(self) -> int | None:
        """The next argument, for a `*`."""
        if self._next >= len(self._args):
            return None
        arg = self._args[self._next]
        self._next += 1
        if arg is None or arg.type.kind not in (Kind.INT, Kind.UINT8) or abs(arg.data) > _LIMIT:
            return None
        return int(arg.data)


def _number(digits: str) -> int | None:
    if not digits or not (digits.isascii() and digits.isdigit()) or len(digits) > 8:
        return None
    number = int(digits)
    return number if number // 10 <= _LIMIT else None


def _extra(arg: Value | None) -> str:
    arg = values.unwrap(arg)
    return "<nil>" if arg is None else f"{arg.type.name}={show(arg)}"
