"""The way from a command line to an exit status."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import NoReturn

from ollama_compat.cli.client import Client
from ollama_compat.cli.command import Call, Command, find, overview
from ollama_compat.cli.commands import ABOUT, COMMANDS, VARIABLES, own_flags
from ollama_compat.cli.environment import Environment
from ollama_compat.cli.errors import CommandError, Unreachable
from ollama_compat.cli.flags import HELP, parse
from ollama_compat.settings import VERSION

COMPLETE = "__complete"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (sys.argv's by default); the exit status."""
    _plain_streams()
    program = _program()
    try:
        _run(program, list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except CommandError as error:
        sys.stdout.flush()
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        _die_of("SIGPIPE", 141)
    except OSError as error:  # the disk under a redirected output is full, and the like
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"Error: {(error.strerror or str(error)).lower()}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        _die_of("SIGINT", 130)
    return 0


def _run(program: str, args: Sequence[str]) -> None:
    if args and args[0] == COMPLETE:
        _complete(program, args[1:])
        return
    command, rest = find(COMMANDS, args, program)
    if command is None:
        _run_bare(program, rest)
    elif not command.target:
        _help(program, rest)
    else:
        _run_command(program, command, rest)


def _complete(program: str, words: Sequence[str]) -> None:
    """What the shells' scripts ask."""
    from ollama_compat.cli.completion import Line  # only here

    environment = Environment.from_env(os.environ)
    client = Client(environment.host, environment.proxies, environment.api_key)
    print(Line(COMMANDS, program, own_flags(program), client).complete(words), end="")


def _run_command(program: str, command: Command, args: Sequence[str]) -> None:
    flags = parse(command.all_flags(), args)
    if flags.on(HELP):
        print(command.help(program, VARIABLES), end="")
        return
    command.check_words(flags.words)
    environment = Environment.from_env(os.environ)
    call = Call(flags, environment, Client(environment.host, environment.proxies, environment.api_key), program)
    if command.needs_server:
        for warning in environment.warnings:
            print(warning, file=sys.stderr)
        call.client.heartbeat()
    target(command)(call)


def target(command: Command) -> Callable[[Call], None]:
    """The function that does the command's work."""
    module, _, function = command.target.partition(":")
    found: Callable[[Call], None] = getattr(importlib.import_module(f"ollama_compat.cli.{module}"), function)
    return found


def _run_bare(program: str, args: Sequence[str]) -> None:
    """The program without a command: its version, or what it can do."""
    flags = parse(own_flags(program), args)
    if flags.on("version") and not flags.on(HELP):
        _version(Client(Environment.from_env(os.environ).host))
    else:
        print(f"{ABOUT}\n\n{overview(COMMANDS, program, own_flags(program))}", end="")


def _help(program: str, args: Sequence[str]) -> None:
    words = [arg for arg in args if not arg.startswith("-")]
    command = next((c for c in COMMANDS if words and words[0] in (c.name, *c.aliases)), None)
    if command is not None:
        print(command.help(program, VARIABLES), end="")
    elif words:
        topics = " ".join(f"`{word}`" for word in words)
        print(f"Unknown help topic [{topics}]\n{overview(COMMANDS, program, own_flags(program)[1:])}", end="", file=sys.stderr)
    else:
        _run_bare(program, [f"--{HELP}"])


def _version(client: Client) -> None:
    try:
        server = client.version()
    except (CommandError, Unreachable):
        server = ""
        print("Warning: could not connect to a running Ollama instance")
    if server:
        print(f"ollama version is {server}")
    if server != VERSION:
        print(f"Warning: client version is {VERSION}")


def _program() -> str:
    """What the help texts call the program: `ollama` when it was started under that name."""
    return "ollama" if PurePath(sys.argv[0]).stem == "ollama" else "moellama"


def _plain_streams() -> None:
    """UTF-8 whatever the locale, and no newline translation: scripts get the bytes that Ollama would print.

    Streams that were closed before the start read as empty and swallow what is written.
    """
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: SIM115
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="backslashreplace", newline="\n")


def _die_of(name: str, status: int) -> NoReturn:
    """End as a program that the signal kills, so that a shell sees what it expects; `status` where there are no signals."""
    number = getattr(signal, name, None)
    if number is not None and os.name == "posix":
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(status)
