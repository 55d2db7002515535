"""Commands: what each is called, takes and says about itself; finding the one that a command line means."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ollama_compat.cli.client import Client
from ollama_compat.cli.environment import Environment
from ollama_compat.cli.errors import CommandError
from ollama_compat.cli.flags import HELP, Flag, Parsed, usages
from ollama_compat.duration import quote

NAME_WIDTH = 12
OLLAMA = "ollama"  # under this name the program shows what Ollama's has, and nothing else
MANY = 1 << 30


@dataclasses.dataclass(frozen=True, slots=True)
class Command:
    """One command. `target` is `module:function` under `ollama_compat.cli`, imported when the command runs."""

    name: str
    takes: str  # the words after the name in its usage line
    short: str
    target: str
    words: tuple[int, int] = (0, MANY)  # fewest and most
    flags: tuple[Flag, ...] = ()
    aliases: tuple[str, ...] = ()
    variables: tuple[str, ...] = ("OLLAMA_HOST",)
    hidden: bool = False
    needs_server: bool = True
    ours: bool = False  # Ollama has not got it

    def all_flags(self) -> tuple[Flag, ...]:
        """The command's flags and --help."""
        return (*self.flags, Flag(HELP, f"help for {self.name}", short="h"))

    def check_words(self, words: Sequence[str]) -> None:
        """CommandError when there are too few or too many."""
        fewest, most = self.words
        if len(words) < fewest and most == MANY:
            raise CommandError(f"requires at least {fewest} arg(s), only received {len(words)}")
        if not fewest <= len(words) <= most:
            raise CommandError(f"accepts {most} arg(s), received {len(words)}")

    def help(self, program: str, variables: dict[str, str]) -> str:
        """The whole help text."""
        line = f"{program} {self.name}{f' {self.takes}' if self.takes else ''} [flags]"
        text = f"{self.short}\n\nUsage:\n  {line}\n"
        if self.aliases:
            text += f"\nAliases:\n  {', '.join((self.name, *self.aliases))}\n"
        text += f"\nFlags:\n{usages([flag for flag in self.all_flags() if not flag.ours or program != OLLAMA])}"
        if self.variables:
            rows = "".join(f"      {name:<27}   {variables[name]}\n" for name in self.variables)
            text += f"\nEnvironment Variables:\n{rows}"
        return text


@dataclasses.dataclass(slots=True)
class Call:
    """A command about to run: its flags and words, and what it talks to."""

    flags: Parsed
    environment: Environment
    client: Client

    program: str = OLLAMA  # what it was called by

    @property
    def words(self) -> list[str]:
        """The words that are no flags."""
        return self.flags.words


def find(commands: Sequence[Command], args: Sequence[str], program: str) -> tuple[Command | None, list[str]]:
    """The command that the first word names and the other arguments; None when there is no word."""
    at = _first_word(args)
    if at is None:
        return None, list(args)
    word = args[at]
    for command in commands:
        if command.ours and program == OLLAMA:
            continue
        if word == command.name or word in command.aliases:
            return command, [*args[:at], *args[at + 1 :]]
    raise CommandError(f"unknown command {quote(word)} for {quote(program)}{_suggestions(shown(commands, program), word)}")


def _first_word(args: Sequence[str]) -> int | None:
    """Index of the first argument that is no flag and no value of one; the program's own flags take no values."""
    at = 0
    while at < len(args):
        arg = args[at]
        if arg == "--":
            return None
        if arg and not arg.startswith("-"):
            return at
        takes_value = "=" not in arg and arg not in OWN_FLAGS and (arg.startswith("--") or len(arg) == 2)
        at += 2 if takes_value else 1
    return None


OWN_FLAGS = frozenset({"--help", "-h", "--version", "-v", "--verbose", "--nowordwrap"})


def _suggestions(commands: Sequence[Command], word: str) -> str:
    names = [command.name for command in commands]
    near = [name for name in names if distance(word.lower(), name) <= 2 or name.startswith(word.lower())]
    return "\n\nDid you mean this?\n" + "".join(f"\t{name}\n" for name in near) if near else ""


def shown(commands: Sequence[Command], program: str) -> list[Command]:
    """The commands that help texts list."""
    return [command for command in commands if not command.hidden and not (command.ours and program == OLLAMA)]


def distance(left: str, right: str) -> int:
    """Levenshtein distance."""
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        last, row[0] = row[0], i
        for j, b in enumerate(right, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (a != b))
    return row[-1]


def overview(commands: Sequence[Command], program: str, flags: Sequence[Flag]) -> str:
    """The usage of the program itself."""
    rows = "".join(f"  {command.name:<{NAME_WIDTH}} {command.short}\n" for command in shown(commands, program))
    more = f'Use "{program} [command] --help" for more information about a command.\n'
    usage = f"Usage:\n  {program} [flags]\n  {program} [command]\n"
    return f"{usage}\nAvailable Commands:\n{rows}\nFlags:\n{usages(flags)}\n{more}"
