"""Modelfiles: the text to commands and back, and the parameters that they set.

A command is a word, a blank, and a value: the rest of the line, or what stands between `"` or `\"\"\"`, which may span lines.
`#` begins a comment where a command could begin. Only the lines of quoted values keep their breaks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

COMMANDS = (
    "from", "license", "template", "system", "adapter", "draft", "renderer", "parser", "parameter", "message", "requires",
)  # fmt: skip
ROLES = ("system", "user", "assistant")
MODEL = "model"  # the name of a FROM command, as Ollama keeps it
DEPRECATED = frozenset(
    (
        "penalize_newline",
        "low_vram",
        "f16_kv",
        "logits_all",
        "vocab_only",
        "use_mlock",
        "mirostat",
        "mirostat_tau",
        "mirostat_eta",
    )
)
UNEXPECTED_END = "unexpected EOF"
_BAD_COMMAND = "command must be one of " + ", ".join(f'"{name}"' for name in COMMANDS[:-1]) + f', or "{COMMANDS[-1]}"'
_BAD_ROLE = 'message role must be one of "system", "user", or "assistant"'
_MARKS = ('"""', '"')
_QUOTED = frozenset({"license", "template", "system", "adapter", "renderer", "parser", "requires", "draft"})
_FLOAT32_END = 3.4028235677973366e38  # from here on a number rounds to no finite float32
_BOMS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))


class ModelfileError(ValueError):
    """A Modelfile that cannot be read; `line` is where, 0 when it is the whole."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(f"(line {line}): {message}" if line else message)
        self.line = line


@dataclasses.dataclass(frozen=True, slots=True)
class Command:
    """One command. FROM is named `model`, PARAMETER by its parameter; a MESSAGE's args are `role: text`."""

    name: str
    args: str

    def __str__(self) -> str:
        if self.name == MODEL:
            return f"FROM {self.args}"
        if self.name in _QUOTED:
            return f"{self.name.upper()} {quote(self.args)}"
        if self.name == "message":
            role, _, text = self.args.partition(": ")
            return f"MESSAGE {role} {quote(text)}"
        return f"PARAMETER {self.name} {quote(self.args)}"


@dataclasses.dataclass(frozen=True, slots=True)
class Modelfile:
    """The commands of a Modelfile in their order."""

    commands: tuple[Command, ...]

    def __str__(self) -> str:
        return "".join(f"{command}\n" for command in self.commands)


def parse(text: str | bytes) -> Modelfile:
    """Read a Modelfile (bytes are UTF-8, or UTF-16 with its mark); ModelfileError where it is none."""
    reader = _Reader()
    for char in decode(text) if isinstance(text, bytes) else text:
        reader.take(char)
    return reader.end()


def decode(data: bytes) -> str:
    """Text of a file: its byte-order mark decides, UTF-8 without one; bytes that are no text become U+FFFD."""
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace")
    return data.decode("utf-8", "replace")


class _Reader:
    """Reads character by character; each state is a method that takes one."""

    def __init__(self) -> None:
        self._commands: list[Command] = []
        self._line = 1
        self._text: list[str] = []
        self._name = ""
        self._role = ""
        self._state: Callable[[str], None] = self._between

    def take(self, char: str) -> None:
        """One character of the file."""
        if char in "\r\n":
            self._line += 1
        self._state(char)

    def end(self) -> Modelfile:
        """The file is over."""
        if self._state == self._value and self._is_whole():
            self._add(unquote(self._joined().strip()) or "")
        elif self._state not in (self._between, self._comment):
            raise ModelfileError(UNEXPECTED_END)
        if all(command.name != MODEL for command in self._commands):
            raise ModelfileError("no FROM line")
        return Modelfile(tuple(self._commands))

    def _between(self, char: str) -> None:
        if char == "#":
            self._enter(self._comment)
        elif char not in " \t\r\n":
            self._enter(self._word, char)

    def _comment(self, char: str) -> None:
        if char in "\r\n":
            self._enter(self._between)

    def _word(self, char: str) -> None:
        if _is_letter(char):
            self._keep(char)
            return
        word = self._joined().lower()
        if char not in " \t" or word not in COMMANDS:
            raise ModelfileError(_BAD_COMMAND, self._line)
        self._name = MODEL if word == "from" else word
        self._enter({"parameter": self._parameter, "message": self._message}.get(word, self._value))

    def _parameter(self, char: str) -> None:
        if _is_letter(char) or char in "0123456789_":
            self._keep(char)
            return
        self._leave_argument(char)
        self._name = self._joined()
        self._enter(self._value)

    def _message(self, char: str) -> None:
        if _is_letter(char):
            self._keep(char)
            return
        self._leave_argument(char)
        self._role = self._joined()
        if self._role not in ROLES:
            raise ModelfileError(_BAD_ROLE, self._line)
        self._enter(self._value)

    def _leave_argument(self, char: str) -> None:
        """A parameter's name and a role end at a blank and nowhere else."""
        if char not in " \t":
            raise ModelfileError(f"{UNEXPECTED_END}: {self._joined()}")

    def _value(self, char: str) -> None:
        if char in "\r\n":
            if self._is_whole():
                self._add(unquote(self._joined().strip()) or "")
                self._enter(self._between)
                return
            self._text.append(char)
        elif char in " \t":
            self._text.extend(char if self._text else "")
        else:
            self._keep(char)

    def _is_whole(self) -> bool:
        """Whether the value has the quotes that end it, if it began with any. Looks at its ends only: values may be long."""
        text, end = self._text, len(self._text)
        mark = next((mark for mark in _MARKS if text[: len(mark)] == list(mark)), "")
        while end and text[end - 1] in " \t\r\n":
            end -= 1
        return end >= 2 * len(mark) and text[end - len(mark) : end] == list(mark)

    def _keep(self, char: str) -> None:
        if char.isprintable():
            self._text.extend(char)

    def _enter(self, state: Callable[[str], None], first: str = "") -> None:
        self._state, self._text = state, []
        self._keep(first)

    def _joined(self) -> str:
        return "".join(self._text)

    def _add(self, value: str) -> None:
        self._commands.append(Command(self._name, f"{self._role}: {value}" if self._role else value))
        self._role = ""


def _is_letter(char: str) -> bool:
    return char.isascii() and char.isalpha()


def quote(text: str) -> str:
    """In quotes where it would not survive without: line breaks, or blanks at its ends."""
    if "\n" in text or text.startswith(" ") or text.endswith(" "):
        return f'"""{text}"""' if '"' in text else f'"{text}"'
    return text


def unquote(text: str) -> str | None:
    """Without its quotes; None while the closing ones are missing."""
    for mark in _MARKS:
        if text.startswith(mark):
            return text[len(mark) : -len(mark)] if len(text) >= 2 * len(mark) and text.endswith(mark) else None
    return text


def parameter(name: str, values: list[str]) -> Any:
    """The value of a parameter from its words: int, float, bool or the list; ValueError in Go's words."""
    kind = parameter_kinds().get(name)
    if kind is None:
        raise ValueError(f"unknown parameter '{name}'")
    if kind == "tuple":
        return values
    try:
        return _PARAMETER[kind](values[0])
    except ValueError:
        raise ValueError(f"invalid {kind} value [{' '.join(values)}]") from None


def parameter_kinds() -> Mapping[str, str]:
    """Name -> int, float, bool or tuple, of every option that a Modelfile can set."""
    from ollama_compat.options import Options  # only here: the command line is quicker without it

    kinds = {field.name: str(field.type).split(" ")[0].split("[")[0] for field in dataclasses.fields(Options)}
    return {name: kind for name, kind in kinds.items() if kind == "tuple" or kind in _PARAMETER}


def _int(text: str) -> int:
    number = int(text) if text.removeprefix("-").removeprefix("+").isdecimal() and text.isascii() else None
    if number is None or not -(1 << 63) <= number < 1 << 63:
        raise ValueError(text)
    return number


def _float(text: str) -> float:
    if text != text.strip() or not text.isascii():
        raise ValueError(text)
    number = float.fromhex(text) if text.lower().lstrip("+-").startswith("0x") else float(text)
    if abs(number) > _FLOAT32_END and "inf" not in text.lower():
        raise ValueError(text)
    return number


def _bool(text: str) -> bool:
    if text in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    if text in ("0", "f", "F", "FALSE", "false", "False"):
        return False
    raise ValueError(text)


_PARAMETER: Mapping[str, Callable[[str], Any]] = {"int": _int, "float": _float, "bool": _bool}
