"""What a client command is told by its environment, read once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from ollama_compat.settings import Address, address, proxies

_FALSE = frozenset({"", "0", "f", "F", "FALSE", "false", "False"})


@dataclasses.dataclass(frozen=True, slots=True)
class Environment:
    """Where the server is and how the interactive session behaves."""

    host: Address
    home: Path
    no_history: bool = False
    editor: str = "vi"
    api_key: str = ""  # for a server that asks for one
    proxies: Mapping[str, str] = dataclasses.field(default_factory=dict)  # scheme, or "no", to its variable's text
    warnings: tuple[str, ...] = ()  # what was not taken as it stands

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Environment:
        """Ollama's variables, trimmed of spaces and quotes as Ollama does."""
        editors = (text(environ, "OLLAMA_EDITOR"), environ.get("VISUAL", ""), environ.get("EDITOR", ""), "vi")
        warnings: list[str] = []
        return cls(
            host=address(text(environ, "OLLAMA_HOST"), warnings),
            home=Path(environ.get("HOME") or Path.home()),
            no_history=text(environ, "OLLAMA_NOHISTORY") not in _FALSE,
            editor=next(editor for editor in editors if editor),
            api_key=text(environ, "OLLAMA_API_KEY"),
            proxies=proxies(environ),
            warnings=tuple(warnings),
        )


def text(environ: Mapping[str, str], key: str) -> str:
    """A variable without the spaces and quotes around it; empty when unset."""
    return environ.get(key, "").strip().strip("\"'")
