"""A parsed Go template, as Ollama uses it."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterator, Mapping
from typing import Any

from ollama_compat.template.errors import TemplateError
from ollama_compat.template.gotemplate import functions, nodes, values
from ollama_compat.template.gotemplate.executor import Executor
from ollama_compat.template.gotemplate.parser import parse
from ollama_compat.template.gotemplate.values import Value

MAX_STEPS = 1_000_000  # a second or two; a conversation of 1,000 messages takes some 20,000
MAX_OUTPUT = 64 << 20  # characters

_RESPONSE = nodes.Action(0, nodes.Pipe(0, (nodes.Command(0, (nodes.Field(0, ("Response",)),)),)))


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Template:
    """`trees` are the parsed templates by name; "" is the one that runs, the others were defined inside it."""

    source: str
    trees: Mapping[str, nodes.List]

    @classmethod
    def parse(cls, source: str) -> Template:
        """Ollama's template.Parse: one that shows neither messages nor response gets `{{ .Response }}` at its end.

        Raises TemplateError with Go's message.
        """
        try:
            template = cls(source, parse(source, functions.names()))
        except RecursionError:
            raise TemplateError("template: :1: max expression depth exceeded") from None
        if template.variables() & {"messages", "response"}:
            return template
        root = template.root
        return cls(source, {**template.trees, "": nodes.List(root.pos, (*root.nodes, _RESPONSE))})

    @property
    def root(self) -> nodes.List:
        """What runs."""
        return self.trees[""]

    def __str__(self) -> str:
        return self.source

    def variables(self) -> frozenset[str]:
        """Lower-case names of all fields and variables, as Ollama's Template.Vars: "messages", "toolcalls", "$last"."""
        return frozenset(name.lower() for tree in self.trees.values() for name in _identifiers(tree))

    def with_root(self, root: nodes.List) -> Template:
        """The same templates with another one to run."""
        return dataclasses.replace(self, trees={**self.trees, "": root})

    def execute(
        self,
        dot: Mapping[str, Any] | Value | None,
        *,
        today: datetime.date | None = None,
        missing_is_zero: bool = True,
        max_steps: int = MAX_STEPS,
        max_output: int = MAX_OUTPUT,
    ) -> str:
        """The output for `dot`: plain data (Go's map[string]any and so on) or a Value.

        `missing_is_zero` is Go's option missingkey=zero. Raises TemplateError with Go's message, or when the budget is spent.
        """
        table = {**functions.builtins(), **functions.ollama(today or datetime.date.today())}
        run = Executor(
            self.source, self.trees, table, missing_is_zero=missing_is_zero, max_steps=max_steps, max_output=max_output
        )
        return run.run(values.of(dot))


def _identifiers(node: nodes.Node) -> Iterator[str]:
    """Names in pipelines that run; not of variables that are declared, nor inside chains such as `(f .x).y`."""
    if isinstance(node, nodes.Field | nodes.Variable):
        yield from node.names
    elif isinstance(node, nodes.Call) and node.pipe is None:
        raise TemplateError("undefined template specified")
    elif not isinstance(node, nodes.Chain):
        for child in node.children():
            yield from _identifiers(child)
