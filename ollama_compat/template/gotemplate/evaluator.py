"""Finds the values of pipelines. What is an error, and its text, is as in Go's text/template."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NoReturn

from ollama_compat.template.errors import TemplateError
from ollama_compat.template.gotemplate import functions, nodes, values
from ollama_compat.template.gotemplate.functions import REFLECT, CallError, Function
from ollama_compat.template.gotemplate.literals import Constant, quote, to_bytes
from ollama_compat.template.gotemplate.values import Kind, Type, Value


class Scope:
    """What a running template sees: dot, and its variables, innermost last."""

    __slots__ = ("dot", "variables")

    def __init__(self, dot: Value | None) -> None:
        self.dot = dot
        self.variables: list[tuple[str, Value | None]] = [("$", dot)]

    def mark(self) -> int:
        """The number of variables, for `pop`."""
        return len(self.variables)

    def pop(self, mark: int) -> None:
        """Forgets the variables that came after the mark."""
        del self.variables[mark:]

    def find(self, name: str) -> int:
        """Index of the innermost variable of that name, or -1."""
        for at in range(len(self.variables) - 1, -1, -1):
            if self.variables[at][0] == name:
                return at
        return -1


class _Missing:
    """In the place of the value that a pipeline hands to its next command: there is none."""


_MISSING = _Missing()
_Final = Value | None | _Missing
_Args = Sequence[nodes.Node]


class Evaluator:
    """Evaluates for one run; counts its steps and knows where it is, for errors."""

    def __init__(self, source: str, table: Mapping[str, Function], *, missing_is_zero: bool, max_steps: int) -> None:
        self._source = source
        self._functions = table
        self._missing_is_zero = missing_is_zero
        self._steps = max_steps
        self._name = ""  # of the template that runs
        self._node: nodes.Node | None = None

    # ---------------------------------------------------------------- where it is

    def at(self, node: nodes.Node) -> None:
        """Errors from now on are about `node`."""
        self._node = node

    def charge(self, steps: int) -> None:
        """Takes steps from the budget. Raises TemplateError when it is spent."""
        self._steps -= steps
        if self._steps < 0:
            self.fail("the template takes too long")

    @contextlib.contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """While the template `name` runs."""
        before, self._name = self._name, name
        yield
        self._name = before

    def fail(self, message: str) -> NoReturn:
        """Raises TemplateError with the place and the node in Go's form."""
        if self._node is None:
            raise TemplateError(f"template: {self._name}: {message}")
        before = self._source[: self._node.pos]
        line = before.count("\n") + 1
        column = len(to_bytes(before[before.rfind("\n") + 1 :]))
        raise TemplateError(f"template: :{line}:{column}: executing {quote(self._name)} at <{self._node}>: {message}")

    # ---------------------------------------------------------------- pipelines

    def pipeline(self, scope: Scope, pipe: nodes.Pipe) -> Value | None:
        """The value of the pipeline; variables that it declares are pushed."""
        self.at(pipe)
        value: _Final = _MISSING
        for command in pipe.commands:
            self.charge(1)
            value = values.unwrap(self._command(scope, command, value))
        assert not isinstance(value, _Missing)
        for variable in pipe.variables:
            if pipe.assigns:
                self.assign(scope, variable.names[0], value)
            else:
                scope.variables.append((variable.names[0], value))
        return value

    def assign(self, scope: Scope, name: str, value: Value | None) -> None:
        """Gives the innermost variable of that name a new value."""
        at = scope.find(name)
        if at < 0:
            self.fail(f"undefined variable: {name}")
        scope.variables[at] = (name, value)

    def _command(self, scope: Scope, command: nodes.Command, final: _Final) -> Value | None:
        first = command.args[0]
        match first:
            case nodes.Field():
                return self._field_node(scope, first, command.args, final)
            case nodes.Identifier():
                return self._function(scope, first, command, command.args, final)
            case nodes.Variable():
                return self._variable(scope, first, command.args, final)
            case nodes.Chain():
                return self._chain(scope, first, command.args, final)
            case nodes.Pipe():
                self._no_arguments(command.args, final)
                return self.pipeline(scope, first)
        self.at(first)
        self._no_arguments(command.args, final)
        if isinstance(first, nodes.Nil):
            self.fail("nil is not a command")
        return self._plain(scope, first)

    def _no_arguments(self, args: _Args, final: _Final) -> None:
        if len(args) > 1 or not isinstance(final, _Missing):
            self.fail(f"can't give argument to non-function {args[0]}")

    def _plain(self, scope: Scope, node: nodes.Node) -> Value | None:
        """Dot, or the value of a literal where no type is asked for."""
        match node:
            case nodes.Dot():
                return scope.dot
            case nodes.Bool():
                return Value(values.BOOL, node.value)
            case nodes.String():
                return Value(values.STRING, node.value)
            case nodes.Number():
                return self._number(node.constant)
        raise AssertionError(f"{type(node).__name__} is no operand")

    def _number(self, constant: Constant) -> Value:
        if constant.complex is not None:
            return Value(values.COMPLEX128, constant.complex)
        if constant.looks_real:
            return Value(values.FLOAT64, constant.real)
        if constant.integer is None or constant.integer >= 1 << 63:
            self.fail(f"{constant.text} overflows int")
        return Value(values.INT, constant.integer)

    # ---------------------------------------------------------------- fields

    def _field_node(self, scope: Scope, node: nodes.Field, args: _Args, final: _Final) -> Value | None:
        self.at(node)
        return self._fields(scope.dot, node.names, args, final)

    def _chain(self, scope: Scope, node: nodes.Chain, args: _Args, final: _Final) -> Value | None:
        self.at(node)
        base = self._argument(scope, None, node.base)
        return self._fields(base, node.names, args, final)

    def _variable(self, scope: Scope, node: nodes.Variable, args: _Args, final: _Final) -> Value | None:
        self.at(node)
        at = scope.find(node.names[0])
        if at < 0:
            self.fail(f"undefined variable: {node.names[0]}")
        value = scope.variables[at][1]
        if len(node.names) > 1:
            return self._fields(value, node.names[1:], args, final)
        if args:
            self._no_arguments(args, final)
        return value

    def _fields(self, receiver: Value | None, names: Sequence[str], args: _Args, final: _Final) -> Value | None:
        for name in names[:-1]:
            receiver = self._field(receiver, name, (), _MISSING)
        return self._field(receiver, names[-1], args, final)

    def _field(self, outer: Value | None, name: str, args: _Args, final: _Final) -> Value | None:
        """Field, key or method `name` of a value."""
        if outer is None:
            return None
        receiver, is_nil = values.indirect(outer)
        assert receiver is not None
        if is_nil and receiver.type.kind is Kind.INTERFACE:
            self.fail(f"nil pointer evaluating {outer.type.name}.{name}")
        method = None if is_nil else receiver.type.methods.get(name)
        if method is not None:
            self._no_parameters(name, args, final)
            return Value(values.STRING, method(receiver))
        has_args = len(args) > 1 or not isinstance(final, _Missing)
        match receiver.type.kind:
            case Kind.STRUCT if (field := receiver.type.field(name)) is not None:
                return self._member(outer, receiver, field, has_args)
            case Kind.MAP:
                return self._entry(receiver, name, has_args)
            case Kind.POINTER if receiver.type.elem.kind is not Kind.STRUCT or receiver.type.elem.field(name):
                self.fail(f"nil pointer evaluating {outer.type.name}.{name}")
        self.fail(f"can't evaluate field {name} in type {outer.type.name}")

    def _no_parameters(self, name: str, args: _Args, final: _Final) -> None:
        """Methods take nothing."""
        got = max(len(args) - 1, 0) + (not isinstance(final, _Missing))
        if got:
            self.fail(f"wrong number of args for {name}: want 0 got {got}")

    def _member(self, outer: Value, receiver: Value, field: values.Field, has_args: bool) -> Value:
        if not field.name[0].isupper():
            self.fail(f"{field.name} is an unexported field of struct type {outer.type.name}")
        if has_args:
            self.fail(f"{field.name} has arguments but cannot be invoked as function")
        return values.typed(field.type, receiver.data[field.name])

    def _entry(self, receiver: Value, name: str, has_args: bool) -> Value | None:
        if has_args:
            self.fail(f"{name} is not a method but has arguments")
        if receiver.data is not None and name in receiver.data:
            return values.typed(receiver.type.elem, receiver.data[name])
        return values.zero(receiver.type.elem) if self._missing_is_zero else None

    # ---------------------------------------------------------------- functions

    def _function(self, scope: Scope, node: nodes.Identifier, command: nodes.Node, args: _Args, final: _Final) -> Value | None:
        self.at(node)
        function = self._functions[node.name]
        args = args[1:]
        self._count(function, len(args), final)
        if node.name in ("and", "or"):
            return self._and_or(scope, node.name, args, final)
        given = [self._argument(scope, function.param(index), arg) for index, arg in enumerate(args)]
        if not isinstance(final, _Missing):
            given.append(self._checked(final, function.param(len(args))))
        try:
            result = self._call(function, args, given, final)
        except CallError as error:
            self.at(command)
            self.fail(f"error calling {node.name}: {error}")
        return result

    def _count(self, function: Function, count: int, final: _Final) -> None:
        total = count + (not isinstance(final, _Missing))
        if function.variadic:
            least = len(function.params) - 1
            if total < least:
                self.fail(f"wrong number of args for {function.name}: want at least {least} got {count}")
        elif total != len(function.params):
            self.fail(f"wrong number of args for {function.name}: want {len(function.params)} got {total}")

    def _call(self, function: Function, args: _Args, given: list[Value | None], final: _Final) -> Value | None:
        self.charge(1 + sum(map(_length, given)) // 128)
        if function.name == "call":
            return functions.call(self._callee(args, final), *given)
        result = function.call(*given)
        self.charge(_length(result) // (2 if any(map(is_collection, given)) else 8))
        return result

    def _callee(self, args: _Args, final: _Final) -> str:
        """What `call` calls, as its error names it."""
        if args:
            return str(args[0])
        if isinstance(final, Value) and final.type.kind is not Kind.STRING:
            return f"<{final.type.name} Value>"
        return final.data if isinstance(final, Value) else "<invalid Value>"

    def _and_or(self, scope: Scope, name: str, args: _Args, final: _Final) -> Value | None:
        """Arguments behind the one that decides are not evaluated."""
        value: Value | None = None
        for arg in args:
            value = self._argument(scope, REFLECT, arg)
            if values.is_true(value) == (name == "or"):
                return value
        return value if isinstance(final, _Missing) else final

    # ---------------------------------------------------------------- arguments

    def _argument(self, scope: Scope, wanted: Type | None, node: nodes.Node) -> Value | None:
        """The value of an argument whose parameter has type `wanted`; None: any, as it is."""
        self.at(node)
        match node:
            case nodes.Field():
                return self._checked(self._field_node(scope, node, (node,), _MISSING), wanted)
            case nodes.Variable():
                return self._checked(self._variable(scope, node, (), _MISSING), wanted)
            case nodes.Pipe():
                return self._checked(self.pipeline(scope, node), wanted)
            case nodes.Identifier():
                return self._checked(self._function(scope, node, node, (), _MISSING), wanted)
            case nodes.Chain():
                return self._checked(self._chain(scope, node, (), _MISSING), wanted)
            case nodes.Dot():
                return self._checked(scope.dot, wanted)
            case nodes.Nil() if wanted is values.STRING:
                self.fail("cannot assign nil to string")
            case nodes.Nil():
                return Value(values.ANY, None) if wanted is values.ANY else None
        if wanted is values.STRING and not isinstance(node, nodes.String):
            self.fail(f"expected string; found {node}")
        return self._plain(scope, node)

    def _checked(self, value: Value | None, wanted: Type | None) -> Value | None:
        """`value` where it can be an argument of that type. The only types are string, any and reflect.Value."""
        if wanted is not values.STRING:
            return Value(values.ANY, None) if value is None and wanted is values.ANY else value
        if value is None:
            self.fail("invalid value; expected string")
        inner = values.unwrap(value)
        if inner is not None and inner.type.kind is Kind.POINTER and inner.type.elem is values.STRING:
            inner = Value(values.STRING, inner.data)
        if inner is None or inner.type is not values.STRING:
            shown = value if inner is None else inner
            self.fail(f"wrong type for value; expected string; got {shown.type.name}")
        return inner


def is_collection(value: Value | None) -> bool:
    """Whether printing it is more work than copying a string."""
    value = values.unwrap(value)
    return value is not None and not values.is_basic(value)


def _length(value: Value | None) -> int:
    """Characters of a string."""
    value = values.unwrap(value)
    return len(value.data) if value is not None and value.type is values.STRING else 0
