"""Runs a parsed template. What is an error, and its text, is as in Go's text/template.

Templates come from model files, so a run has a budget: steps, depth of templates inside each other and size of the output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

from ollama_compat.template.gotemplate import nodes, printf, values
from ollama_compat.template.gotemplate.evaluator import Evaluator, Scope, is_collection
from ollama_compat.template.gotemplate.functions import Function, printable
from ollama_compat.template.gotemplate.literals import quote, to_bytes
from ollama_compat.template.gotemplate.values import Kind, Value

MAX_DEPTH = 64  # templates that call each other


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


class Executor:
    """One run of the templates `trees`, which were parsed from `source`."""

    def __init__(
        self,
        source: str,
        trees: Mapping[str, nodes.List],
        functions: Mapping[str, Function],
        *,
        missing_is_zero: bool,
        max_steps: int,
        max_output: int,
    ) -> None:
        self._trees = trees
        self._out: list[str] = []
        self._written = 0
        self._max_output = max_output
        self._depth = 0
        self._eval = Evaluator(source, functions, missing_is_zero=missing_is_zero, max_steps=max_steps)
        self._walkers: dict[type[nodes.Node], Callable[[Scope, Any], None]] = {
            nodes.Text: self._text,
            nodes.Action: self._action,
            nodes.List: self._list,
            nodes.If: self._if,
            nodes.With: self._with,
            nodes.Range: self._range,
            nodes.Call: self._call,
            nodes.Break: self._break,
            nodes.Continue: self._continue,
        }

    def run(self, dot: Value | None) -> str:
        """The output of the template named "" for `dot`. Raises TemplateError."""
        try:
            self._list(Scope(dot), self._trees[""])
        except RecursionError:
            self._too_deep()
        return to_bytes("".join(self._out)).decode("utf-8", "replace")

    def _too_deep(self) -> NoReturn:
        self._eval.fail(f"exceeded maximum template depth ({MAX_DEPTH})")

    def _walk(self, scope: Scope, node: nodes.Node) -> None:
        self._eval.at(node)
        self._eval.charge(1)
        self._walkers[type(node)](scope, node)

    def _write(self, text: str) -> None:
        self._written += len(text)
        self._eval.charge(len(text) // 128)
        if self._written > self._max_output:
            self._eval.fail(f"output is longer than {self._max_output} characters")
        self._out.append(text)

    def _list(self, scope: Scope, node: nodes.List) -> None:
        for child in node.nodes:
            self._walk(scope, child)

    def _text(self, scope: Scope, node: nodes.Text) -> None:
        self._write(node.value)

    def _action(self, scope: Scope, node: nodes.Action) -> None:
        value = self._eval.pipeline(scope, node.pipe)
        if not node.pipe.variables:
            self._eval.at(node)
            shown = printable(value)
            text = shown.data if shown is not None and shown.type is values.STRING else printf.sprint([shown])
            if is_collection(value):
                self._eval.charge(len(text) // 2)
            self._write(text)

    def _break(self, scope: Scope, node: nodes.Break) -> None:
        raise _Break

    def _continue(self, scope: Scope, node: nodes.Continue) -> None:
        raise _Continue

    # ---------------------------------------------------------------- branches

    def _if(self, scope: Scope, node: nodes.If) -> None:
        mark = scope.mark()
        try:
            if values.is_true(self._eval.pipeline(scope, node.pipe)):
                self._list(scope, node.body)
            elif node.otherwise is not None:
                self._list(scope, node.otherwise)
        finally:
            scope.pop(mark)

    def _with(self, scope: Scope, node: nodes.With) -> None:
        mark = scope.mark()
        try:
            value = self._eval.pipeline(scope, node.pipe)
            if values.is_true(value):
                self._at_dot(scope, value, node.body)
            elif node.otherwise is not None:
                self._list(scope, node.otherwise)
        finally:
            scope.pop(mark)

    def _at_dot(self, scope: Scope, dot: Value | None, body: nodes.List) -> None:
        before, scope.dot = scope.dot, dot
        try:
            self._list(scope, body)
        finally:
            scope.dot = before

    def _range(self, scope: Scope, node: nodes.Range) -> None:
        mark = scope.mark()
        try:
            value, _ = values.indirect(self._eval.pipeline(scope, node.pipe))
            inner = scope.mark()
            empty = True
            for index, elem in self._iterate(value, node):
                empty = False
                self._eval.charge(1)
                self._iteration(scope, node, index, elem, inner)
            if empty and node.otherwise is not None:
                self._list(scope, node.otherwise)
        except _Break:
            pass
        finally:
            scope.pop(mark)

    def _iterate(self, value: Value | None, node: nodes.Range) -> Iterable[tuple[Value | None, Value]]:
        """Index or key, and element."""
        if value is None:
            return ()
        if value.type.kind is Kind.SLICE:
            return self._elements(value)
        if value.type.kind is Kind.MAP:
            self._eval.charge(values.length(value))  # they are sorted
            elem = value.type.elem
            return ((Value(values.STRING, key), values.typed(elem, data)) for key, data in values.entries(value))
        if value.type.kind in (Kind.INT, Kind.UINT8):
            if len(node.pipe.variables) > 1:
                self._eval.fail(f"can't use {printf.show(value)} to iterate over more than one variable")
            return ((None, Value(value.type, number)) for number in range(value.data))
        self._eval.fail(f"range can't iterate over {printf.show(value)}")

    def _elements(self, value: Value) -> Iterable[tuple[Value, Value]]:
        for index in range(values.length(value)):
            yield Value(values.INT, index), values.element(value, index)

    def _iteration(self, scope: Scope, node: nodes.Range, index: Value | None, elem: Value, mark: int) -> None:
        names = [variable.names[0] for variable in node.pipe.variables]
        pairs = list(zip(names, (index, elem) if len(names) > 1 else (elem,), strict=True)) if names else []
        for place, (name, value) in enumerate(pairs):
            if node.pipe.assigns:
                self._eval.assign(scope, name, value)
            else:
                scope.variables[mark - len(pairs) + place] = (name, value)
        try:
            self._at_dot(scope, elem, node.body)
        except _Continue:
            pass
        finally:
            scope.pop(mark)

    # ---------------------------------------------------------------- templates

    def _call(self, scope: Scope, node: nodes.Call) -> None:
        tree = self._trees.get(node.name)
        if tree is None:
            self._eval.fail(f"template {quote(node.name)} not defined")
        if self._depth == MAX_DEPTH:
            self._too_deep()
        dot = None if node.pipe is None else self._eval.pipeline(scope, node.pipe)
        self._depth += 1
        with self._eval.inside(node.name):
            self._list(Scope(dot), tree)
        self._depth -= 1
