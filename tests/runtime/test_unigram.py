"""Unigram vocabularies: the map of characters, spaces, and what the covering prefers. Whole texts: test_tokenizer.py."""

from __future__ import annotations

import base64
import struct
from array import array
from typing import Any

import pytest
from vocabs import CONTROL, NORMAL, UNKNOWN, UNUSED, committed, texts

from runtime.core import ModelError
from runtime.tokenizer import Tokenizer
from runtime.unigram import CharsMap


def vocabulary(pieces: dict[str, float], types: dict[str, int] | None = None, **keys: Any) -> Tokenizer:
    head = {"<s>": CONTROL, "</s>": CONTROL, "<unk>": UNKNOWN}
    kinds = [*head.values(), *((types or {}).get(piece, NORMAL) for piece in pieces)]
    metadata = {
        "tokenizer.ggml.model": "t5",
        "tokenizer.ggml.tokens": [*head, *pieces],
        "tokenizer.ggml.token_type": array("i", kinds),
        "tokenizer.ggml.scores": array("f", [0.0] * len(head) + list(pieces.values())),
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.unknown_token_id": 2,
        "tokenizer.ggml.add_bos_token": True,
    }
    return Tokenizer.from_gguf(metadata | {f"tokenizer.ggml.{key}": value for key, value in keys.items()})


def cut(tokenizer: Tokenizer, text: str) -> list[str]:
    return texts(tokenizer, tokenizer.encode(text, parse_special=False, add_special=False))


@pytest.mark.parametrize(
    ("merge", "prefix", "text", "expected"),
    [
        (True, True, "  a  b ", ["\u2581", "a", "\u2581", "b"]),
        (True, False, "a b", ["\u2581", "a", "\u2581", "b"]),
        (False, True, " a  b ", ["\u2581", "\u2581", "a", "\u2581", "\u2581", "b", "\u2581"]),
        (False, False, "a b", ["a", "\u2581", "b"]),
        (False, True, "  ", ["\u2581", "\u2581"]),
        (True, True, "  ", []),
    ],
)
def test_spaces(merge: bool, prefix: bool, text: str, expected: list[str]) -> None:
    pieces = {"\u2581": -1.0, "a": -2.0, "b": -2.0}
    assert cut(vocabulary(pieces, remove_extra_whitespaces=merge, add_space_prefix=prefix), text) == expected


def test_the_likeliest_covering_counts_and_not_the_longest_token() -> None:
    tokenizer = vocabulary({"ab": -3.0, "a": -1.0, "b": -1.0, "bc": -1.5, "abc": -9.0})
    assert cut(tokenizer, "abc") == ["a", "bc"]
    assert cut(tokenizer, "ab") == ["a", "b"]


def test_unknown_characters_that_follow_each_other_are_one_token() -> None:
    tokenizer = vocabulary({"a": -1.0})
    assert cut(tokenizer, "a\u4e16\u754caa\u4e16") == ["a", "<unk>", "a", "a", "<unk>"]


def test_text_does_not_become_a_control_token() -> None:
    tokenizer = vocabulary(dict.fromkeys("</s>", -2.0) | {"q": -1.0}, {"q": UNUSED})
    assert cut(tokenizer, "</s>q") == ["<", "/", "s", ">", "q"]
    assert tokenizer.encode("s</s>") == [0, 5, 1, 1]


def test_ends() -> None:
    tokenizer = Tokenizer.from_gguf(committed("xlm-roberta"))
    ids = tokenizer.encode("Hello")
    assert (ids[0], ids[-1]) == (tokenizer.bos_id, tokenizer.eos_id) == (0, 2)
    assert tokenizer.between() == ([0], [2], [2])


def test_charsmap_as_base64() -> None:
    metadata = committed("xlm-roberta")
    letters = list(base64.b64encode(metadata["tokenizer.ggml.precompiled_charsmap"].tobytes()).decode())
    again = Tokenizer.from_gguf(metadata | {"tokenizer.ggml.precompiled_charsmap": letters})
    assert again.encode("\uff28e\u0301llo") == Tokenizer.from_gguf(metadata).encode("H\u00e9llo")


def test_a_map_changes_characters_and_what_follows_them() -> None:
    chars = CharsMap(committed("xlm-roberta")["tokenizer.ggml.precompiled_charsmap"].tobytes())
    assert chars("a\tb\u00a0c\u3000d") == "a b c d"
    assert chars("e\u0301 \ufb01 \uff21 \u1112\u1161\u11ab \U0001f600 plain") == "\u00e9 fi A \ud55c \U0001f600 plain"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (array("b", b"\x08\x00\x00\x00\x00"), "damaged"),
        (array("b", struct.pack("<II", 4, 0) + b"no end"), "damaged"),
        (array("i", [1, 2]), "expected an array of bytes"),
        (["?"], "precompiled_charsmap"),
    ],
)
def test_damaged_map(value: object, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        vocabulary({"a": -1.0}, precompiled_charsmap=value)


def test_map_that_points_out_of_itself_changes_nothing() -> None:
    assert CharsMap(struct.pack("<IIII", 12, (1 << 31) - 1, 1 << 31 | 1 << 8, 97) + b"x\0")("abc\x01") == "abc\x01"
