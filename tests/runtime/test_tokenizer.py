"""Tokenizers against the ids that the models' own tokenizers and llama.cpp give, and the rules around special tokens."""

from __future__ import annotations

import json
import logging
import random
from array import array
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from vocabs import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER, VOCABS, Metadata, committed, texts

from runtime.core import ModelError
from runtime.frames import BREAK
from runtime.gguf_file import open_gguf
from runtime.pre_tokenizers import PRE_TOKENIZERS
from runtime.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "ollama_compat/data/demo-moe-Q4_K_M.gguf"
GOLDEN = json.loads((VOCABS / "pre_tokenizers.json").read_text())

@cache
def demo() -> Tokenizer:
    with open_gguf(DEMO) as file:
        return Tokenizer.from_gguf(file.metadata)


def byte_characters() -> list[str]:
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(b) for b in printable] + [chr(0x100 + i) for i in range(256 - len(printable))]


def byte_level(special: dict[str, int], merges: list[str] | None = None, **keys: Any) -> Metadata:
    """A byte-level vocabulary: all bytes, what the merges make, then the special tokens with their types."""
    plain = [*byte_characters(), *(merge.replace(" ", "") for merge in merges or [])]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": [*plain, *special],
        "tokenizer.ggml.token_type": array("i", [NORMAL] * len(plain) + list(special.values())),
        "tokenizer.ggml.merges": merges or [],
    } | {f"tokenizer.ggml.{key}": value for key, value in keys.items()}


def sentence_piece(pieces: dict[str, float], special: dict[str, int] | None = None, **keys: Any) -> Metadata:
    """A SentencePiece vocabulary: <unk> <s> </s>, all bytes, then pieces with their scores and special tokens."""
    head = {"<unk>": UNKNOWN, "<s>": CONTROL, "</s>": CONTROL} | {f"<0x{b:02X}>": BYTE for b in range(256)}
    special = special or {}
    types = [*head.values(), *(NORMAL for _ in pieces), *special.values()]
    scores = [0.0] * len(head) + list(pieces.values()) + [0.0] * len(special)
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [*head, *pieces, *special],
        "tokenizer.ggml.token_type": array("i", types),
        "tokenizer.ggml.scores": array("f", scores),
    } | {f"tokenizer.ggml.{key}": value for key, value in keys.items()}


# ---------------------------------------------------------------- whole vocabularies


@pytest.mark.parametrize("name", ["bert-bge", "gpt-2", "phi-3", "xlm-roberta"])
def test_llama_cpp_cases(name: str) -> None:
    tokenizer = Tokenizer.from_gguf(committed(name))
    inputs = (VOCABS / f"{name}.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    outputs = [[int(token) for token in line.split()] for line in (VOCABS / f"{name}.out").read_text().split("\n")]
    assert len(inputs) == len(outputs) == 47
    for text, expected in zip(inputs, outputs, strict=True):
        assert tokenizer.encode(text, parse_special=False, add_special=False) == expected, text


@pytest.mark.parametrize("name", GOLDEN["pre"])
def test_pre_tokenizer(name: str) -> None:
    tokenizer = Tokenizer.from_gguf(committed("gpt-2") | {"tokenizer.ggml.pre": name})
    for text, expected in zip(GOLDEN["texts"], GOLDEN["pre"][name], strict=True):
        assert tokenizer.encode(text, parse_special=False, add_special=False) == expected, text


def test_every_pre_tokenizer_has_a_golden() -> None:
    covered = {PRE_TOKENIZERS[name] for name in GOLDEN["pre"]}
    assert {pre for pre in PRE_TOKENIZERS.values() if not pre.spaces_as_blocks} == covered


@pytest.mark.parametrize("model", ["phi-3", "demo"])
def test_special_tokens_in_text(model: str) -> None:
    tokenizer = demo() if model == "demo" else Tokenizer.from_gguf(committed("phi-3"))
    for text, parsed, plain in GOLDEN[model]:
        assert tokenizer.encode(text) == parsed, text
        assert tokenizer.encode(text, parse_special=False, add_special=False) == plain, text


def test_demo_model() -> None:
    tokenizer = demo()
    assert tokenizer.n_vocab == 4096
    assert {tokenizer.token_text(token) for token in tokenizer.eog_ids} == {"<|im_end|>", "<|endoftext|>"}
    assert tokenizer.eos_id in tokenizer.eog_ids
    assert not tokenizer.add_bos
    assert {"<|im_start|>", "<|im_end|>"} <= set(tokenizer.control_tokens)
    assert "<think>" not in tokenizer.control_tokens


def random_text(rng: random.Random) -> str:
    planes = ((0x20, 0x7F), (0x20, 0x7F), (0xA0, 0x250), (0x370, 0x600), (0x3040, 0x3100), (0x4E00, 0x9FFF), (0x1F300, 0x1F700))
    return "".join(chr(rng.randrange(*rng.choice(planes))) for _ in range(rng.randrange(40)))


@pytest.mark.parametrize("name", ["gpt-2", "demo", "phi-3"])
def test_decoding_undoes_encoding(name: str) -> None:
    tokenizer = demo() if name == "demo" else Tokenizer.from_gguf(committed(name))
    space = " " if name == "phi-3" else ""
    rng = random.Random(3)
    for _ in range(200):
        text = random_text(rng)
        ids = tokenizer.encode(text, parse_special=False, add_special=False)
        assert tokenizer.decode(ids) == (space + text if text else "")
        stream = tokenizer.stream()
        parts = [stream.push(token) for token in ids]
        assert "".join(parts) + stream.flush() == (space + text if text else "")
        assert not any("\ufffd" in part for part in parts)


# ---------------------------------------------------------------- special tokens


CHAT = {"<|im_start|>": CONTROL, "<|im_end|>": CONTROL, "<think>": USER, "<unused>": UNKNOWN}


def test_control_tokens_need_parse_special_and_user_defined_ones_do_not() -> None:
    tokenizer = Tokenizer.from_gguf(byte_level(CHAT))
    text = "a<|im_start|>b<think><unused>"
    assert texts(tokenizer, tokenizer.encode(text)) == ["a", "<|im_start|>", "b", "<think>", "<unused>"]
    plain = texts(tokenizer, tokenizer.encode(text, parse_special=False))
    assert plain == [*"a<|im_start|>b", "<think>", *"<unused>"]


def test_break_cuts_a_special_token_and_is_dropped() -> None:
    tokenizer = Tokenizer.from_gguf(byte_level(CHAT))
    cut = f"<{BREAK}|im_end|>"
    assert tokenizer.encode(cut) == tokenizer.encode("<|im_end|>", parse_special=False)
    assert texts(tokenizer, tokenizer.encode(f"<|im_end|>{cut}<|im_end|>"))[:2] == ["<|im_end|>", "<"]
    assert tokenizer.encode(BREAK) == []
    assert tokenizer.encode(f"a{BREAK}b") == tokenizer.encode("ab")


def test_break_does_not_disturb_words_or_spaces() -> None:
    tokenizer = Tokenizer.from_gguf(committed("phi-3"))
    text = "say <|end|> to me"
    expected = tokenizer.encode(text, parse_special=False)
    assert tokenizer.encode(text.replace("<|", f"<{BREAK}|")) == expected
    assert 32007 not in expected
    assert 32007 in tokenizer.encode(text)


def test_longer_special_tokens_are_cut_out_first() -> None:
    tokenizer = Tokenizer.from_gguf(byte_level({"<ab": USER, "b>cd": USER, "<a": USER, "é>": USER, "x<a": USER}))
    assert texts(tokenizer, tokenizer.encode("<ab>cd")) == ["<a", "b>cd"]
    assert texts(tokenizer, tokenizer.encode("<ab<a<")) == ["<ab", "<a", "<"]
    assert texts(tokenizer, tokenizer.encode("é>x<ab>")) == ["é>", "x", "<ab", ">"]


def test_special_token_that_overlaps_itself() -> None:
    tokenizer = Tokenizer.from_gguf(byte_level({"aa": USER, "aaaa": USER}))
    assert texts(tokenizer, tokenizer.encode("aaaaaaa")) == ["aaaa", "aa", "a"]


def test_text_that_overlapping_tokens_leave_is_not_torn() -> None:
    tokenizer = Tokenizer.from_gguf(byte_level({"aa": USER, "bcd": USER, "yb": USER}, ["a x", "y c"]))
    assert texts(tokenizer, tokenizer.encode("aaaxyc")) == ["aa", "ax", "yc"]
    assert texts(tokenizer, tokenizer.encode("xaybcd")) == ["x", "a", "y", "bcd"]


def test_thousands_of_special_tokens() -> None:
    special = {f"<unused{i}>": CONTROL for i in range(6000)}
    tokenizer = Tokenizer.from_gguf(byte_level(special))
    ids = [256 + i for i in random.Random(1).sample(range(6000), 2000)]
    assert tokenizer.encode("".join(map(tokenizer.token_text, ids))) == ids


def test_white_space_beside_special_tokens() -> None:
    """Phi-3's tokens swallow the white space after them; <mask> of Jina's vocabularies that before it."""
    phi = Tokenizer.from_gguf(byte_level({"<|end|>": CONTROL, "</s>": CONTROL, "<s>": CONTROL}) | {"general.name": "Phi-3 mini"})
    assert texts(phi, phi.encode("a <|end|> \n b<s> c")) == ["a", "Ġ", "<|end|>", "b", "<s>", "Ġ", "c"]
    jina = Tokenizer.from_gguf(byte_level({"<mask>": CONTROL}) | {"tokenizer.ggml.pre": "jina-v2-de"})
    assert texts(jina, jina.encode("a \n<mask> b")) == ["a", "<mask>", "Ġ", "b"]


# ---------------------------------------------------------------- BOS, EOS, ends of a generation


def test_bos_and_eos() -> None:
    special = {"<b>": CONTROL, "<e>": CONTROL}
    ids = {"bos_token_id": 256, "eos_token_id": 257}
    both = Tokenizer.from_gguf(byte_level(special, **ids, add_bos_token=True, add_eos_token=True))
    assert texts(both, both.encode("x")) == ["<b>", "x", "<e>"]
    assert texts(both, both.encode("x", add_special=False)) == ["x"]
    assert texts(both, both.encode("")) == ["<b>", "<e>"]
    assert texts(both, both.encode("<b>x")) == ["<b>", "<b>", "x", "<e>"]
    none = Tokenizer.from_gguf(byte_level(special, **ids))
    assert (none.add_bos, none.bos_id, none.eos_id) == (False, 256, 257)


def test_pre_tokenizers_that_imply_bos() -> None:
    metadata = byte_level({"<b>": CONTROL}, bos_token_id=256)
    for name, implied in (("llama-bpe", True), ("tekken", True), ("qwen2", False)):
        assert Tokenizer.from_gguf(metadata | {"tokenizer.ggml.pre": name}).add_bos == implied
    assert not Tokenizer.from_gguf(byte_level({"<b>": CONTROL}, pre="llama-bpe", add_bos_token=False)).add_bos


def test_ids_out_of_range_are_ignored(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = Tokenizer.from_gguf(byte_level({}, bos_token_id=2**32 - 1, eos_token_id=256))
    assert (tokenizer.bos_id, tokenizer.eos_id) == (11, 11)  # llama.cpp's defaults
    assert "bos_token_id" in caplog.text
    tokenizer = Tokenizer.from_gguf(sentence_piece({"▁": 0.0}))
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.add_bos, tokenizer.add_eos) == (1, 2, True, False)


@pytest.mark.parametrize(
    ("special", "ends"),
    [
        ({"<|im_end|>": CONTROL, "<|im_start|>": CONTROL}, {"<|im_end|>"}),
        ({"<|eot_id|>": CONTROL, "<|eom_id|>": CONTROL, "<EOT>": NORMAL}, {"<|eot_id|>", "<|eom_id|>", "<EOT>"}),
        ({"<end_of_turn>": USER, "<eos>": CONTROL}, {"<end_of_turn>", "<eos>"}),
        ({"<|fim_pad|>": CONTROL, "<|repo_name|>": USER, "<|fim_prefix|>": USER}, {"<|fim_pad|>", "<|repo_name|>"}),
        ({"<|file_sep|>": USER, "<|fim_middle|>": CONTROL}, {"<|file_sep|>"}),
        ({"<|return|>": CONTROL, "<|call|>": CONTROL, "<|end|>": CONTROL}, {"<|return|>", "<|call|>"}),
        ({"<|flush|>": CONTROL, "<|calls|>": CONTROL, "<|end|>": CONTROL}, {"<|flush|>", "<|calls|>"}),
        ({"<|return|>": CONTROL, "<|end|>": CONTROL}, {"<|return|>", "<|end|>"}),
        ({"<|tool_response>": USER, "</s>": NORMAL, "<turn|>": CONTROL}, {"<|tool_response>", "<turn|>"}),
        ({"<｜end▁of▁sentence｜>": CONTROL}, {"<｜end▁of▁sentence｜>"}),
    ],
)  # fmt: skip
def test_ends_of_a_generation_by_text(special: dict[str, int], ends: set[str]) -> None:
    tokenizer = Tokenizer.from_gguf(byte_level(special, eos_token_id=0))
    assert set(texts(tokenizer, list(tokenizer.eog_ids))) == ends | {"!"}


def test_ends_of_a_generation_by_metadata() -> None:
    special = {"<a>": CONTROL, "<b>": CONTROL, "<c>": CONTROL, "<d>": CONTROL}
    keys = {"eos_token_id": 256, "eot_token_id": 257, "eom_token_id": 258, "eos_token_ids": array("i", [256, 259, 999, -1])}
    assert Tokenizer.from_gguf(byte_level(special, **keys)).eog_ids == {256, 257, 258, 259}


def test_tokens_recognised_by_text_become_control_tokens() -> None:
    tokenizer = Tokenizer.from_gguf(byte_level({"<|im_end|>": NORMAL, "<|fim_prefix|>": USER, "<tool>": USER}))
    assert tokenizer.control_tokens == ["<|im_end|>", "<|fim_prefix|>"]
    assert len(tokenizer.encode("<|im_end|><|fim_prefix|>", parse_special=False)) > 2
    assert texts(tokenizer, tokenizer.encode("<|im_end|><|fim_prefix|>")) == ["<|im_end|>", "<|fim_prefix|>"]


def test_parts_of_harmony_answers_are_visible_and_still_guarded() -> None:
    tokenizer = Tokenizer.from_gguf(byte_level({"<|channel|>": CONTROL, "<|message|>": CONTROL, "<|x|>": CONTROL}))
    stream = tokenizer.stream()
    assert [stream.push(token) for token in (256, 257, 258)] == ["<|channel|>", "<|message|>", ""]
    assert tokenizer.control_tokens == ["<|channel|>", "<|message|>", "<|x|>"]


# ---------------------------------------------------------------- SentencePiece


def test_sentence_piece_merges_by_score() -> None:
    pieces = {"▁": -9.0, "a": -9.0, "b": -9.0, "c": -9.0, "ab": -2.0, "bc": -1.0, "abc": -3.0, "▁a": -4.0}
    tokenizer = Tokenizer.from_gguf(sentence_piece(pieces))
    assert texts(tokenizer, tokenizer.encode("abc", add_special=False)) == ["▁", "abc"]
    assert texts(tokenizer, tokenizer.encode("ab", add_special=False)) == ["▁", "ab"]
    assert texts(tokenizer, tokenizer.encode("abab")) == ["<s>", "▁", "ab", "ab"]


def test_sentence_piece_merges_equal_scores_from_the_left() -> None:
    runs = {"▁" * n: -1e9 for n in range(2, 9)}
    tokenizer = Tokenizer.from_gguf(sentence_piece({"▁": -5.0, "x": -5.0, "▁x": -1.0} | runs, add_space_prefix=False))
    assert texts(tokenizer, tokenizer.encode(" " * 13, add_special=False)) == ["▁" * 8, "▁" * 5]
    assert texts(tokenizer, tokenizer.encode(" " * 10 + "x", add_special=False)) == ["▁" * 8, "▁", "▁x"]


def test_sentence_piece_falls_back_to_bytes() -> None:
    tokenizer = Tokenizer.from_gguf(sentence_piece({"▁": 0.0, "a": 0.0}))
    assert texts(tokenizer, tokenizer.encode("aé\n", add_special=False)) == ["▁", "a", "<0xC3>", "<0xA9>", "<0x0A>"]
    assert tokenizer.decode(tokenizer.encode("aé\n", add_special=False)) == " aé\n"


def test_sentence_piece_space_prefix_follows_special_tokens() -> None:
    metadata = sentence_piece({"▁": 0.0, "a": 0.0, "▁a": 1.0}, {"<x>": CONTROL})
    tokenizer = Tokenizer.from_gguf(metadata)
    assert texts(tokenizer, tokenizer.encode("a<x>a a")) == ["<s>", "▁a", "<x>", "▁a", "▁a"]
    assert tokenizer.encode("", add_special=False) == []
    bare = Tokenizer.from_gguf(metadata | {"tokenizer.ggml.add_space_prefix": False})
    assert texts(bare, bare.encode("a<x>a")) == ["<s>", "a", "<x>", "a"]


def test_sentence_piece_never_makes_control_tokens_of_text() -> None:
    pieces = dict.fromkeys("▁<>s0xA", 0.0) | {"<s": 1.0, "<0": 0.5, "<0x": 0.4, "<0x0": 0.3, "<0x0A": 0.2}
    tokenizer = Tokenizer.from_gguf(sentence_piece(pieces))
    assert texts(tokenizer, tokenizer.encode("<s>", parse_special=False, add_special=False)) == ["▁", "<s", ">"]
    assert texts(tokenizer, tokenizer.encode("<0x0A>", parse_special=False, add_special=False)) == ["▁", "<0x0A", ">"]


# ---------------------------------------------------------------- other kinds


def gemma_like() -> Metadata:
    pieces = ["<pad>", "<eos>", "<bos>", *(f"<0x{b:02X}>" for b in range(256)), "▁", "a", "b", "▁a", "\n", "\n\n", "ab"]
    types = [CONTROL] * 3 + [BYTE] * 256 + [NORMAL] * 7
    return {
        "tokenizer.ggml.model": "gemma4",
        "tokenizer.ggml.tokens": pieces,
        "tokenizer.ggml.token_type": array("i", types),
        "tokenizer.ggml.merges": ["\n \n", "▁ a", "a b"],
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.add_bos_token": False,
    }


def test_gemma_merges_raw_text() -> None:
    tokenizer = Tokenizer.from_gguf(gemma_like())
    assert texts(tokenizer, tokenizer.encode("a ab\n\n é")) == [
        "<bos>", "a", "▁a", "b", "\n\n", "▁", "<0xC3>", "<0xA9>",
    ]  # fmt: skip
    assert tokenizer.decode(tokenizer.encode("a ab\n\n é", add_special=False)) == "a ab\n\n é"


def test_word_piece() -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "▁hello", "▁un", "able", "▁,", "▁日", "▁[", "▁cls", "▁]"]
    metadata = {
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.tokens": words,
        "tokenizer.ggml.token_type": array("i", [CONTROL] * 4 + [NORMAL] * 8),
        "tokenizer.ggml.cls_token_id": 2,
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.seperator_token_id": 3,
        "tokenizer.ggml.unknown_token_id": 1,
    }
    tokenizer = Tokenizer.from_gguf(metadata)
    assert texts(tokenizer, tokenizer.encode("Héllo,  UNABLE 日日 xyz")) == [
        "[CLS]", "▁hello", "▁,", "▁un", "able", "▁日", "▁日", "[UNK]", "[SEP]",
    ]  # fmt: skip
    assert texts(tokenizer, tokenizer.encode("[CLS]", parse_special=False, add_special=False)) == ["▁[", "▁cls", "▁]"]
    cased = Tokenizer.from_gguf(metadata | {"tokenizer.ggml.normalizer.lowercase": False})
    assert texts(cased, cased.encode("Hello hello", add_special=False)) == ["[UNK]", "▁hello"]
    assert cased.encode("x" * 200_000 + " hello", add_special=False) == [1, 4]


def test_words_that_are_tokens_ignore_merges() -> None:
    metadata = byte_level({}, ["a b", "b c", "a bc"])
    metadata["tokenizer.ggml.merges"] = ["b c", "a bc", "a b"]
    metadata["tokenizer.ggml.tokens"] = [*metadata["tokenizer.ggml.tokens"], "abcd", "cd"]
    metadata["tokenizer.ggml.token_type"].extend([NORMAL, NORMAL])
    merged = Tokenizer.from_gguf(metadata)
    assert texts(merged, merged.encode("abcd")) == ["abc", "d"]
    whole = Tokenizer.from_gguf(metadata | {"tokenizer.ggml.pre": "llama-bpe"})
    assert texts(whole, whole.encode("abcd", add_special=False)) == ["abcd"]


def test_first_of_equal_merges_counts() -> None:
    tokenizer = Tokenizer.from_gguf(byte_level({}, ["a b", "b c"]) | {"tokenizer.ggml.merges": ["a b", "b c", "a b"]})
    assert texts(tokenizer, tokenizer.encode("abc")) == ["ab", "c"]


def test_lone_surrogates_and_nul() -> None:
    tokenizer = demo()
    assert tokenizer.decode(tokenizer.encode("a\ud800b\udfff")) == "a\ufffdb\ufffd"
    assert tokenizer.decode(tokenizer.encode("a\0b")) == "a\0b"


# ---------------------------------------------------------------- decoding


def push_bytes(tokenizer: Tokenizer, raw: bytes) -> list[str]:
    """What the stream says for each byte given as a token of its own, and at the end."""
    by_byte = {tokenizer.token_bytes(token): token for token in range(256)}
    stream = tokenizer.stream()
    return [*(stream.push(by_byte[bytes([byte])]) for byte in raw), stream.flush()]


def test_stream_waits_for_whole_characters() -> None:
    tokenizer = Tokenizer.from_gguf(byte_level({}))
    assert push_bytes(tokenizer, "aé😀!".encode()) == ["a", "", "é", "", "", "", "😀", "!", ""]


@pytest.mark.parametrize(
    ("raw", "parts"),
    [
        (b"\xff", ["\ufffd", ""]),
        (b"\xe6\x97a", ["", "", "\ufffda", ""]),  # cannot complete once an "a" follows
        (b"\xe6\x97", ["", "", "\ufffd"]),
        (b"\x80\xc3\xa9", ["\ufffd", "", "é", ""]),
        (b"\xc0\xaf", ["\ufffd", "\ufffd", ""]),  # overlong
        (b"\xed\xa0\x80", ["", "", "\ufffd\ufffd\ufffd", ""]),  # a surrogate
        (b"\xf0\x9f\xf0\x9f\x98\x80", ["", "", "\ufffd", "", "", "😀", ""]),
    ],
)
def test_stream_replaces_what_cannot_become_a_character(raw: bytes, parts: list[str]) -> None:
    tokenizer = Tokenizer.from_gguf(byte_level({}))
    assert push_bytes(tokenizer, raw) == parts
    assert "".join(parts) == raw.decode(errors="replace")


def test_stream_hides_control_tokens_unless_preserved() -> None:
    tokenizer = Tokenizer.from_gguf(byte_level(CHAT))
    ids = tokenizer.encode("a<|im_start|><think>b<unused>")
    hidden, shown = tokenizer.stream(), tokenizer.stream(preserved=["<|im_start|>", "no token"])
    assert "".join(map(hidden.push, ids)) == "a<think>b"
    assert "".join(map(shown.push, ids)) == "a<|im_start|><think>b"
    assert tokenizer.decode(ids) == "a<|im_start|><think>b<unused>"


def test_token_bytes() -> None:
    special = {"<|x|>": CONTROL, "Ġ raw ▁": USER, "日本": NORMAL, "spare": UNUSED}
    tokenizer = Tokenizer.from_gguf(byte_level(special, ["Ġ a"]))
    assert [tokenizer.token_bytes(token) for token in range(256, 261)] == [
        b" a", b"<|x|>", "Ġ raw ▁".encode(), "日本".encode(), b"",
    ]  # fmt: skip
    assert sorted(tokenizer.token_bytes(token) for token in range(256)) == [bytes([b]) for b in range(256)]
    blocks = Tokenizer.from_gguf(sentence_piece({"▁a▁": 0.0}, {"<▁>": USER}))
    assert [blocks.token_bytes(token) for token in (1, 3 + 0x41, 259, 260)] == [b"<s>", b"A", b" a ", "<▁>".encode()]


# ---------------------------------------------------------------- files that are wrong


def test_missing_pre_tokenizer_is_the_default_one(caplog: pytest.LogCaptureFixture) -> None:
    metadata = committed("gpt-2").copy()
    del metadata["tokenizer.ggml.pre"]
    with caplog.at_level(logging.WARNING):
        tokenizer = Tokenizer.from_gguf(metadata)
    assert "pre-tokenizer" in caplog.text
    expected = Tokenizer.from_gguf(committed("gpt-2") | {"tokenizer.ggml.pre": "default"})
    assert all(tokenizer.encode(text) == expected.encode(text) for text in GOLDEN["texts"])


def test_empty_tokens_get_a_name() -> None:
    tokenizer = Tokenizer.from_gguf(byte_level({"": NORMAL, "<x>": CONTROL}))
    assert tokenizer.token_text(256) == "[EMPTY_256]"
    assert texts(tokenizer, tokenizer.encode("a<x>")) == ["a", "<x>"]


def without(key: str) -> Metadata:
    metadata = byte_level({})
    del metadata[f"tokenizer.ggml.{key}"]
    return metadata


BAD: dict[str, tuple[Metadata, str]] = {
    "no model": (without("model"), "'tokenizer.ggml.model' is missing"),
    "model type": (byte_level({}, model=7), "'tokenizer.ggml.model'.*expected str"),
    "unknown model": (byte_level({}, model="rwkv"), "'tokenizer.ggml.model'.*'rwkv'"),
    "unknown pre": (byte_level({}, pre="gpt-9"), "'tokenizer.ggml.pre'.*'gpt-9'"),
    "no tokens": (without("tokens"), "'tokenizer.ggml.tokens' is missing"),
    "empty tokens": (byte_level({}, tokens=[]), "'tokenizer.ggml.tokens' is empty"),
    "tokens are numbers": (byte_level({}, tokens=array("i", [1])), "'tokenizer.ggml.tokens'.*expected list"),
    "tokens are bools": (byte_level({}, tokens=[True]), "'tokenizer.ggml.tokens'.*strings"),
    "duplicate token": (byte_level({"a": NORMAL}), "'tokenizer.ggml.tokens'.*'a' appears twice"),
    "no merges": (without("merges"), "'tokenizer.ggml.merges' is missing"),
    "merge of no token": (byte_level({}, merges=[]) | {"tokenizer.ggml.merges": ["xx y"]}, "'tokenizer.ggml.merges'.*'xx y'"),
    "merge makes no token": (byte_level({}) | {"tokenizer.ggml.merges": ["x y"]}, "'tokenizer.ggml.merges'.*'x y'"),
    "merge without space": (byte_level({}) | {"tokenizer.ggml.merges": ["xy"]}, "'tokenizer.ggml.merges'.*'xy'"),
    "empty merge": (byte_level({}) | {"tokenizer.ggml.merges": [""]}, "'tokenizer.ggml.merges'"),
    "short types": (byte_level({}, token_type=array("i", [1])), "'tokenizer.ggml.token_type'.*1 entries for 256"),
    "types are floats": (byte_level({}, token_type=array("f", [1] * 256)), "'tokenizer.ggml.token_type'.*wrong type"),
    "bos is text": (byte_level({}, bos_token_id="1"), "'tokenizer.ggml.bos_token_id'.*expected int"),
    "add_bos is a number": (byte_level({}, add_bos_token=1), "'tokenizer.ggml.add_bos_token'.*expected bool"),
    "short scores": (sentence_piece({}, scores=array("f", [0.0])), "'tokenizer.ggml.scores'.*1 entries"),
    "score nan": (sentence_piece({"a": float("nan")}), "'tokenizer.ggml.scores'.*not a number"),
    "byte token": (sentence_piece({}, {"<0x-1>": BYTE}), "'tokenizer.ggml.tokens'.*'<0x-1>'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_metadata(name: str) -> None:
    metadata, match = BAD[name]
    with pytest.raises(ModelError, match=match):
        Tokenizer.from_gguf(metadata)


def test_long_texts_take_no_time_worth_mentioning() -> None:
    """A text that is quadratic for careless patterns or special-token searches would not end within the test's patience."""
    tokenizer = Tokenizer.from_gguf(byte_level({f"<|reserved_{i}|>": CONTROL for i in range(256)}))
    n = 200_000
    for text in (" " * n + "1", "<" * n, "a" * n, "<|reserved_7|>" * (n // 14), "7" * n):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    for name in ("deepseek-llm", "tiny_aya", "afmoe", "jais-2", "superbpe", "gpt-4o"):
        tokenizer = Tokenizer.from_gguf(byte_level({}, pre=name))
        for text in (" " * n + "1", "7" * n, "A" * n):
            assert len(tokenizer.encode(text)) == len(text)
