"""Tokenizers of checkpoints: converted, they cut texts as `tokenizers` does with the original files."""

from __future__ import annotations

import array
import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_hf
from tokenizers import Tokenizer as Reference

from runtime.convert.errors import ConvertError
from runtime.convert.pre_tokenizer import detect
from runtime.convert.sentencepiece import NotSentencePiece, read_model
from runtime.convert.source import Source
from runtime.convert.vocabulary import read_vocabulary
from runtime.pre_tokenizers import PRE_TOKENIZERS
from runtime.tokenizer import Tokenizer

TEXTS = ["the sky is blue", "The  sky,\n\n is it 1234 blue? it's", " the the", "sky\u00e9 \U0001f680 blue", "<s>the</s>", ""]


def source(tmp_path: Path, files: dict[str, Any]) -> Source:
    for name, content in files.items():
        data = content if isinstance(content, bytes) else (content if isinstance(content, str) else json.dumps(content)).encode()
        (tmp_path / name).write_bytes(data)
    return Source({name: tmp_path / name for name in files})


def tokenizer(files: Source, rows: int = tiny_hf.VOCAB) -> Tokenizer:
    values = {"general.architecture": "x", **read_vocabulary(files, rows)}
    return Tokenizer.from_gguf({key: _plain(value) for key, value in values.items()})


def _plain(value: Any) -> Any:
    """As the reader of GGUF files gives it."""
    return array.array("i" if value.dtype == np.int32 else "f", value.tobytes()) if isinstance(value, np.ndarray) else value


@pytest.mark.parametrize("kind", ["byte_level", "blocks", "word_piece"])
@pytest.mark.parametrize("text", TEXTS)
def test_texts_are_cut_as_by_the_original(kind: str, text: str, tmp_path: Path) -> None:
    files = tiny_hf.TOKENIZERS[kind]
    expected = Reference.from_str(json.dumps(files["tokenizer.json"])).encode(text).ids
    assert tokenizer(source(tmp_path, files)).encode(text, add_special=True) == expected


def test_sentence_piece_and_its_rewritten_form_agree(tmp_path: Path) -> None:
    files = tiny_hf.TOKENIZERS["sentence_piece"] | {"tokenizer.model": tiny_hf.sentence_piece()}
    ours = tokenizer(source(tmp_path, files))
    reference = Reference.from_str(json.dumps(tiny_hf.blocks()))
    for text in TEXTS:
        assert ours.encode(text, add_special=True) == reference.encode(text).ids


def test_missing_tokens_are_filled_and_surplus_ones_cut(tmp_path: Path) -> None:
    files = source(tmp_path, tiny_hf.TOKENIZERS["blocks"])
    count = len(tiny_hf.PIECES + tiny_hf.MERGED)
    values = read_vocabulary(files, count + 2)
    assert values["tokenizer.ggml.tokens"][count:] == [f"[PAD{count}]", f"[PAD{count + 1}]"]
    assert values["tokenizer.ggml.token_type"][count:].tolist() == [5, 5]
    assert len(read_vocabulary(files, count - 2)["tokenizer.ggml.scores"]) == count - 2


def test_merges_end_with_the_tokens(tmp_path: Path) -> None:
    files = source(tmp_path, {"tokenizer.json": tiny_hf.byte_level()})
    last = tiny_hf.BYTE_TOKENS.index("\u0120the")
    assert read_vocabulary(files, last + 1)["tokenizer.ggml.merges"] == ["t h", "th e", "\u0120 th", "\u0120th e"]
    assert read_vocabulary(files, last)["tokenizer.ggml.merges"] == ["t h", "th e", "\u0120 th"]
    assert tokenizer(files, last).encode(" the", add_special=False)


def test_an_id_far_away_costs_nothing(tmp_path: Path) -> None:
    files = {"tokenizer.json": tiny_hf.byte_level(), "added_tokens.json": {"<far>": 4_000_000}}
    assert len(read_vocabulary(source(tmp_path, files), 8)["tokenizer.ggml.tokens"]) == 8


def test_special_tokens(tmp_path: Path) -> None:
    values = read_vocabulary(source(tmp_path, tiny_hf.TOKENIZERS["byte_level"]), tiny_hf.VOCAB)
    assert values["tokenizer.ggml.eos_token_id"] == 2
    assert values["tokenizer.ggml.padding_token_id"] == 0
    assert values["tokenizer.ggml.eos_token_ids"].tolist() == [2, 0]
    assert values["tokenizer.ggml.add_bos_token"] is False
    assert values["tokenizer.ggml.token_type"][[0, 2, 3, tiny_hf.VOCAB - 1]].tolist() == [3, 3, 1, 4]
    assert values["tokenizer.chat_template"] == tiny_hf.TEMPLATE


def test_bert_has_its_frame(tmp_path: Path) -> None:
    values = read_vocabulary(source(tmp_path, tiny_hf.TOKENIZERS["word_piece"]), tiny_hf.VOCAB)
    names = ("bos", "eos", "unknown", "seperator", "padding", "mask")
    assert [values[f"tokenizer.ggml.{name}_token_id"] for name in names] == [2, 3, 1, 3, 0, 4]
    assert [values[f"tokenizer.ggml.add_{name}_token"] for name in ("bos", "eos", "sep")] == [True, True, False]
    assert values["tokenizer.ggml.tokens"][:6] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "\u2581a"]
    assert "ing" in values["tokenizer.ggml.tokens"]
    assert values["tokenizer.ggml.normalizer.lowercase"] is True


def test_a_template_that_ends_with_another_token(tmp_path: Path) -> None:
    """Embedders on a chat model end a text with a token that the chat model does not call EOS."""
    files = copy.deepcopy(tiny_hf.TOKENIZERS["byte_level"])
    end = {"SpecialToken": {"id": "<|begin|>", "type_id": 0}}
    template = {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}, end], "pair": []}
    files["tokenizer.json"]["post_processor"] = {"type": "Sequence", "processors": [{"type": "ByteLevel"}, template]}  # type: ignore[index,call-overload]
    values = read_vocabulary(source(tmp_path, files), tiny_hf.VOCAB)
    assert values["tokenizer.ggml.eos_token_id"] == 0
    assert values["tokenizer.ggml.eot_token_id"] == 2
    assert values["tokenizer.ggml.add_eos_token"] is True


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"tokenizer_config.json": {"chat_template": "a"}, "chat_template.jinja": "b"}, {"": "a"}),
        ({"chat_template.jinja": "b"}, {"": "b"}),
        ({"chat_template.json": {"chat_template": "c"}}, {"": "c"}),
        (
            {"tokenizer_config.json": {"chat_template": [{"name": "default", "template": "d"}, {"name": "x", "template": "e"}]}},
            {"": "d", ".x": "e"},
        ),
        ({"tokenizer_config.json": {"chat_template": 3}}, {}),
    ],
)
def test_chat_templates(files: dict[str, Any], expected: dict[str, str], tmp_path: Path) -> None:
    values = read_vocabulary(source(tmp_path, {"tokenizer.json": tiny_hf.byte_level(), **files}), tiny_hf.VOCAB)
    key = "tokenizer.chat_template"
    assert {name.removeprefix(key): text for name, text in values.items() if name.startswith(key)} == expected


def test_vocab_txt_alone(tmp_path: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "##s"]
    values = read_vocabulary(source(tmp_path, {"vocab.txt": "\n".join(words) + "\n"}), 7)
    assert values["tokenizer.ggml.tokens"][5:] == ["\u2581the", "s"]
    assert values["tokenizer.ggml.token_type"].tolist() == [3, 3, 3, 3, 3, 1, 1]


def test_llama_3_has_another_tokenizer_model(tmp_path: Path) -> None:
    files = tiny_hf.TOKENIZERS["byte_level"] | {"tokenizer.model": b"IQ== 0\nIg== 1\n"}
    assert read_vocabulary(source(tmp_path, files), tiny_hf.VOCAB)["tokenizer.ggml.model"] == "gpt2"


@pytest.mark.parametrize("data", [b"", b"\x0a", b"\x0a\xff\xff", b"IQ== 0\n", b"\xff" * 12, b"\x0b\x00", b"\x0a\x03\x0a\x01\xff"])
def test_what_is_no_sentence_piece_model(data: bytes) -> None:
    with pytest.raises(NotSentencePiece):
        read_model(data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"type": "Unigram", "vocab": [["a", 0.0]]}}, "unsupported tokenizer 'Unigram'"),
        ({"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}, "the token 'a' has the id -1"),
        ({"model": {"type": "BPE", "vocab": {"a": 1 << 40}, "merges": []}}, "has the id"),
        ({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [1]}}, "could not parse tokenizer merges"),
        ({"model": None}, "'model' is missing"),
        ({"pre_tokenizer": {"type": "Nonsense"}}, "parse tokenizer.json"),
    ],
)
def test_tokenizers_that_cannot_be_converted(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConvertError, match=message):
        read_vocabulary(source(tmp_path, {"tokenizer.json": tiny_hf.byte_level() | change}), 8)


# ---------------------------------------------------------------- pre-tokenizers

SPLIT = {"type": "Split", "behavior": "Isolated", "invert": False}
LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
GPT4O = "|".join(
    [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ]
)


def split(*patterns: str) -> dict[str, Any]:
    steps = [{**SPLIT, "pattern": {"Regex": pattern}} for pattern in patterns]
    return {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [*steps, LEVEL]}, "model": {"ignore_merges": False}}


@pytest.mark.parametrize(
    ("tokenizer_json", "name"),
    [
        (split(tiny_hf.QWEN2_PATTERN), "qwen2"),
        ({**split(tiny_hf.LLAMA3_PATTERN), "model": {"ignore_merges": True}}, "llama-bpe"),
        (split(tiny_hf.LLAMA3_PATTERN), "dbrx"),  # without ignore_merges
        (split(GPT4O), "gpt-4o"),
        ({"pre_tokenizer": {**LEVEL, "use_regex": True}, "model": {}}, "gpt-2"),
        (
            {
                "pre_tokenizer": {
                    "type": "Sequence",
                    "pretokenizers": [{"type": "Digits", "individual_digits": True}, {**LEVEL, "use_regex": True}],
                },
                "model": {},
            },
            "starcoder",
        ),
        (split(r"[a-z]+"), "default"),
        ({"pre_tokenizer": None, "model": {}}, "default"),
    ],
)
def test_the_name_of_a_pre_tokenizer(tokenizer_json: dict[str, Any], name: str) -> None:
    assert detect(tokenizer_json) == name


@pytest.mark.parametrize(
    "name", ["deepseek-llm", "deepseek-coder", "deepseek-v3", "falcon", "tekken", "qwen35", "bloom", "kimi-k2"]
)
def test_known_patterns_are_found_by_what_they_do(name: str) -> None:
    row = PRE_TOKENIZERS[name]
    found = detect(split(*row.patterns) | {"model": {"ignore_merges": row.ignore_merges}})
    assert PRE_TOKENIZERS[found].patterns == row.patterns
