"""Grammars that an answer has to follow: which tokens may come next. The work is done by llguidance.

A grammar is `json` (any object, with white space as Ollama has it), a JSON schema, the text of a GBNF or Lark grammar, or the
form of tool calls.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import llguidance

from runtime import call_grammar, gbnf, grammar_trial, json_places, json_schema, lark
from runtime.derivatives import UnknownSyntax
from runtime.following import NO_TEXT, Following, GrammarError
from runtime.frames import SCHEMA_FAILED, CallForm
from runtime.json_places import JsonMap
from runtime.places import Map, Places
from runtime.sampling import masks
from runtime.sampling.masks import Mask
from runtime.schema_values import SchemaError
from runtime.text_places import GrammarMap, TextMap
from runtime.tokenizer import Tokenizer

_SPACE = r"( |\n{1,2}[ \t]{0,20})"  # between two tokens of JSON, as llama.cpp's grammars have it
_OPTIONS = {"whitespace_pattern": _SPACE, "coerce_one_of": True, "json_allow_general_unicode_escapes": True}
_ANY_OBJECT = r"""
start: object
value: object | array | STRING | NUMBER | /true|false|null/ SPACE?
object: "{" SPACE? (STRING ":" SPACE? value ("," SPACE? STRING ":" SPACE? value)*)? SPACE? "}"
array: "[" SPACE? (value ("," SPACE? value)*)? SPACE? "]"
STRING: /"([^"\\\x00-\x1F\x7F]|\\(["\\\/bfnrt]|u[0-9a-fA-F]{4}))*"/
NUMBER: /-?([0-9]|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?/
SPACE: /[ \t\n]+/
"""  # as Ollama has it (llm/llama_server.go, grammarJSON)
_BREAKS = 2  # line breaks that may stand between reasoning and answer
_KEPT = 16  # compiled grammars
_TEXTS = 1024  # that are forced, with their tokens
_LONGEST = 1000  # characters of an error


@dataclasses.dataclass(frozen=True, slots=True)
class Compiled:
    """A grammar as llguidance has it at its beginning, and what is known of its places, if it has a map."""

    matcher: llguidance.LLMatcher
    places: Places | None


class Grammars:
    """Makes the constraints of answers for one vocabulary. Any thread may use it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._vocabulary: Vocabulary | None = None  # made for the first grammar: it takes half a second where tokens are many
        self._compiled: OrderedDict[str, Compiled] = OrderedDict()

    def constraint(self, grammar: str | CallForm, start: str = "", opening: str = "") -> Constraint:
        """What keeps one answer to `grammar`, from the text `start` on if that is given. GrammarError if it does not compile.

        With `opening` the answer may do without `start`: it begins with that text, and the grammar waits for `start`, or
        it follows the grammar at once.
        """
        vocabulary, compiled = self._look_up(grammar)
        compiled = compiled or _compile(grammar, vocabulary)  # others need not wait for it
        with self._lock:
            self._compiled[_key(grammar)] = compiled
            self._compiled.move_to_end(_key(grammar))
            if len(self._compiled) > _KEPT:
                self._compiled.popitem(last=False)
            following = Following(compiled.matcher.deep_copy(), vocabulary.tokens, vocabulary.ends, compiled.places)
        first = self._tokenizer.encode(opening, add_special=False) if opening else []
        return Delayed(following, vocabulary, start.encode(), first) if start or first else following

    def knows(self, grammar: str | CallForm) -> bool:
        """Whether a constraint for it takes no time."""
        with self._lock:
            return _key(grammar) in self._compiled

    def _look_up(self, grammar: str | CallForm) -> tuple[Vocabulary, Compiled | None]:
        with self._lock:
            self._vocabulary = self._vocabulary or Vocabulary(self._tokenizer)
            return self._vocabulary, self._compiled.get(_key(grammar))


class Vocabulary:
    """The tokens as llguidance wants them."""

    is_tokenizer_wrapper = True  # llguidance asks for it, and for the other public names without a comment

    def __init__(self, tokenizer: Tokenizer) -> None:
        ids = range(tokenizer.n_vocab)
        special = [tokenizer.is_tag(token) for token in ids]
        self.size = tokenizer.n_vocab
        self.eos_token_id = min(tokenizer.eog_ids, default=0)
        self.bos_token_id = tokenizer.bos_id
        self.special_token_ids = [token for token in ids if special[token]]
        self.tokens = [NO_TEXT * special[token] + tokenizer.token_bytes(token) for token in ids]
        self._encode = tokenizer.encode
        self._forced_tokens = functools.lru_cache(_TEXTS)(self._tokens_of)
        self.ends = tokenizer.eog_ids
        ends = sorted(tokenizer.eog_ids) or None
        self.matching = llguidance.LLTokenizer(self, eos_token=ends, slices=llguidance.LLTokenizer.json_slices())  # type: ignore[arg-type]
        self.breaks = [token for token in ids if self.tokens[token] in (b"\n", b"\n\n")]

    def special(self, text: str) -> int | None:
        """The special token that is spelled like this."""
        return next((token for token in self.special_token_ids if self.tokens[token] == NO_TEXT + text.encode()), None)

    def __call__(self, text: str | bytes) -> list[int]:
        """The tokens of a text in the middle of others, byte for byte: llguidance asks for those of a text that is forced."""
        return list(self._forced_tokens(text if isinstance(text, str) else text.decode(errors="replace")))

    def _tokens_of(self, text: str) -> list[int]:
        raw = text.encode()
        for front in ("", "\n"):  # some tokenizers put a space before every text, and may join the two
            ids = self._encode(front + text, parse_special=False, add_special=False)
            while ids and sum(len(self.tokens[token]) for token in ids) > len(raw):
                del ids[0]
            if b"".join(self.tokens[token] for token in ids) == raw:
                return ids
        return self.matching.greedy_tokenize(text)


class Delayed:
    """Keeps one answer to its grammar from some text on, or as its beginning decides. To be used like `Following`."""

    def __init__(self, following: Following, vocabulary: Vocabulary, start: bytes, opening: list[int]) -> None:
        self._following = following
        self._vocabulary = vocabulary
        self._start = start
        self._opening = opening  # tokens that may come instead of the grammar
        self._forced: list[int] = []
        self._tail: bytearray | None = None if opening else bytearray()  # of the text before `start`; None: past it
        self._breaks = 0
        self._begun = False  # nothing but the grammar counts any more

    @property
    def complete(self) -> bool:
        """Whether nothing can follow but the end."""
        return self._begun and self._following.complete

    @property
    def has_choice(self) -> bool:
        """Whether nothing is `forced`; if not, something may be."""
        return self._begun and self._following.has_choice

    def take(self, token: int) -> bool:
        """Go on with a token if it may come. Raises GrammarError."""
        if self._begun:
            return self._following.take(token)
        mask = self.mask()
        if mask is not None and not masks.permits(mask, token):
            return False
        self.accept(token)
        return True

    def mask(self) -> Mask | None:
        """Which tokens may come next; None: all. Valid until the next call. Raises GrammarError."""
        if self._begun:
            return self._following.mask()
        if self._forced:
            return masks.only(self._forced[0], self._vocabulary.size)
        if self._tail is not None:
            return None
        mask = self._following.mask().copy()
        masks.permit(mask, self._opening[:1])
        masks.permit(mask, self._vocabulary.breaks if self._breaks else ())
        return mask

    def forced(self) -> Sequence[int]:
        """The tokens that have to follow; none where there is a choice. They still have to be accepted."""
        return self._following.forced() if self._begun else self._forced

    def accept(self, token: int) -> None:
        """Go on with a token that may come; one that ends the answer changes nothing. Raises GrammarError."""
        if self._begun:
            self._following.accept(token)
            return
        if token in self._vocabulary.ends:
            return
        if self._forced:
            self._forced.pop(0)
        elif self._opening and token == self._opening[0]:
            self._forced = self._opening[1:]
            self._opening, self._tail = [], bytearray()
        elif self._tail is not None:
            self._look_for_start(self._tail, token)
        else:
            self._opening = []
            self._begin_with(token)
        self._begun = self._tail is None and not (self._forced or self._opening or self._breaks)

    def _look_for_start(self, tail: bytearray, token: int) -> None:
        tail += self._vocabulary.tokens[token].removeprefix(NO_TEXT)
        at = tail.find(self._start)
        if at < 0:
            del tail[: -len(self._start)]
            return
        rest = bytes(tail[at + len(self._start) :]).lstrip()
        self._tail, self._breaks = None, 0 if rest else _BREAKS
        self._following.take_all(self._vocabulary.matching.tokenize_bytes(rest))  # of a token that reaches into the answer

    def _begin_with(self, token: int) -> None:
        if self._breaks and token in self._vocabulary.breaks:
            self._breaks = 0 if self._following.take(token) else self._breaks - 1
        else:
            self._breaks = 0
            self._following.accept(token)


Constraint = Following | Delayed
"""Keeps one answer to its grammar."""


def _key(grammar: str | CallForm) -> str:
    return grammar if isinstance(grammar, str) else json.dumps(dataclasses.asdict(grammar))


def _compile(grammar: str | CallForm, vocabulary: Vocabulary) -> Compiled:
    schema = isinstance(grammar, str) and grammar.lstrip().startswith("{")
    source, chart = _source(grammar, vocabulary, schema)
    matcher = _matcher(source, vocabulary)
    if matcher.is_error():
        if isinstance(grammar, CallForm) and (lenient := call_grammar.without_schemas(grammar)) != grammar:
            return _compile(lenient, vocabulary)
        failed = SCHEMA_FAILED if schema else "the grammar does not compile: "
        raise GrammarError(failed + matcher.get_error().rstrip()[:_LONGEST])
    places = None if chart is None else Places(chart, vocabulary.tokens, masks.empty(vocabulary.size).nbytes)
    return Compiled(matcher, places)


def _matcher(source: str, vocabulary: Vocabulary) -> llguidance.LLMatcher:
    limits = llguidance.LLParserLimits(verbose_errors=False)
    return llguidance.LLMatcher(vocabulary.matching, source, log_level=0, limits=limits)


def _source(grammar: str | CallForm, vocabulary: Vocabulary, schema: bool) -> tuple[str, Map | None]:
    """The grammar as llguidance reads it, and a map of it where there is one."""
    if isinstance(grammar, CallForm):
        return _from_calls(grammar, vocabulary)
    if grammar == "json":
        return llguidance.LLMatcher.grammar_from_lark(_ANY_OBJECT), JsonMap({})
    if schema:
        return _from_schema(grammar)
    return _from_text(grammar, vocabulary)


def _from_calls(form: CallForm, vocabulary: Vocabulary) -> tuple[str, Map | None]:
    try:
        source = llguidance.LLMatcher.grammar_from_lark(call_grammar.lark(form, vocabulary.special, _OPTIONS))
    except SchemaError as error:
        raise GrammarError(str(error)) from None
    tag = b"" if vocabulary.special(form.begin) is not None else form.begin.encode()
    return source, None if form.forced else TextMap(tag)


def _from_schema(text: str) -> tuple[str, Map | None]:
    try:
        schema: dict[str, Any] = json_schema.read(text)
        source = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema, allow_nan=False), overrides=_OPTIONS)  # type: ignore[arg-type]
    except (SchemaError, ValueError, RecursionError) as error:  # numbers beyond all floats, deep enums
        raise GrammarError(SCHEMA_FAILED + str(error)) from None
    return source, _map_of_schema(schema)


def _map_of_schema(schema: dict[str, Any]) -> Map | None:
    try:
        return JsonMap(schema) if json_places.has_map(schema) else None
    except RecursionError:  # deep enums
        return None


def _from_text(text: str, vocabulary: Vocabulary) -> tuple[str, Map | None]:
    try:
        *ways, last = gbnf.in_lark(text)
        sources = {way: llguidance.LLMatcher.grammar_from_lark(way) for way in (*ways, last)}
    except Exception as error:  # the converter raises plain Exception for what is wrong in a grammar
        raise GrammarError(f"the grammar does not compile: {error}") from None
    if grammar_trial.is_needed(text) and (problem := grammar_trial.problem(sources[last])):
        raise GrammarError(problem)
    way = next((way for way in ways if not _matcher(sources[way], vocabulary).is_error()), last)
    return sources[way], _map_of(way)


def _map_of(text: str) -> Map | None:
    try:
        return GrammarMap(lark.read(text))
    except UnknownSyntax:
        return None
