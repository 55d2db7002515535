"""Command-line flags with the grammar and the error texts of Go's pflag, which Ollama's command uses."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias

from ollama_compat.cli.errors import CommandError
from ollama_compat.duration import quote

Value: TypeAlias = bool | int | str

_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_ZERO: dict[str, Value] = {"bool": False, "int": 0, "string": ""}
_INT64 = 1 << 63


@dataclasses.dataclass(frozen=True, slots=True)
class Flag:
    """A flag; `bare` is its value when it is given without one (a bool's is true), None when it needs one.

    `ours`: Ollama has not got it, so help texts do not show it when the program is called `ollama`.
    """

    name: str
    usage: str
    kind: Literal["bool", "int", "string"] = "bool"
    short: str = ""
    bare: str | None = None
    ours: bool = False

    @property
    def implied(self) -> str | None:
        """The value of the flag given alone."""
        return "true" if self.kind == "bool" else self.bare

    def read(self, text: str) -> Value:
        """The value that `text` stands for."""
        if self.kind == "string":
            return text
        try:
            return read_bool(text) if self.kind == "bool" else _read_int(text)
        except ValueError as error:
            name = f"-{self.short}, --{self.name}" if self.short else f"--{self.name}"
            raise CommandError(f'invalid argument {quote(text)} for "{name}" flag: {error}') from error


HELP = "help"


@dataclasses.dataclass(slots=True)
class Parsed:
    """What a command line said: the flags' values, which of them it named, and the other words."""

    values: dict[str, Value]
    given: set[str]
    words: list[str]

    def on(self, name: str) -> bool:
        """A bool flag."""
        return bool(self.values[name])

    def text(self, name: str) -> str:
        """A string flag."""
        return str(self.values[name])

    def count(self, name: str) -> int:
        """An int flag."""
        return int(self.values[name])


def parse(flags: Sequence[Flag], args: Sequence[str]) -> Parsed:
    """Flags and words in any order; after `--` only words. CommandError for what pflag refuses."""
    parsed = Parsed({flag.name: _ZERO[flag.kind] for flag in flags}, set(), [])
    rest = iter(args)
    for arg in rest:
        if arg == "--":
            parsed.words.extend(rest)
        elif len(arg) < 2 or arg[0] != "-":
            parsed.words.append(arg)
        else:
            for flag, text in _long(flags, arg, rest) if arg[1] == "-" else _short(flags, arg, rest):
                parsed.values[flag.name] = flag.read(text)
                parsed.given.add(flag.name)
    return parsed


def _long(flags: Sequence[Flag], arg: str, rest: Iterator[str]) -> Iterator[tuple[Flag, str]]:
    name, equals, text = arg[2:].partition("=")
    if not name or name[0] == "-":
        raise CommandError(f"bad flag syntax: {arg}")
    flag = next((flag for flag in flags if flag.name == name), None)
    if flag is None:
        raise CommandError(f"unknown flag: --{name}")
    if not equals:
        implied = flag.implied if flag.implied is not None else next(rest, None)
        if implied is None:
            raise CommandError(f"flag needs an argument: {arg}")
        text = implied
    yield flag, text


def _short(flags: Sequence[Flag], arg: str, rest: Iterator[str]) -> Iterator[tuple[Flag, str]]:
    letters = arg[1:]
    while letters:
        flag = next((flag for flag in flags if flag.short == letters[0]), None)
        if flag is None:
            raise CommandError(f"unknown shorthand flag: '{letters[0]}' in -{letters}")
        if len(letters) > 2 and letters[1] == "=":
            yield flag, letters[2:]
            return
        if flag.implied is not None:
            yield flag, flag.implied
            letters = letters[1:]
            continue
        text = letters[1:] or next(rest, None)
        if text is None:
            raise CommandError(f"flag needs an argument: '{letters[0]}' in -{letters}")
        yield flag, text
        return


def read_bool(text: str) -> bool:
    """Go's ParseBool; ValueError with its words."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError(f"strconv.ParseBool: parsing {quote(text)}: invalid syntax")


def _read_int(text: str) -> int:
    """An integer in any of Go's bases."""
    digits = text.lstrip("+-")
    octal = len(digits) > 1 and digits[0] == "0" and digits[1] in "01234567_"
    try:
        number = int(text.replace(digits, "0o" + digits[1:]) if octal else text, 0)
    except ValueError:
        raise ValueError(f"strconv.ParseInt: parsing {quote(text)}: invalid syntax") from None
    if not -_INT64 <= number < _INT64:
        raise ValueError(f"strconv.ParseInt: parsing {quote(text)}: value out of range")
    return number


def usages(flags: Sequence[Flag]) -> str:
    """The lines of a help text, one a flag, by name."""
    heads = {flag.name: _head(flag) for flag in flags}
    width = max(map(len, heads.values()))
    ordered = sorted(flags, key=lambda flag: flag.name)
    return "".join(f"{heads[flag.name].ljust(width)}   {flag.usage}\n" for flag in ordered)


def _head(flag: Flag) -> str:
    name = f"  -{flag.short}, --{flag.name}" if flag.short else f"      --{flag.name}"
    kind = "" if flag.kind == "bool" else f" {flag.kind}"
    return name + kind + (f'[="{flag.bare}"]' if flag.bare is not None else "")
