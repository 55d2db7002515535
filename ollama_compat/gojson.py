"""Reads and writes JSON as Go's encoding/json does, because clients see its error texts.

The fast path is the standard library's scanner; only what it refuses is read again, slowly, to find Go's words for it or to
accept what Go accepts (deep nesting). Numbers keep their text, so that a type error can quote it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import orjson

MAX_DEPTH = 10_000  # Go's own limit


class SyntaxFault(ValueError):
    """The body is no JSON; the message is Go's."""


class NoBody(ValueError):
    """There is nothing but white space."""


class Number(str):
    """A JSON number as it was written."""

    __slots__ = ()

    @property
    def is_int(self) -> bool:
        """Whether Go would read it into an int: digits only, within 64 bits."""
        return len(self) <= 20 and self.lstrip("-").isdigit() and -(1 << 63) <= int(self) < 1 << 63

    @property
    def is_float(self) -> bool:
        """Whether it is finite as a float64."""
        return abs(float(self)) != float("inf")


class Doubled(dict[str, Any]):
    """An object in which a name stands more than once; as a dict it has the last value of each."""

    __slots__ = ("pairs",)

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs


def members(value: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """Names and values of an object as they stand in the document, repeated ones too."""
    return value.pairs if isinstance(value, Doubled) else value.items()


class _Refused(Exception):
    """The standard scanner met something that Go may word, or take, differently."""


def _constant(text: str) -> Any:
    raise _Refused(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    return value if len(value) == len(pairs) else Doubled(pairs)


_DECODER = json.JSONDecoder(parse_int=Number, parse_float=Number, parse_constant=_constant, object_pairs_hook=_object)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]|[\udc80-\udcff]")  # a half of a pair, or a byte that was no UTF-8
_SPACE = re.compile(r"[ \t\n\r]*")
_END, _NO_END = "unexpected EOF", "unexpected end of JSON input"


def loads(body: bytes) -> Any:
    """The first JSON value of `body`, as a Go decoder reads a request: what follows it is ignored.

    Objects are dicts, numbers are Number. Raises NoBody or SyntaxFault.
    """
    return _first(body.decode("utf-8", "surrogateescape"))[0]


def unmarshal(body: bytes) -> Any:
    """The JSON value that all of `body` is, as Go's Unmarshal reads it. Raises SyntaxFault, whose words are not quite those of a
    decoder: where the text ends too soon, Go reads a blank more to find out."""
    text = body.decode("utf-8", "surrogateescape")
    try:
        value, end = _first(text)
    except NoBody:
        raise SyntaxFault(_NO_END) from None
    except SyntaxFault as fault:
        if str(fault) != _END:
            raise
        try:
            _first(text + " ")
        except SyntaxFault as with_blank:
            raise SyntaxFault(_NO_END if str(with_blank) == _END else str(with_blank)) from None
        raise
    end = _space(text, end)
    if end < len(text):
        raise SyntaxFault(f"invalid character {_quote_byte(text[end])} after top-level value")
    return value


def _first(text: str) -> tuple[Any, int]:
    """The first value and where it ends."""
    start = _space(text, 0)
    if start == len(text):
        raise NoBody
    try:
        value, end = _DECODER.raw_decode(text, start)
    except (json.JSONDecodeError, RecursionError, _Refused):
        value, end = _Scanner(text).value(start)
    if isinstance(value, Number):
        _, end = _Scanner(text).value(start)  # finds what is wrong with a number that goes on, as in `1.`
    return without_surrogates(value) if _SURROGATE.search(text) else value, end


def _space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None
    return match.end()


def without_surrogates(value: Any) -> Any:
    """The value with lone surrogates in its strings replaced by U+FFFD, as Go does."""
    if isinstance(value, Number):
        return value
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return _object([(without_surrogates(key), without_surrogates(item)) for key, item in members(value)])
    return value


def plain(value: Any) -> Any:
    """The value with its Numbers turned into int or float, for whoever only wants JSON."""
    if isinstance(value, Number):
        return int(value) if value.is_int else float(value)
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


def text_of(value: Any) -> str:
    """JSON text of a value from `loads`, numbers as they were written, without spaces."""
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, list):
        return "[" + ",".join(text_of(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key, ensure_ascii=False)}:{text_of(item)}" for key, item in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)


_ESCAPES = {char: f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}
_IN_BYTES = {char.encode(): escape.encode() for char, escape in _ESCAPES.items()}
_SPECIAL = re.compile(f"[{''.join(_ESCAPES)}]")
_SPECIAL_BYTES = re.compile(b"|".join(_IN_BYTES))


def dumps(value: Any) -> bytes:
    """Compact JSON in UTF-8 with `<`, `>` and `&` escaped, as Go writes it. RecursionError where it is deeper than 254 levels."""
    try:
        text = orjson.dumps(value)
    except orjson.JSONEncodeError as error:
        if "Recursion limit" not in str(error):
            raise
        raise RecursionError(str(error)) from None
    return _SPECIAL_BYTES.sub(lambda match: _IN_BYTES[match.group()], text)


def escaped(value: Any) -> str:
    """The text of `dumps`, of numbers of any size too, which documents of other programs may hold."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return _SPECIAL.sub(lambda match: _ESCAPES[match.group()], text)


_STRING = re.compile(r'"[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*)*')
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_WORDS = {"t": ("true", True), "f": ("false", False), "n": ("null", None)}


class _Scanner:
    """A slow reader without recursion that says what is wrong, and where, in Go's words."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._root: list[Any] = []
        self._stack: list[Any] = [self._root]  # containers that are open
        self._keys: list[str] = []  # of each open object, the key whose value comes next
        self._fresh = False  # the innermost container was just opened

    def value(self, at: int) -> tuple[Any, int]:
        """The value that begins at `at`, and where it ends."""
        at = self._item(at)
        while len(self._stack) > 1:
            at = self._step(at)
        return self._root[0], at

    def _item(self, at: int) -> int:
        """Reads a scalar, or opens a container."""
        char, at = self._char(at)
        if char == "[":
            return self._open(at, [])
        if char == "{":
            self._open(at, {})
            self._keys.append("")
            return at + 1
        value, at = self._scalar(char, at)
        self._put(value)
        return at

    def _step(self, at: int) -> int:
        """Reads the next element or member of the innermost container, or its end."""
        is_list = isinstance(self._stack[-1], list)
        fresh, self._fresh = self._fresh, False
        char, at = self._char(at)
        if char == ("]" if is_list else "}"):
            self._stack.pop()
            if not is_list:
                self._keys.pop()
            return at + 1
        if not fresh:
            if char != ",":
                self._fail(at, "after array element" if is_list else "after object key:value pair")
            at += 1
        return self._item(at if is_list else self._key(at))

    def _key(self, at: int) -> int:
        """Reads a key and its colon."""
        char, at = self._char(at)
        if char != '"':
            self._fail(at, "looking for beginning of object key string")
        self._keys[-1], at = self._string(at)
        colon, at = self._char(at)
        if colon != ":":
            self._fail(at, "after object key")
        return at + 1

    def _open(self, at: int, container: Any) -> int:
        if len(self._stack) > MAX_DEPTH:
            self._fail(at, "exceeded max depth")
        self._put(container)
        self._stack.append(container)
        self._fresh = True
        return at + 1

    def _put(self, value: Any) -> None:
        container = self._stack[-1]
        if isinstance(container, list):
            container.append(value)
        else:
            container[self._keys[-1]] = value

    def _scalar(self, char: str, at: int) -> tuple[Any, int]:
        if char == '"':
            return self._string(at)
        if char == "-" or (char.isdigit() and char.isascii()):
            return self._number(at)
        if char in _WORDS:
            return self._word(at, *_WORDS[char])
        self._fail(at, "looking for beginning of value")

    def _string(self, at: int) -> tuple[str, int]:
        match = _STRING.match(self._text, at)
        assert match is not None
        end = match.end()
        if end == len(self._text):
            raise SyntaxFault(_END)
        if self._text[end] == '"':
            return json.loads(match.group() + '"'), end + 1
        if self._text[end] != "\\":
            self._fail(end, "in string literal")
        return self._bad_escape(end + 1)

    def _bad_escape(self, at: int) -> tuple[str, int]:
        if self._peek(at) != "u":
            self._fail(at, "in string escape code")
        for place in range(at + 1, at + 5):
            if self._peek(place) not in "0123456789abcdefABCDEF":
                self._fail(place, "in \\u hexadecimal character escape")
        raise AssertionError("a good escape does not end a string")

    def _number(self, at: int) -> tuple[Number, int]:
        match = _NUMBER.match(self._text, at)
        if match is None:
            self._peek(at + 1)
            self._fail(at + 1, "in numeric literal")
        end = match.end()
        rest = self._text[end : end + 1]
        digits = match.group()
        if rest == "." and not set(".eE") & set(digits):
            self._peek(end + 1)
            self._fail(end + 1, "after decimal point in numeric literal")
        if rest and rest in "eE" and not set("eE") & set(digits):
            place = end + 1 + (self._peek(end + 1) in "+-")
            self._peek(place)
            self._fail(place, "in exponent of numeric literal")
        return Number(digits), end

    def _word(self, at: int, word: str, value: Any) -> tuple[Any, int]:
        for offset, wanted in enumerate(word):
            if self._peek(at + offset) != wanted:
                self._fail(at + offset, f"in literal {word} (expecting '{wanted}')")
        return value, at + len(word)

    def _char(self, at: int) -> tuple[str, int]:
        """The next character that is no white space, and its place."""
        at = _space(self._text, at)
        return self._peek(at), at

    def _peek(self, at: int) -> str:
        if at >= len(self._text):
            raise SyntaxFault(_END)
        return self._text[at]

    def _fail(self, at: int, context: str) -> NoReturn:
        raise SyntaxFault(f"invalid character {_quote_byte(self._text[at])} {context}")


def _quote_byte(char: str) -> str:
    """The first UTF-8 byte of `char` in single quotes, as Go prints the byte where it stopped."""
    code = char.encode("utf-8", "surrogateescape")[0]
    if char == "'":
        return "'\\''"
    if char == '"':
        return "'\"'"
    if char == "\\":
        return "'\\\\'"
    short = {7: "a", 8: "b", 9: "t", 10: "n", 11: "v", 12: "f", 13: "r"}
    if code in short:
        return f"'\\{short[code]}'"
    if code < 0x20 or code == 0x7F:
        return f"'\\x{code:02x}'"
    if 0x80 <= code < 0xA1 or code == 0xAD:
        return f"'\\u{code:04x}'"
    return f"'{chr(code)}'"
