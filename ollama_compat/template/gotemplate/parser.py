"""Parses Go templates. What is an error, and its text, is as in Go's text/template/parse."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from ollama_compat.template.errors import TemplateError
from ollama_compat.template.gotemplate import nodes
from ollama_compat.template.gotemplate.lexer import Kind, Token, lex
from ollama_compat.template.gotemplate.literals import quote
from ollama_compat.template.gotemplate.pipelines import PipelineParser

MAX_LENGTH = 256 << 10  # characters of a template; a second of parsing


def parse(text: str, functions: Collection[str]) -> Mapping[str, nodes.List]:
    """The templates that `text` defines, by name; "" is the text itself. Raises TemplateError with Go's message."""
    if len(text) > MAX_LENGTH:
        raise TemplateError(f"template: longer than {MAX_LENGTH} characters")
    trees: dict[str, nodes.List] = {}
    source = iter(lex(text))
    _Parser(source, functions, trees, "").parse()
    return trees


def is_empty(node: nodes.Node) -> bool:
    """Whether there is nothing but white space."""
    if isinstance(node, nodes.List):
        return all(map(is_empty, node.nodes))
    return isinstance(node, nodes.Text) and not node.value.strip()


class _Parser(PipelineParser):
    """Parses one template; the templates defined inside it get a parser each, on the same tokens."""

    def __init__(self, tokens: Iterator[Token], functions: Collection[str], trees: dict[str, nodes.List], title: str) -> None:
        super().__init__(tokens, functions)
        self._trees = trees
        self._title = title
        self._ranges = 0  # that are open

    def parse(self) -> None:
        """The whole text: lists and definitions, to the end."""
        start = self._peek().pos
        found: list[nodes.Node] = []
        while self._peek().kind is not Kind.EOF:
            node = self._item()
            if isinstance(node, nodes.End | nodes.Else):
                self._fail(f"unexpected {node}")
            if node is not None:
                found.append(node)
        self._add(nodes.List(start, tuple(found)))

    def _item(self) -> nodes.Node | None:
        """Text or an action; None for a definition."""
        if self._peek().kind is not Kind.LEFT_DELIM:
            return self._text_or_action()
        delimiter = self._next()
        word = self._next_word()
        if word.kind is Kind.KEYWORD and word.text == "define":
            self._inner("definition")._definition()
            return None
        self._push(delimiter, word)
        return self._text_or_action()

    def _inner(self, name: str) -> _Parser:
        inner = _Parser(self._tokens, self._functions, self._trees, name)
        inner._depth = self._depth
        inner._last = self._last
        return inner

    def _add(self, root: nodes.List) -> None:
        """Installs the finished template; of two with one name only one may have content."""
        old = self._trees.get(self._title)
        if old is None or is_empty(old):
            self._trees[self._title] = root
        elif not is_empty(root):
            self._fail(f"template: multiple definition of template {quote(self._title)}")

    def _definition(self) -> None:
        context = "define clause"
        self._title = self._unquote(self._expect(context, Kind.STRING, Kind.RAW_STRING))
        self._expect(context, Kind.RIGHT_DELIM)
        root, end = self._list()
        if not isinstance(end, nodes.End):
            self._fail(f"unexpected {end} in {context}")
        self._add(root)

    def _list(self) -> tuple[nodes.List, nodes.End | nodes.Else]:
        """Everything up to an end or else, and that."""
        start = self._peek_word().pos
        found: list[nodes.Node] = []
        while self._peek_word().kind is not Kind.EOF:
            node = self._text_or_action()
            if isinstance(node, nodes.End | nodes.Else):
                return nodes.List(start, tuple(found)), node
            found.append(node)
        self._fail("unexpected EOF")

    def _text_or_action(self) -> nodes.Node:
        token = self._next_word()
        if token.kind is Kind.TEXT:
            return nodes.Text(token.pos, token.text)
        if token.kind is not Kind.LEFT_DELIM:
            self._unexpected(token, "input")
        self._action_line = token.line
        node = self._action()
        self._action_line = 0
        return node

    def _action(self) -> nodes.Node:
        token = self._next_word()
        if token.kind is Kind.KEYWORD and token.text != "define":
            return self._keyword(token)
        self._push(token)
        return nodes.Action(token.pos, self._pipeline("command", Kind.RIGHT_DELIM))

    # ---------------------------------------------------------------- keywords

    def _keyword(self, token: Token) -> nodes.Node:
        if token.text in ("if", "with", "range"):
            return self._control(token.text)
        if token.text in ("break", "continue"):
            return self._loop_control(token)
        if token.text == "else":
            return self._else()
        if token.text == "end":
            return nodes.End(self._expect("end", Kind.RIGHT_DELIM).pos)
        return self._block() if token.text == "block" else self._call()

    def _loop_control(self, token: Token) -> nodes.Node:
        name = f"{{{{{token.text}}}}}"
        self._expect(name, Kind.RIGHT_DELIM)
        if not self._ranges:
            self._fail(f"{name} outside {{{{range}}}}")
        return nodes.Break(token.pos) if token.text == "break" else nodes.Continue(token.pos)

    def _else(self) -> nodes.Else:
        token = self._peek_word()
        if token.kind is Kind.KEYWORD and token.text in ("if", "with"):
            return nodes.Else(token.pos)
        return nodes.Else(self._expect("else", Kind.RIGHT_DELIM).pos)

    def _control(self, word: str) -> nodes.Branch:
        self._deeper()
        scope = len(self._variables)
        pipe = self._pipeline(word, Kind.RIGHT_DELIM)
        self._ranges += word == "range"
        body, stop = self._list()
        self._ranges -= word == "range"
        otherwise = self._otherwise(word, stop) if isinstance(stop, nodes.Else) else None
        del self._variables[scope:]
        self._depth -= 1
        kind = {"if": nodes.If, "with": nodes.With, "range": nodes.Range}[word]
        return kind(pipe.pos, pipe, body, otherwise)

    def _otherwise(self, word: str, stop: nodes.Else) -> nodes.List:
        """What stands behind an else; `else if` is an if inside it that takes the end along."""
        token = self._peek()
        if word in ("if", "with") and token.kind is Kind.KEYWORD and token.text == word:
            self._next()
            return nodes.List(stop.pos, (self._control(word),))
        otherwise, end = self._list()
        if not isinstance(end, nodes.End):
            self._fail(f"expected end; found {end}")
        return otherwise

    def _block(self) -> nodes.Call:
        context = "block clause"
        token = self._expect(context, Kind.STRING, Kind.RAW_STRING)
        name = self._unquote(token)
        pipe = self._pipeline(context, Kind.RIGHT_DELIM)
        self._deeper()
        inner = self._inner(name)
        root, end = inner._list()
        if not isinstance(end, nodes.End):
            self._fail(f"unexpected {end} in {context}")
        inner._add(root)
        self._depth -= 1
        return nodes.Call(token.pos, name, pipe)

    def _call(self) -> nodes.Call:
        context = "template clause"
        token = self._expect(context, Kind.STRING, Kind.RAW_STRING)
        name = self._unquote(token)
        after = self._next_word()
        if after.kind is Kind.RIGHT_DELIM:
            return nodes.Call(token.pos, name, None)
        self._push(after)
        return nodes.Call(token.pos, name, self._pipeline(context, Kind.RIGHT_DELIM))
