"""The tokens of a template as its parser sees them: with words put back, and with Go's texts for what does not fit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

from ollama_compat.template.errors import TemplateError
from ollama_compat.template.gotemplate import literals
from ollama_compat.template.gotemplate.lexer import Kind, Token
from ollama_compat.template.gotemplate.literals import LiteralError

MAX_DEPTH = 100  # actions and parentheses inside each other; Go has no bound that protects a Python stack


class TokenReader:
    """Reads from tokens that other readers may share."""

    def __init__(self, tokens: Iterator[Token]) -> None:
        self._tokens = tokens
        self._last = Token(Kind.EOF, 0, "", 0)  # read last, not counting what was pushed back: errors name its line
        self._pushed: list[Token] = []
        self._action_line = 0  # where the action that is being read began
        self._depth = 0

    def _next(self) -> Token:
        if self._pushed:
            return self._pushed.pop()
        self._last = next(self._tokens, self._last)
        return self._last

    def _push(self, *tokens: Token) -> None:
        """Puts tokens back; they come again in the order given."""
        self._pushed.extend(reversed(tokens))

    def _peek(self) -> Token:
        token = self._next()
        self._push(token)
        return token

    def _next_word(self) -> Token:
        """The next token that is no space."""
        token = self._next()
        while token.kind is Kind.SPACE:
            token = self._next()
        return token

    def _peek_word(self) -> Token:
        token = self._next_word()
        self._push(token)
        return token

    def _fail(self, message: str) -> NoReturn:
        raise TemplateError(f"template: :{self._last.line}: {message}")

    def _unexpected(self, token: Token, context: str) -> NoReturn:
        if token.kind is not Kind.ERROR:
            self._fail(f"unexpected {token} in {context}")
        extra = ""
        if self._action_line not in (0, token.line):
            extra = f" in action started at :{self._action_line}"
            if token.text.endswith(" action"):
                extra = extra.removeprefix(" in action")
        self._fail(f"{token}{extra}")

    def _expect(self, context: str, *kinds: Kind) -> Token:
        token = self._next_word()
        if token.kind not in kinds:
            self._unexpected(token, context)
        return token

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._fail("max expression depth exceeded")

    def _unquote(self, token: Token) -> str:
        try:
            return literals.unquote(token.text)
        except LiteralError as error:
            self._fail(str(error))
