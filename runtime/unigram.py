"""SentencePiece's unigram vocabularies (XLM-RoBERTa, T5): a map of characters, then the likeliest way to cover the text.

The covering is the library's, whose order of sums is llama.cpp's; the map is walked here, since the library's own treats what
it takes for one character as a whole.
"""

from __future__ import annotations

import functools
import re
import struct

from tokenizers import Tokenizer, models

from runtime.core import ModelError
from runtime.token_roles import NORMAL, UNUSED, USER_DEFINED
from runtime.vocabulary import Vocabulary

BLOCK = "\u2581"  # stands for a space
_WORD = re.compile("[ -~]?[^ -~]+")  # what a map can change that leaves printable ASCII alone: an accent may follow a letter
_CACHED = 1 << 16  # stretches of text whose replacements are kept
_LEAF, _WIDE, _VALUE = 1 << 8, 1 << 9, (1 << 31) - 1
_CHECK = 1 << 31 | 0xFF


class CharsMap:
    """`precompiled_charsmap`: replacements for the longest prefixes of a text, found in a double array of uint32.

    A node has the place of its children in bits 10 to 30 (times 256 with bit 9), whether it has a value in bit 8, and the byte
    that leads to it in bits 0 to 7. Replacements follow the array, each with a zero after it.
    """

    def __init__(self, data: bytes) -> None:
        nbytes = int.from_bytes(data[:4], "little")
        if not data:
            self._nodes: tuple[int, ...] = ()
        elif nbytes % 4 or 4 + nbytes > len(data) or not nbytes or (len(data) > 4 + nbytes and data[-1]):
            raise ModelError("key 'tokenizer.ggml.precompiled_charsmap': it is damaged")
        else:
            self._nodes = struct.unpack_from(f"<{nbytes // 4}I", data, 4)
        self._replacements = data[4 + nbytes :]
        self._simple = not any(self._longest(bytes([byte]), 0)[0] for byte in range(0x20, 0x7F))
        self._stretch = functools.lru_cache(_CACHED)(self._walk)

    def __call__(self, text: str) -> str:
        """The text with everything replaced that the map knows."""
        if not self._nodes:
            return text
        return _WORD.sub(lambda match: self._stretch(match[0]), text) if self._simple else self._walk(text)

    def _walk(self, text: str) -> str:
        data, at, out = text.encode(), 0, bytearray()
        while at < len(data):
            length, value = self._longest(data, at)
            if length:
                out += value
            else:  # a whole character stays
                length = 1
                while at + length < len(data) and data[at + length] & 0xC0 == 0x80:
                    length += 1
                out += data[at : at + length]
            at += length
        return out.decode(errors="replace")

    def _longest(self, data: bytes, at: int) -> tuple[int, bytes]:
        """Bytes of the longest prefix from `at` on that is replaced, 0 for none, and by what."""
        nodes, found = self._nodes, (0, b"")
        place = self._children(0)
        for end in range(at, len(data)):
            byte = data[end]
            place ^= byte
            if not byte or place >= len(nodes) or nodes[place] & _CHECK != byte:
                break
            here, place = place, place ^ self._children(place)
            if nodes[here] & _LEAF and place < len(nodes):
                start = nodes[place] & _VALUE
                stop = self._replacements.find(b"\0", start)
                found = (end - at + 1, self._replacements[start:stop]) if stop >= 0 else found
        return found

    def _children(self, place: int) -> int:
        node = self._nodes[place] if self._nodes else 0
        return (node >> 10) << ((node & _WIDE) >> 6)


class Unigram:
    """Text to ids."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        if "unknown" not in vocabulary.roles:
            raise ModelError("key 'tokenizer.ggml.unknown_token_id' is missing")
        self._map = CharsMap(vocabulary.charsmap)
        self._merges_spaces, self._prefix = vocabulary.remove_extra_whitespaces, vocabulary.add_space_prefix
        self._tokenizer = Tokenizer(models.Unigram(_scored(vocabulary), vocabulary.roles["unknown"], byte_fallback=False))

    def encode(self, text: str) -> list[int]:
        """Ids of a text between special tokens."""
        text = self._spaced(self._map(text))
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids) if text else []

    def _spaced(self, text: str) -> str:
        """Spaces as blocks: one before each word, or all that there are and one before the first word."""
        if self._merges_spaces:
            return "".join(BLOCK + word for word in text.split(" ") if word)
        words = text.lstrip(" ")
        prefix = BLOCK if self._prefix and words else ""
        return BLOCK * (len(text) - len(words)) + prefix + words.replace(" ", BLOCK)


def _scored(vocabulary: Vocabulary) -> list[tuple[str, float]]:
    """Every token and its score. What typed text must not turn into gets a name that no text has, and a score that does not
    change that of the unknown."""
    plain = [attribute & (NORMAL | UNUSED | USER_DEFINED) for attribute in vocabulary.attributes]
    least = min((vocabulary.scores[i] for i, attribute in enumerate(plain) if attribute & NORMAL), default=0.0)
    known = zip(vocabulary.tokens, vocabulary.scores, plain, strict=False)
    return [
        (token, 0.0 if kind & USER_DEFINED else score) if kind else (f"\0{i}", least)
        for i, (token, score, kind) in enumerate(known)
    ]
