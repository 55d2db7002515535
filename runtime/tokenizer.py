"""Text to tokens and back, as the GGUF file's metadata says."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Mapping
from typing import Any

from runtime.special_tokens import SpecialTokens
from runtime.token_models import BLOCK, Encoder, make_encoder
from runtime.token_roles import BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED
from runtime.vocabulary import Vocabulary, read_vocabulary


class Tokenizer:
    """Made by `from_gguf`. Safe to use from several threads at once, as nothing in it changes."""

    def __init__(self, vocabulary: Vocabulary, encode_text: Encoder) -> None:
        self._vocabulary = vocabulary
        self._special = SpecialTokens(vocabulary)
        self._encode_text = encode_text
        self._bytes_of = _byte_alphabet()
        self.n_vocab = len(vocabulary.tokens)
        self.bos_id = vocabulary.roles.get("bos")
        self.eos_id = vocabulary.roles.get("eos")
        self.add_bos = vocabulary.add_bos and self.bos_id is not None
        self.states_bos = vocabulary.states_bos and self.add_bos
        self.add_eos = vocabulary.add_eos and self.eos_id is not None
        self.eog_ids = vocabulary.eog
        self.control_tokens = [vocabulary.tokens[token] for token in vocabulary.control]

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any]) -> Tokenizer:
        """The tokenizer of a GGUF file. ModelError names the key that is missing, wrong or not supported."""
        vocabulary = read_vocabulary(metadata)
        return cls(vocabulary, make_encoder(vocabulary, metadata))

    def encode(self, text: str, parse_special: bool = True, add_special: bool = True) -> list[int]:
        """Token ids. `parse_special`: control tokens in the text are tokens, except where BREAK cuts them.

        `add_special`: put BOS and EOS around it if the vocabulary says so.
        """
        pieces = self._special.split(_well_formed(text), parse_special)
        ids = self._sentence(pieces) if self._vocabulary.model == "llama" else self._plain(pieces)
        return self.framed(ids) if add_special else ids

    def _plain(self, pieces: list[str | int]) -> list[int]:
        ids: list[int] = []
        for piece in pieces:
            ids += [piece] if isinstance(piece, int) else self._encode_text(piece)
        return ids

    def _sentence(self, pieces: list[str | int]) -> list[int]:
        """SentencePiece puts a space before text that begins the prompt or follows a special token."""
        ids: list[int] = []
        prefix = " " if self._vocabulary.add_space_prefix else ""
        fresh = True
        for piece in pieces:
            if isinstance(piece, int):
                ids.append(piece)
            else:
                ids += self._encode_text(prefix + piece if fresh else piece)
            fresh = isinstance(piece, int)
        return ids

    def framed(self, ids: list[int]) -> list[int]:
        """The tokens between BOS and EOS, where the vocabulary says so."""
        roles = self._vocabulary.roles
        if self._vocabulary.model == "bert":  # [CLS] text [SEP], whatever the metadata says
            ends = [[roles[role]] if role in roles else [] for role in ("bos", "seperator")]
            return ends[0] + ids + ends[1]
        return [roles["bos"]] * self.add_bos + ids + [roles["eos"]] * self.add_eos

    def between(self) -> tuple[list[int], list[int], list[int]]:
        """What stands before, between and after two texts that are read as one, as llama-server puts it."""
        vocabulary, roles = self._vocabulary, self._vocabulary.roles
        end = [roles["eos"] if "eos" in roles else roles["seperator"]] if vocabulary.add_eos else []
        between = [roles["seperator"]] if vocabulary.add_sep and "seperator" in roles else []
        return [roles["bos"]] * self.add_bos, end + between, end

    def token_text(self, token: int) -> str:
        """The token as the vocabulary spells it."""
        return self._vocabulary.tokens[token]

    def token_bytes(self, token: int) -> bytes:
        """The bytes of the text that the token stands for. They need not be whole characters."""
        text = self._vocabulary.tokens[token]
        attribute = self._vocabulary.attributes[token]
        if attribute & (CONTROL | UNKNOWN | USER_DEFINED):
            return text.encode()
        if attribute & NORMAL:
            return self._normal_bytes(text)
        return _byte_of(text) if attribute & BYTE else b""

    def _normal_bytes(self, text: str) -> bytes:
        if self._vocabulary.model != "gpt2" or self._vocabulary.pre.spaces_as_blocks:
            return text.replace(BLOCK, " ").encode()
        try:
            return bytes(map(self._bytes_of.__getitem__, text))
        except KeyError:  # a token that was added to the vocabulary as it is
            return text.encode()

    def is_hidden(self, token: int) -> bool:
        """Whether the token has no text in an answer: it only steers the model."""
        return bool(self._vocabulary.attributes[token] & (CONTROL | UNKNOWN))

    def is_tag(self, token: int) -> bool:
        """Whether the token marks a place rather than being text: a control token, or one like <think>."""
        if self.is_hidden(token):
            return True
        text = self._vocabulary.tokens[token]
        marked = bool(self._vocabulary.attributes[token] & USER_DEFINED)
        return marked and text.startswith("<") and text.endswith(">")

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the tokens, special ones included; what is no UTF-8 becomes U+FFFD."""
        return b"".join(map(self.token_bytes, ids)).decode(errors="replace")

    def stream(self, preserved: Iterable[str] = ()) -> Detokenizer:
        """A decoder for an answer as it grows. `preserved`: special tokens that stay visible."""
        ids = self._vocabulary.ids
        return Detokenizer(self, frozenset(ids[text] for text in preserved if text in ids))


class Detokenizer:
    """Turns the tokens of one answer into text, whole characters at a time."""

    def __init__(self, tokenizer: Tokenizer, preserved: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._preserved = preserved
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """The text that `token` completes. Bytes of an unfinished character wait for the next token."""
        if self._tokenizer.is_hidden(token) and token not in self._preserved:
            return ""
        return self._decoder.decode(self._tokenizer.token_bytes(token))

    @property
    def whole(self) -> bool:
        """Whether no character is unfinished."""
        return not self._decoder.getstate()[0]

    def flush(self) -> str:
        """What is left at the end: U+FFFD for a character that will not be finished, or nothing."""
        return self._decoder.decode(b"", final=True)


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's spelling of bytes: printable ones as themselves, the others as the characters from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


def _byte_of(text: str) -> bytes:
    """b"\\n" of "<0x0A>"."""
    return bytes.fromhex(text[3:5])


def _well_formed(text: str) -> str:
    """The text with U+FFFD for lone surrogates, which UTF-8 cannot hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
