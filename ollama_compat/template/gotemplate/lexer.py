"""Cuts a Go template into tokens. Facts: the documentation of Go's text/template and the behaviour of its parse package."""

from __future__ import annotations

import dataclasses
import enum
import re
import unicodedata

from ollama_compat.template.gotemplate.literals import quote


class Kind(enum.Enum):
    """What a token is; keywords are one kind, told apart by their text."""

    ERROR = enum.auto()
    EOF = enum.auto()
    TEXT = enum.auto()
    LEFT_DELIM = enum.auto()
    RIGHT_DELIM = enum.auto()
    SPACE = enum.auto()
    ASSIGN = enum.auto()
    DECLARE = enum.auto()
    PIPE = enum.auto()
    LEFT_PAREN = enum.auto()
    RIGHT_PAREN = enum.auto()
    CHAR = enum.auto()
    DOT = enum.auto()
    FIELD = enum.auto()
    VARIABLE = enum.auto()
    IDENTIFIER = enum.auto()
    KEYWORD = enum.auto()
    NIL = enum.auto()
    BOOL = enum.auto()
    STRING = enum.auto()
    RAW_STRING = enum.auto()
    CHAR_CONSTANT = enum.auto()
    NUMBER = enum.auto()
    COMPLEX = enum.auto()


@dataclasses.dataclass(frozen=True, slots=True)
class Token:
    """`pos` counts characters from the start of the template, `line` from 1. An ERROR's text is the message."""

    kind: Kind
    pos: int
    text: str
    line: int

    def __str__(self) -> str:
        """As Go's error messages name it."""
        if self.kind in (Kind.EOF, Kind.ERROR):
            return "EOF" if self.kind is Kind.EOF else self.text
        if self.kind in (Kind.KEYWORD, Kind.DOT, Kind.NIL):
            return f"<{self.text}>"
        if len(self.text.encode("utf-8", "surrogatepass")) > 10:
            return quote(self.text[:10]) + "..."
        return quote(self.text)


KEYWORDS = frozenset(("block", "break", "continue", "define", "else", "end", "if", "range", "template", "with"))

_SPACES = " \t\r\n"
_SPACE_RUN = re.compile(r"[ \t\r\n]*")
_STRING = re.compile(r'"(?:[^"\\\n]|\\[^\n])*"')
_CHAR = re.compile(r"'(?:[^'\\\n]|\\[^\n])*'")
_DIGITS = {"x": "0-9a-fA-F_", "o": "0-7_", "b": "01_", "": "0-9_"}
_PREFIX = re.compile(r"[-+]?(?:0([xXoObB]))?")
_SINGLE = {"=": Kind.ASSIGN, "|": Kind.PIPE}


class _Failed(Exception):
    """The token being read is none; the argument is the message."""


def lex(text: str) -> list[Token]:
    """All tokens of `text`; the last one is EOF or ERROR."""
    return _Lexer(text).run()


class _Lexer:
    def __init__(self, text: str) -> None:
        self._text = text
        self._pos = 0  # next character
        self._start = 0  # first character of the token being read
        self._line = 1  # of _counted
        self._counted = 0
        self._depth = 0  # open parentheses
        self._tokens: list[Token] = []

    def run(self) -> list[Token]:
        try:
            while self._outside():
                while self._inside():
                    pass
        except _Failed as failure:
            self._add(Kind.ERROR, str(failure))
        else:
            self._start = self._pos
            self._add(Kind.EOF, "")
        return self._tokens

    def _add(self, kind: Kind, text: str) -> None:
        self._line += self._text.count("\n", self._counted, self._start)
        self._counted = self._start
        self._tokens.append(Token(kind, self._start, text, self._line))

    def _emit(self, kind: Kind) -> bool:
        self._add(kind, self._text[self._start : self._pos])
        self._start = self._pos
        return True

    # ---------------------------------------------------------------- outside of actions

    def _outside(self) -> bool:
        """Reads text up to the next action, and its left delimiter. False at the end."""
        while True:
            at = self._text.find("{{", self._pos)
            self._text_until(len(self._text) if at < 0 else at)
            if at < 0:
                return False
            self._start = at
            self._pos += 2
            marker = 2 if self._left_trim(self._pos) else 0
            if not self._text.startswith("/*", self._pos + marker):
                self._emit(Kind.LEFT_DELIM)
                self._pos = self._start = self._pos + marker
                self._depth = 0
                return True
            self._comment(self._pos + marker)

    def _text_until(self, end: int) -> None:
        self._start = self._pos
        trim = end < len(self._text) and self._left_trim(end + 2)
        text = self._text[self._pos : end]
        text = text.rstrip(_SPACES) if trim else text
        if text:
            self._add(Kind.TEXT, text)
        self._pos = end

    def _left_trim(self, at: int) -> bool:
        return self._text.startswith("-", at) and self._text[at + 1 : at + 2] in _SPACES and at + 1 < len(self._text)

    def _right_delim(self, at: int) -> int:
        """Length of the right delimiter at `at` with its trim marker: 2, 4, or 0 when there is none."""
        if self._text.startswith("}}", at):
            return 2
        return 4 if self._text[at : at + 1] in _SPACES and self._text.startswith("-}}", at + 1) else 0

    def _comment(self, at: int) -> None:
        self._start = at
        end = self._text.find("*/", at + 2)
        if end < 0:
            raise _Failed("unclosed comment")
        length = self._right_delim(end + 2)
        if not length:
            raise _Failed("comment ends before closing delimiter")
        self._pos = end + 2 + length
        self._after_delim(trim=length == 4)

    def _after_delim(self, *, trim: bool) -> None:
        if trim:
            self._skip_spaces()
        self._start = self._pos

    def _skip_spaces(self) -> None:
        match = _SPACE_RUN.match(self._text, self._pos)
        assert match is not None
        self._pos = match.end()

    # ---------------------------------------------------------------- inside of an action

    def _inside(self) -> bool:
        """Reads one token. False after the right delimiter."""
        length = self._right_delim(self._pos)
        if length:
            return self._close(length)
        char = self._char(self._pos)
        if not char:
            raise _Failed("unclosed action")
        if char in _SPACES:
            return self._space()
        self._pos += 1
        if char in _SINGLE:
            return self._emit(_SINGLE[char])
        if char in "()":
            return self._paren(char)
        return self._operand(char)

    def _close(self, length: int) -> bool:
        if self._depth:
            raise _Failed("unclosed left paren")
        self._start = self._pos + length - 2
        self._pos = self._start + 2
        self._emit(Kind.RIGHT_DELIM)
        self._after_delim(trim=length == 4)
        return False

    def _char(self, at: int) -> str:
        return self._text[at : at + 1]

    def _space(self) -> bool:
        self._skip_spaces()
        if self._right_delim(self._pos - 1) == 4:  # the last space belongs to the trim marker
            self._pos -= 1
        return self._pos == self._start or self._emit(Kind.SPACE)

    def _paren(self, char: str) -> bool:
        self._depth += 1 if char == "(" else -1
        if self._depth < 0:
            raise _Failed("unexpected right paren")
        return self._emit(Kind.LEFT_PAREN if char == "(" else Kind.RIGHT_PAREN)

    def _operand(self, char: str) -> bool:
        if char == ":":
            self._pos += 1
            if self._char(self._pos - 1) != "=":
                raise _Failed("expected :=")
            return self._emit(Kind.DECLARE)
        if char in "\"'`":
            return self._quoted(char)
        if char in ".$":
            return self._dotted(char)
        if char in "+-0123456789":
            return self._number()
        if _alphanumeric(char):
            return self._word()
        if " " <= char <= "~":
            return self._emit(Kind.CHAR)
        raise _Failed(f"unrecognized character in action: {_unicode(char)}")

    def _quoted(self, char: str) -> bool:
        if char == "`":
            end = self._text.find("`", self._pos) + 1
            if not end:
                raise _Failed("unterminated raw quoted string")
            self._pos = end
            return self._emit(Kind.RAW_STRING)
        match = (_STRING if char == '"' else _CHAR).match(self._text, self._start)
        if match is None:
            raise _Failed("unterminated quoted string" if char == '"' else "unterminated character constant")
        self._pos = match.end()
        return self._emit(Kind.STRING if char == '"' else Kind.CHAR_CONSTANT)

    def _dotted(self, char: str) -> bool:
        if char == "." and (not self._char(self._pos) or self._char(self._pos) in "0123456789"):
            return self._number()
        if self._at_terminator():
            return self._emit(Kind.VARIABLE if char == "$" else Kind.DOT)
        self._skip_word()
        return self._emit(Kind.VARIABLE if char == "$" else Kind.FIELD)

    def _word(self) -> bool:
        self._skip_word()
        word = self._text[self._start : self._pos]
        if word in KEYWORDS:
            return self._emit(Kind.KEYWORD)
        if word in ("true", "false"):
            return self._emit(Kind.BOOL)
        return self._emit(Kind.NIL if word == "nil" else Kind.IDENTIFIER)

    def _skip_word(self) -> None:
        while _alphanumeric(self._char(self._pos)):
            self._pos += 1
        if not self._at_terminator():
            raise _Failed(f"bad character {_unicode(self._char(self._pos))}")

    def _at_terminator(self) -> bool:
        char = self._char(self._pos)
        return not char or char in _SPACES or char in ".,|:)(" or self._text.startswith("}}", self._pos)

    def _number(self) -> bool:
        self._pos = self._start
        ok = self._scan_number()
        if ok and self._char(self._pos) in ("+", "-"):
            ok = self._scan_number() and self._char(self._pos - 1) == "i"
            kind = Kind.COMPLEX
        else:
            kind = Kind.NUMBER
        if not ok:
            raise _Failed(f"bad number syntax: {quote(self._text[self._start : self._pos])}")
        return self._emit(kind)

    def _scan_number(self) -> bool:
        """Moves over what looks like a number; what it is worth is found later. False when a letter or digit follows."""
        match = _PREFIX.match(self._text, self._pos)
        assert match is not None
        base = (match[1] or "").lower()
        exponent = {"": "eE", "x": "pP"}.get(base, "")
        tail = f"(?:[{exponent}][-+]?[0-9_]*)?" if exponent else ""
        digits = _DIGITS[base]
        number = re.compile(f"[{digits}]*(?:\\.[{digits}]*)?{tail}i?").match(self._text, match.end())
        assert number is not None
        self._pos = number.end()
        if _alphanumeric(self._char(self._pos)):
            self._pos += 1
            return False
        return True


def _alphanumeric(char: str) -> bool:
    if char.isascii():
        return char.isalnum() or char == "_"
    return unicodedata.category(char) in ("Lu", "Ll", "Lt", "Lm", "Lo", "Nd")


def _unicode(char: str) -> str:
    """U+0040 '@', as Go prints a character it does not want; the end of the text is U+-0001 there."""
    code = f"U+{ord(char):04X}"
    return f"{code} '{char}'" if char.isprintable() else code
