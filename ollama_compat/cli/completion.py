"""Completing command lines: the scripts of the shells, and the hidden command that they ask for candidates.

The division of work is cobra's: a script hands the words up to the cursor to `__complete` and gets a line for each candidate, its
description behind a tab, and last a colon and a number that says what else may stand there.
"""

from __future__ import annotations

import dataclasses
import importlib.resources
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ollama_compat.cli.client import Client
from ollama_compat.cli.command import Call, Command, shown
from ollama_compat.cli.errors import CommandError
from ollama_compat.cli.flags import HELP, Flag
from ollama_compat.duration import quote

Models = Callable[[], list[dict[str, Any]]]
FILES, NO_FILES = 0, 4  # directives: file names may follow, or not
SHELLS = ("bash", "zsh", "fish", "powershell")
_STORED = {"show": 1, "run": 1, "push": 1, "cp": 1, "rm": 1 << 30, "list": 1, "ls": 1}  # words that are models of the store
_LOADED = {"stop": 1, "ps": 1}
_VALUES: Mapping[str, tuple[str, ...]] = {
    "format": ("json",),
    "think": ("true", "false", "low", "medium", "high", "max"),
    "quantize": ("q8_0", "q6_K", "q5_K_M", "q5_K_S", "q4_K_M", "q4_K_S", "q3_K_M", "q2_K", "iq4_XS", "f16", "bf16"),
    "keepalive": (),
}


def script(call: Call) -> None:
    """`completion SHELL`."""
    (shell,) = call.words
    if shell not in SHELLS:
        raise CommandError(f"unknown shell {quote(shell)}, expected one of {', '.join(SHELLS)}")
    text = importlib.resources.files("ollama_compat.data").joinpath(f"completion.{shell}").read_text("utf-8")
    print(text.replace("PROGRAM", call.program), end="")


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """What may stand at the end of a command line."""

    commands: Sequence[Command]
    program: str
    flags: Sequence[Flag]  # of the program itself
    client: Client

    def complete(self, words: Sequence[str]) -> str:
        """The answer for the words after the program's name, the last of which is being written."""
        *before, current = words or [""]
        command, *given = before or [""]
        found = next((c for c in self.commands if command and command in (c.name, *c.aliases)), None)
        if found is None:
            candidates, directive = (self._first() if not before else []), NO_FILES
        else:
            candidates, directive = self._rest(found, given, current)
        lines = [f"{name}\t{about}" if about else name for name, about in candidates if name.startswith(current)]
        return "".join(f"{line}\n" for line in (*lines, f":{directive}"))

    def _first(self) -> list[tuple[str, str]]:
        commands = [(command.name, command.short) for command in shown(self.commands, self.program)]
        return [*commands, *((f"--{flag.name}", flag.usage) for flag in self.flags)]

    def _rest(self, command: Command, given: Sequence[str], current: str) -> tuple[list[tuple[str, str]], int]:
        """Behind a command: the value of a flag, a flag, or a word."""
        flags = {f"--{flag.name}": flag for flag in command.all_flags()}
        flags |= {f"-{flag.short}": flag for flag in command.all_flags() if flag.short}
        last = flags.get(given[-1]) if given else None
        if last is not None and last.implied is None:
            return _values(last, "")
        name, equals, _ = current.partition("=")
        if equals and name in flags:
            return _values(flags[name], f"{name}=")
        if current.startswith("-"):
            return [(name, flag.usage) for name, flag in flags.items() if name.startswith("--") and name not in given], NO_FILES
        words = [word for word in given if not word.startswith("-")]
        return self._words(command, len(words)), FILES if command.name == "run" and words else NO_FILES

    def _words(self, command: Command, count: int) -> list[tuple[str, str]]:
        if command.name == "completion":
            return [(shell, "") for shell in SHELLS] if not count else []
        if command.name == HELP:
            return [(each.name, each.short) for each in shown(self.commands, self.program)] if not count else []
        if count < _STORED.get(command.name, 0):
            return list(_names(self._ask(self.client.models)))
        if count < _LOADED.get(command.name, 0):
            return list(_names(self._ask(self.client.running)))
        return []

    @staticmethod
    def _ask(question: Models) -> list[dict[str, Any]]:
        """The server's models; none where there is no server."""
        try:
            return question()
        except CommandError:
            return []


def _names(models: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Names as they are typed: without the tag that is understood."""
    for model in models:
        yield str(model.get("name", "")).removesuffix(":latest"), ""


def _values(flag: Flag, before: str) -> tuple[list[tuple[str, str]], int]:
    """What may follow a flag; `before` stands in front of the value in the same word."""
    if flag.kind == "bool":
        return [(f"{before}{value}", "") for value in ("true", "false")], NO_FILES
    values = _VALUES.get(flag.name.removeprefix("draft-"))
    return [(f"{before}{value}", "") for value in values or ()], FILES if flag.name in ("file", "imatrix") else NO_FILES
