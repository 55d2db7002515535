"""Parses what stands inside an action: declarations, commands, operands."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from ollama_compat.template.gotemplate import literals, nodes
from ollama_compat.template.gotemplate.lexer import Kind, Token
from ollama_compat.template.gotemplate.literals import LiteralError, quote
from ollama_compat.template.gotemplate.tokens import TokenReader

MAX_VARIABLES = 200  # in scope; they are searched for one by one

_NUMBERS = (Kind.NUMBER, Kind.CHAR_CONSTANT, Kind.COMPLEX)
_STRINGS = (Kind.STRING, Kind.RAW_STRING)
_NAMES = (Kind.BOOL, Kind.DOT, Kind.FIELD, Kind.IDENTIFIER, Kind.NIL, Kind.VARIABLE)
_OPERANDS = frozenset((*_NUMBERS, *_STRINGS, *_NAMES, Kind.LEFT_PAREN))
_LITERALS = (nodes.Bool, nodes.Dot, nodes.Nil, nodes.Number, nodes.String)
"""They can neither be called nor have fields."""


class PipelineParser(TokenReader):
    """Knows the functions there are and the variables declared so far."""

    def __init__(self, tokens: Iterator[Token], functions: Collection[str]) -> None:
        super().__init__(tokens)
        self._functions = functions
        self._variables = ["$"]

    def _pipeline(self, context: str, end: Kind) -> nodes.Pipe:
        start = self._peek_word().pos
        variables, assigns = self._declarations(context)
        commands: list[nodes.Command] = []
        while True:
            token = self._next_word()
            if token.kind is end:
                break
            if token.kind not in _OPERANDS:
                self._unexpected(token, context)
            self._push(token)
            commands.append(self._command())
        self._check(commands, context)
        return nodes.Pipe(start, tuple(commands), tuple(variables), assigns)

    def _check(self, commands: list[nodes.Command], context: str) -> None:
        if not commands:
            self._fail(f"missing value for {context}")
        for stage, command in enumerate(commands[1:], 2):
            if isinstance(command.args[0], _LITERALS):
                self._fail(f"non executable command in pipeline stage {stage}")

    def _declarations(self, context: str) -> tuple[list[nodes.Variable], bool]:
        """`$x :=`, `$x =` or, in a range, `$i, $x :=`; whether it assigns."""
        found: list[nodes.Variable] = []
        while (variable := self._peek_word()).kind is Kind.VARIABLE:
            self._next()
            after = self._peek()
            word = self._peek_word()
            if word.kind in (Kind.ASSIGN, Kind.DECLARE):
                self._declare(found, variable)
                return found, word.kind is Kind.ASSIGN
            if word.kind is not Kind.CHAR or word.text != ",":
                self._push(*((variable, after) if after.kind is Kind.SPACE else (variable,)))
                return found, False
            self._declare(found, variable)
            self._another(context, len(found))
        return found, False

    def _declare(self, found: list[nodes.Variable], token: Token) -> None:
        self._next_word()
        if len(self._variables) > MAX_VARIABLES:
            self._fail("too many variables")
        found.append(nodes.Variable(token.pos, (token.text,)))
        self._variables.append(token.text)

    def _another(self, context: str, count: int) -> None:
        """Only a range declares two variables."""
        if context != "range" or count > 1:
            self._fail(f"too many declarations in {context}")
        if self._peek_word().kind not in (Kind.VARIABLE, Kind.RIGHT_DELIM, Kind.RIGHT_PAREN):
            self._fail("range can only initialize variables")

    def _command(self) -> nodes.Command:
        start = self._peek_word().pos
        args: list[nodes.Node] = []
        while True:
            self._peek_word()
            operand = self._operand()
            if operand is not None:
                args.append(operand)
            token = self._next()
            if token.kind is Kind.SPACE:
                continue
            if token.kind in (Kind.RIGHT_DELIM, Kind.RIGHT_PAREN):
                self._push(token)
            elif token.kind is not Kind.PIPE:
                self._unexpected(token, "operand")
            break
        if not args:
            self._fail("empty command")
        return nodes.Command(start, tuple(args))

    def _operand(self) -> nodes.Node | None:
        """A term and the fields taken from it."""
        term = self._term()
        if term is None or self._peek().kind is not Kind.FIELD:
            return term
        pos = self._peek().pos
        names: list[str] = []
        while self._peek().kind is Kind.FIELD:
            names.append(self._next().text[1:])
        if isinstance(term, nodes.Field | nodes.Variable):
            return type(term)(pos, (*term.names, *names))
        if isinstance(term, _LITERALS):
            self._fail(f"unexpected . after term {quote(str(term))}")
        return nodes.Chain(pos, term, tuple(names))

    def _term(self) -> nodes.Node | None:
        token = self._next_word()
        if token.kind in _NUMBERS:
            return self._number(token)
        if token.kind in _STRINGS:
            return nodes.String(token.pos, token.text, self._unquote(token))
        if token.kind is Kind.LEFT_PAREN:
            self._deeper()
            pipe = self._pipeline("parenthesized pipeline", Kind.RIGHT_PAREN)
            self._depth -= 1
            return pipe
        node = self._name(token)
        if node is None:
            self._push(token)
        return node

    def _name(self, token: Token) -> nodes.Node | None:
        match token.kind:
            case Kind.IDENTIFIER:
                if token.text not in self._functions:
                    self._fail(f"function {quote(token.text)} not defined")
                return nodes.Identifier(token.pos, token.text)
            case Kind.VARIABLE:
                if token.text not in self._variables:
                    self._fail(f"undefined variable {quote(token.text)}")
                return nodes.Variable(token.pos, (token.text,))
            case Kind.FIELD:
                return nodes.Field(token.pos, (token.text[1:],))
            case Kind.DOT:
                return nodes.Dot(token.pos)
            case Kind.NIL:
                return nodes.Nil(token.pos)
            case Kind.BOOL:
                return nodes.Bool(token.pos, token.text == "true")
        return None

    def _number(self, token: Token) -> nodes.Number:
        try:
            return nodes.Number(token.pos, literals.number(token.text, is_complex=token.kind is Kind.COMPLEX))
        except LiteralError as error:
            self._fail(str(error))
