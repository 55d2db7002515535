"""Finds special tokens in a text before the rest of it is cut into words."""

from __future__ import annotations

import re
from collections.abc import Iterator

from runtime.frames import BREAK
from runtime.token_roles import CONTROL, LSTRIP, RSTRIP, SPECIAL, UNKNOWN
from runtime.vocabulary import Vocabulary

_HEAD = 3  # characters of a token that are looked up first
_SPACES = " \t\n\v\f\r"  # isspace() of the C locale

Piece = str | int  # text, or the id of a special token


class SpecialTokens:
    """Splits text into special tokens and the text between them, by llama.cpp's rules."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._attributes = vocabulary.attributes
        special = [token for token, attribute in enumerate(vocabulary.attributes) if attribute & SPECIAL]
        visible = [token for token in special if not vocabulary.attributes[token] & (CONTROL | UNKNOWN)]
        self._every = _Finder(vocabulary.tokens, special)
        self._visible = _Finder(vocabulary.tokens, visible)
        self._strips = any(vocabulary.attributes[token] & (LSTRIP | RSTRIP) for token in special)

    def split(self, text: str, parse_special: bool) -> list[Piece]:
        """Token ids and non-empty texts. Without `parse_special` only user-defined tokens are found. BREAK is gone after it."""
        pieces = (self._every if parse_special else self._visible).split(text)
        if self._strips:
            pieces = list(self._stripped(pieces))
        if BREAK in text:
            pieces = [piece.replace(BREAK, "") if isinstance(piece, str) else piece for piece in pieces]
        return [piece for piece in pieces if piece != ""]

    def _stripped(self, pieces: list[Piece]) -> Iterator[Piece]:
        """The pieces without the white space that tokens swallow."""
        attribute = self._attributes
        for before, piece, after in zip(["", *pieces], pieces, [*pieces[1:], ""], strict=False):
            if isinstance(piece, str) and isinstance(before, int) and attribute[before] & RSTRIP:
                piece = piece.lstrip(_SPACES)
            if isinstance(piece, str) and isinstance(after, int) and attribute[after] & LSTRIP:
                piece = piece.rstrip(_SPACES)
            yield piece


class _Finder:
    """Cuts a set of tokens out of texts.

    Where tokens overlap, the longest one (in bytes) is cut out first, wherever it stands; that is not the same as reading
    from left to right. So the text is first taken apart into stretches that overlapping tokens cover, in time that does not
    depend on the number of tokens, and only in these stretches token after token is tried.
    """

    def __init__(self, texts: list[str], tokens: list[int]) -> None:
        self._texts = texts
        self._ids = {texts[token]: token for token in tokens}
        lengths: dict[str, set[int]] = {}
        for text in self._ids:
            lengths.setdefault(text[:_HEAD], set()).add(len(text))
        self._lengths = {head: tuple(found) for head, found in lengths.items()}
        self._head_sizes = sorted({len(head) for head in lengths})
        firsts = "".join(map(re.escape, sorted({text[0] for text in self._ids})))
        self._starts = re.compile(f"[{firsts}]" if firsts else "(?!)")

    def split(self, text: str) -> list[Piece]:
        pieces: list[Piece] = []
        last = 0
        for start, end, tokens in self._stretches(text):
            pieces.append(text[last:start])
            pieces += self._cut(text[start:end], tokens)
            last = end
        return _joined([*pieces, text[last:]])

    def _stretches(self, text: str) -> Iterator[tuple[int, int, set[int]]]:
        """Parts [start, end) of `text` that tokens cover without a gap, and the tokens in each."""
        start = end = 0
        tokens: set[int] = set()
        for match in self._starts.finditer(text):
            at = match.start()
            found = self._at(text, at)
            if not found:
                continue
            if at >= end:
                if tokens:
                    yield start, end, tokens
                start, tokens = at, set()
            tokens.update(found)
            end = max(end, at + max(len(self._texts[token]) for token in found))
        if tokens:
            yield start, end, tokens

    def _at(self, text: str, at: int) -> list[int]:
        """The tokens that begin at a place."""
        ids, lengths = self._ids, self._lengths
        heads = (lengths.get(text[at : at + size], ()) for size in self._head_sizes)
        return [ids[word] for head in heads for length in head if (word := text[at : at + length]) in ids]

    def _cut(self, text: str, tokens: set[int]) -> list[Piece]:
        if text in self._ids:
            return [self._ids[text]]
        pieces: list[Piece] = [text]
        for token in sorted(tokens, key=lambda token: (-len(self._texts[token].encode()), token)):
            word = self._texts[token]
            pieces = [part for piece in pieces for part in (_cut(piece, word, token) if isinstance(piece, str) else (piece,))]
        return pieces


def _joined(pieces: list[Piece]) -> list[Piece]:
    """The pieces with neighbouring texts made one: a stretch may begin or end with text that no token took."""
    result: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, str) and result and isinstance(result[-1], str):
            result[-1] += piece
        else:
            result.append(piece)
    return result


def _cut(text: str, word: str, token: int) -> list[Piece]:
    parts: list[Piece] = []
    for part in text.split(word):
        parts += [part, token]
    return parts[:-1]
