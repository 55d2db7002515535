"""The Jinja environment that chat templates run in, as `transformers` and llama.cpp set it up.

Blocks swallow the white space around them, `break` and `continue` work, `tojson` writes plain JSON (keys in their order,
no HTML escapes), and there are `strftime_now`, `raise_exception` and `namespace`. What is not there may be named, looked
into and added to a text, as in llama.cpp; `none` prints as nothing. Nothing loads from the file system, no value can be
changed except by a list's `append` and `pop`, and `lipsum`, `cycler` and `joiner`, which no chat template needs, are missing.
"""

from __future__ import annotations

import datetime
import json
import re
from typing import Any

import jinja2
import jinja2.exceptions
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

_MAX_ITEMS = 1 << 24  # characters of a string, or items of a list, that one operator may make
_MAX_BITS = 1 << 16  # bits of an integer that `*` or `**` may make


class Refusal(jinja2.TemplateError):
    """`raise_exception` was called: the template does not accept this conversation."""


class _Absent(jinja2.ChainableUndefined):
    """A variable or key that is not there: an empty text."""

    def __add__(self, other: Any) -> Any:
        return other

    __radd__ = __add__


class _Generation(jinja2.ext.Extension):
    """`{% generation %}`, by which training marks the assistant's text; for rendering it is not there."""

    tags = {"generation"}  # noqa: RUF012  (read by jinja2 from the class)

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Environment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """The sandbox, with a limit on operators by which one expression can ask for any amount of time or memory."""

    intercepted_binops = frozenset(("*", "**", "%"))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return (isinstance(obj, list) and attr in ("append", "pop")) or super().is_safe_attribute(obj, attr, value)

    def call_binop(self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any) -> Any:
        _check_operator(operator, left, right)
        return super().call_binop(context, operator, left, right)


def environment() -> jinja2.Environment:
    """A fresh environment; templates made by its `from_string` may be rendered with values of plain JSON types."""
    extensions = ["jinja2.ext.loopcontrols", _Generation]
    env = _Environment(trim_blocks=True, lstrip_blocks=True, extensions=extensions, undefined=_Absent, finalize=_printed)
    for name in ("lipsum", "cycler", "joiner"):
        del env.globals[name]
    env.globals.update(raise_exception=_raise_exception, strftime_now=_strftime_now)
    env.filters.update(tojson=_tojson, safe=str)  # `safe` would make texts that escape what is added to them
    return env


def _printed(value: Any) -> Any:
    return "" if value is None else value


def _raise_exception(message: object) -> None:
    raise Refusal(str(message))


def _strftime_now(form: str) -> str:
    return datetime.datetime.now().strftime(form)


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False
) -> str:
    separators = tuple(separators) if separators else None
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys, default=_jsonable
    )


def _jsonable(value: Any) -> Any:
    """What json.dumps cannot write itself: the absent as null, what filters such as `map` give as an array."""
    return None if isinstance(value, jinja2.Undefined) else list(value)


def _check_operator(operator: str, left: Any, right: Any) -> None:
    """jinja2.exceptions.SecurityError for an operation whose result would be absurd in a prompt."""
    if operator == "%":
        too_much = isinstance(left, str) and any(int(width) > _MAX_ITEMS for width in re.findall(r"\d{1,4000}", left))
        too_much = too_much or (isinstance(left, str) and "*" in left)
    elif isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() * right if operator == "**" else left.bit_length() + right.bit_length()
        too_much = bits > _MAX_BITS
    elif operator == "*":
        too_much = _items(left) * _items(right) > _MAX_ITEMS
    else:
        too_much = False
    if too_much:
        raise jinja2.exceptions.SecurityError(f"the result of {operator!r} is too large")


def _items(value: Any) -> int:
    """What `value` contributes to the size of a repetition: a length, or a number of times."""
    if isinstance(value, int):
        return value
    return len(value) if hasattr(value, "__len__") else 1
