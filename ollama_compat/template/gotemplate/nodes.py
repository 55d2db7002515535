"""The parse tree of a Go template. `str(node)` gives the source back, in the form in which Go's error messages quote it.

Nodes never change; `pos` counts characters from the start of the template.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator

from ollama_compat.template.gotemplate.literals import Constant, quote

_T = typing.TypeVar("_T")


@typing.dataclass_transform(frozen_default=True, eq_default=False)
def _node(cls: type[_T]) -> type[_T]:
    return dataclasses.dataclass(frozen=True, slots=True, eq=False)(cls)


@_node
class Node:
    pos: int

    def children(self) -> tuple[Node, ...]:
        """The nodes right below, in the order in which they stand in the source."""
        return ()


def walk(node: Node) -> Iterator[Node]:
    """The node and everything below it, in source order."""
    yield node
    for child in node.children():
        yield from walk(child)


# ---------------------------------------------------------------- operands


@_node
class Dot(Node):
    def __str__(self) -> str:
        return "."


@_node
class Nil(Node):
    def __str__(self) -> str:
        return "nil"


@_node
class Bool(Node):
    value: bool

    def __str__(self) -> str:
        return "true" if self.value else "false"


@_node
class Number(Node):
    constant: Constant

    def __str__(self) -> str:
        return self.constant.text


@_node
class String(Node):
    literal: str  # with its quotes
    value: str

    def __str__(self) -> str:
        return self.literal


@_node
class Identifier(Node):
    """The name of a function."""

    name: str

    def __str__(self) -> str:
        return self.name


@_node
class Field(Node):
    """`.A.B`: names is ("A", "B")."""

    names: tuple[str, ...]

    def __str__(self) -> str:
        return "." + ".".join(self.names)


@_node
class Variable(Node):
    """`$x.A`: names is ("$x", "A")."""

    names: tuple[str, ...]

    def __str__(self) -> str:
        return ".".join(self.names)


@_node
class Chain(Node):
    """Fields of something else than dot or a variable: `(pipeline).A.B`."""

    base: Node
    names: tuple[str, ...]

    def children(self) -> tuple[Node, ...]:
        return (self.base,)

    def __str__(self) -> str:
        base = f"({self.base})" if isinstance(self.base, Pipe) else str(self.base)
        return ".".join((base, *self.names))


@_node
class Command(Node):
    """Operands side by side; the first one may be a function."""

    args: tuple[Node, ...]

    def children(self) -> tuple[Node, ...]:
        return self.args

    def __str__(self) -> str:
        return " ".join(f"({arg})" if isinstance(arg, Pipe) else str(arg) for arg in self.args)


@_node
class Pipe(Node):
    """Commands joined by `|`, and the variables that take the value."""

    commands: tuple[Command, ...]
    variables: tuple[Variable, ...] = ()
    assigns: bool = False  # `=` to variables that exist; otherwise `:=`

    def children(self) -> tuple[Node, ...]:
        return self.commands

    def __str__(self) -> str:
        text = " | ".join(map(str, self.commands))
        if not self.variables:
            return text
        return ", ".join(map(str, self.variables)) + (" = " if self.assigns else " := ") + text


# ---------------------------------------------------------------- what stands in the text


@_node
class List(Node):
    nodes: tuple[Node, ...]

    def children(self) -> tuple[Node, ...]:
        return self.nodes

    def __str__(self) -> str:
        return "".join(map(str, self.nodes))


@_node
class Text(Node):
    value: str

    def __str__(self) -> str:
        return self.value


@_node
class Action(Node):
    """A pipeline whose value is printed, unless variables take it."""

    pipe: Pipe

    def children(self) -> tuple[Node, ...]:
        return (self.pipe,)

    def __str__(self) -> str:
        return f"{{{{{self.pipe}}}}}"


@_node
class Branch(Node):
    """if, with or range."""

    pipe: Pipe
    body: List
    otherwise: List | None

    def children(self) -> tuple[Node, ...]:
        return (self.pipe, self.body) if self.otherwise is None else (self.pipe, self.body, self.otherwise)

    def __str__(self) -> str:
        otherwise = "" if self.otherwise is None else f"{{{{else}}}}{self.otherwise}"
        return f"{{{{{type(self).__name__.lower()} {self.pipe}}}}}{self.body}{otherwise}{{{{end}}}}"


@_node
class If(Branch):
    pass


@_node
class With(Branch):
    pass


@_node
class Range(Branch):
    pass


@_node
class Break(Node):
    def __str__(self) -> str:
        return "{{break}}"


@_node
class Continue(Node):
    def __str__(self) -> str:
        return "{{continue}}"


@_node
class Call(Node):
    """{{template "name" pipeline}}"""

    name: str
    pipe: Pipe | None

    def children(self) -> tuple[Node, ...]:
        return () if self.pipe is None else (self.pipe,)

    def __str__(self) -> str:
        return f"{{{{template {quote(self.name)}{'' if self.pipe is None else f' {self.pipe}'}}}}}"


# ---------------------------------------------------------------- only seen by the parser


@_node
class End(Node):
    def __str__(self) -> str:
        return "{{end}}"


@_node
class Else(Node):
    def __str__(self) -> str:
        return "{{else}}"
