"""Finds special tokens in a text before the rest of it is cut into words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from runtime.frames import BREAK
from runtime.token_roles import CONTROL, LSTRIP, RSTRIP, SPECIAL, UNKNOWN
from runtime.vocabulary import Vocabulary

_HEAD = 3  # characters of a token that are looked up first
_SPACES = " \t\n\v\f\r"  # isspace() of the C locale


class SpecialTokens:
    """Splits text into special tokens and the text between them, by llama.cpp's rules.

    Longer tokens (in bytes) are cut out first, wherever they stand; that is not the same as reading from left to right.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._texts = vocabulary.tokens
        self._attributes = vocabulary.attributes
        special = [token for token, attribute in enumerate(vocabulary.attributes) if attribute & SPECIAL]
        self._every = _Finder(self._texts, special)
        self._plain = _Finder(self._texts, [token for token in special if not self._attributes[token] & (CONTROL | UNKNOWN)])

    def split(self, text: str, parse_special: bool) -> list[str | int]:
        """Token ids and non-empty texts. Without `parse_special` only user-defined tokens are found. BREAK is gone after it."""
        finder = self._every if parse_special else self._plain
        pieces: list[str | int] = [text]
        for token in sorted(finder.present(text), key=lambda token: (-len(self._texts[token].encode()), token)):
            pieces = [part for piece in pieces for part in self._cut(piece, token)]
        if BREAK in text:
            pieces = [piece.replace(BREAK, "") if isinstance(piece, str) else piece for piece in pieces]
        return [piece for piece in pieces if piece != ""]

    def _cut(self, piece: str | int, token: int) -> Iterator[str | int]:
        if isinstance(piece, int) or self._texts[token] not in piece:
            yield piece
            return
        attribute = self._attributes[token]
        head, *tails = piece.split(self._texts[token])
        for tail in tails:
            yield head.rstrip(_SPACES) if attribute & LSTRIP else head
            yield token
            head = tail.lstrip(_SPACES) if attribute & RSTRIP else tail
        yield head


class _Finder:
    """Tells which of many tokens occur in a text, in time that depends on the text alone."""

    def __init__(self, texts: Sequence[str], tokens: list[int]) -> None:
        self._ids = {texts[token]: token for token in tokens}
        lengths: dict[str, set[int]] = {}
        for text in self._ids:
            lengths.setdefault(text[:_HEAD], set()).add(len(text))
        self._lengths = {head: sorted(found) for head, found in lengths.items()}
        self._head_sizes = sorted({len(head) for head in lengths})
        firsts = "".join(map(re.escape, sorted({text[0] for text in self._ids})))
        self._starts = re.compile(f"[{firsts}]") if firsts else re.compile(r"(?!)")

    def present(self, text: str) -> set[int]:
        """Ids of the tokens that stand somewhere in `text`, overlapping ones included."""
        found = set()
        for match in self._starts.finditer(text):
            at = match.start()
            for size in self._head_sizes:
                for length in self._lengths.get(text[at : at + size], ()):
                    if (token := self._ids.get(text[at : at + length])) is not None:
                        found.add(token)
        return found
