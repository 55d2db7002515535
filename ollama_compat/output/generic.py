"""Tool calls of models with a Go template: any JSON object near a tool's name, behind the tag that the template writes.

As Ollama's `tools` package: text before the tag is content. Behind it, an object that mentions a known tool, or follows
its name, is a call of it; everything else there is dropped. A template without a tag makes `{` (or `[`) the tag: then
only an answer that begins with it is looked at, and it is content after all when it turns out to hold no call. Two things
differ, for the better: the name in an object that is a call goes before names that merely stand near, and an object that
is no call does not keep later ones from being found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ollama_compat.output.machine import Machine, overlap
from ollama_compat.output.offered import meant
from ollama_compat.output.tool_json import Scanner, load_object, ollama_id


class GenericCalls(Machine):
    """Splits calls of `names` from content; `tag` opens them."""

    def __init__(self, tag: str, names: Sequence[str], *, new_id: Callable[[], str] = ollama_id) -> None:
        super().__init__(new_id)
        self.preserved = () if tag in _BRACKETS else (tag,)
        self._tag = tag
        self._names = [name for name in names if name]
        self._state = self._look
        self._settled = 0  # how much of what is held belongs to objects that were no calls
        self._objects = Scanner("{}")
        self._whole = Scanner(_BRACKETS.get(tag, "{}"))

    def _end(self) -> None:
        if self._state == self._look or (self._tag in _BRACKETS and self._calls == 0):
            self._say(self._held)

    def _look(self) -> bool:
        before, tag, rest = self._held.partition(self._tag)
        if not tag:
            before = self._held[: len(self._held) - overlap(self._held, self._tag)]
        self._say(before)
        self._held = self._held[len(before) :]
        if self._tag in _BRACKETS and before.strip():
            self._state = self._pass
            return True
        if not tag:
            return False
        self._held = tag + rest
        self._state = self._collect
        return True

    def _collect(self) -> bool:
        end = self._objects.scan(self._held)
        if end < 0:
            return self._give_up()
        call = self._find(self._held[self._settled : end], load_object(self._held[self._objects.start : end]))
        if call is None:
            self._settled = end
            self._give_up()
            return True
        self._call(*call)
        self._settled = 0
        self._held = self._held[end:]
        self._objects = Scanner("{}")
        return True

    def _give_up(self) -> bool:
        """Whether an answer that looked like a call has ended its brackets without being one."""
        if self._tag not in _BRACKETS or self._calls > 0 or self._whole.scan(self._held) < 0:
            return False
        self._state = self._pass
        return True

    def _find(self, text: str, value: dict[str, Any] | None) -> tuple[str, dict[str, Any]] | None:
        """Name and arguments of the call that `text` holds; `value` is the object at its end."""
        name = None if value is None else self._name(text, value)
        if value is None or name is None:
            return None
        known, arguments = _arguments(value, name)
        arguments = arguments if known else value
        return None if arguments is None else (name, arguments)

    def _name(self, text: str, value: dict[str, Any]) -> str | None:
        """The tool that `value` names; else the known name that stands first in `text`, the longest one there."""
        name = value.get("name")
        if isinstance(name, str) and (called := meant(name, self._names)):
            return called
        found = [(text.index(name), -len(name), name) for name in self._names if name in text]
        return min(found)[2] if found else None


_BRACKETS: Mapping[str, str] = {"{": "{}", "[": "[]"}


def _arguments(value: Mapping[str, Any], name: str) -> tuple[bool, dict[str, Any] | None]:
    """Whether `value`, or an object in it, is in the form of a call, and the arguments in it.

    The forms are {"name": any, "arguments" or "parameters": {...}} and {name: {...}}; arguments may be JSON text.
    """
    if "name" in value:
        arguments = _object(value.get("arguments"))
        return True, _object(value.get("parameters")) if arguments is None else arguments
    if (arguments := _object(value.get(name))) is not None:
        return True, arguments
    for child in value.values():
        for item in child if isinstance(child, list) else [child]:
            if isinstance(item, dict) and (found := _arguments(item, name))[0]:
                return found
    return False, None


def _object(value: Any) -> dict[str, Any] | None:
    if isinstance(value, str):
        return load_object(value)
    return value if isinstance(value, dict) else None
