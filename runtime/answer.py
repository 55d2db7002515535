"""The text side of an answer: tokens in, Token frames out, until a stop string appears."""

from __future__ import annotations

import codecs

from runtime.core import FloatArray
from runtime.frames import Generate, Logprob, Token
from runtime.sampling import log_probabilities
from runtime.tokenizer import Tokenizer


class Repeats:
    """Counts texts that say the same as the one before, as Ollama does (llm/llama_server.go, Completion): white space around
    them counts for nothing, and a token that shows nothing yet is a text too."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._last = ""
        self._count = 0

    @property
    def too_many(self) -> bool:
        """Whether the limit is passed."""
        return 0 < self._limit < self._count

    def add(self, text: str) -> bool:
        """Count the next text; whether it is one too many."""
        text = text.strip()
        self._count = self._count + 1 if text == self._last else 0
        self._last = text
        return self.too_many


class Answer:
    """Text is held back while its end may become a stop string, and with it the tokens that it came from."""

    def __init__(self, request: Generate, tokenizer: Tokenizer) -> None:
        self.stop = ""  # the stop string that has been found
        self._id = request.id
        self._tokenizer = tokenizer
        self._preserved = frozenset(request.preserved)
        self._stream = tokenizer.stream(request.preserved)
        self._stops = [word for word in request.stop if word]
        self._stop_letters = frozenset("".join(self._stops))
        self._repeats = Repeats(request.repeat_limit)
        self._top = request.logprobs
        self._held = ""
        self._tokens: list[int] = []  # that the held text came from
        self._lengths: list[int] = []  # characters of each
        self._logprobs: list[Logprob] = []  # of each, if wanted
        self._context: list[int] = []

    def shows(self, token: int) -> bool:
        """Whether the token has a text at all."""
        return not self._tokenizer.is_hidden(token) or self._tokenizer.token_text(token) in self._preserved

    @property
    def repeated(self) -> bool:
        """Whether it says the same more often than it may."""
        return self._repeats.too_many

    @property
    def tells_logprobs(self) -> bool:
        """Whether it needs the logits of all tokens."""
        return self._top >= 0

    def push(self, token: int, logits: FloatArray) -> Token | None:
        """Take the next token, chosen from `logits`. Returns what can be told by now; check `stop` and `repeated` afterwards."""
        text = self._stream.push(token)
        self._tokens.append(token)
        self._lengths.append(len(text))
        if self._top >= 0:
            self._logprobs.append(self._logprob(token, logits))
        self._held += text
        told = self._settled(len(text)) if text else None
        counts = text or self._stream.whole
        return None if counts and self._repeats.add(told.text if told else "") else told

    def finish(self, reason: str) -> Token | None:
        """What was held back, now that nothing follows. An unfinished character is lost; check `repeated` afterwards.

        As a text that may repeat the one before counts the token that ends the answer, and then the end itself.
        """
        if self.repeated:
            return None
        told = self._emit() if self._tokens else None
        if reason == "stop" and not self.stop and self._repeats.add(told.text if told else ""):
            return None
        self._repeats.add("")
        return told

    def context(self) -> list[int]:
        """Tokens of the text that was told."""
        return self._context

    def _settled(self, new: int) -> Token | None:
        """What can be told of the held text, whose last `new` characters have just come."""
        if self._stops:
            end = self._find_stop(new)
            if end is not None:
                return self._cut(end)
            if self._may_stop():
                return None
        return self._emit()

    def _emit(self) -> Token:
        frame = Token(self._id, self._held, self._tokens, self._logprobs)
        self._context += self._tokens
        self._held, self._tokens, self._lengths, self._logprobs = "", [], [], []
        return frame

    # ------------------------------------------------------------ stop strings

    def _find_stop(self, new: int) -> int | None:
        """Where the first stop string begins; the last `new` characters have not been searched."""
        first: int | None = None
        for word in self._stops:
            at = self._held.find(word, max(0, len(self._held) - new - len(word)))
            if at >= 0 and (first is None or at < first):
                first, self.stop = at, word
        return first

    def _may_stop(self) -> bool:
        """Whether the held text ends with the beginning of a stop string."""
        held = self._held
        return held[-1] in self._stop_letters and any(
            held.endswith(word[:length]) for word in self._stops for length in range(min(len(word) - 1, len(held)), 0, -1)
        )

    def _cut(self, end: int) -> Token | None:
        """Drop the text from `end` on, and the tokens that have no part in what is left."""
        count = start = 0
        while start < end:
            start += self._lengths[count]
            count += 1
        text = self._held[:end]
        whole = count - (start > end)  # the last one reaches into the stop string
        told = self._tokens[:count]
        self._context += self._tokens[:whole]
        self._context += self._encode(text[sum(self._lengths[:whole]) :])
        logprobs = self._logprobs[:count]
        self._held, self._tokens, self._lengths, self._logprobs = "", [], [], []
        return Token(self._id, text, told, logprobs) if told else None

    def _encode(self, text: str) -> list[int]:
        """Tokens of a text in the middle of others."""
        if not text:
            return []
        encode, decode = self._tokenizer.encode, self._tokenizer.decode
        tokens = encode(text, parse_special=False, add_special=False)
        if decode(tokens) != text and text.startswith(" "):  # some tokenizers put a space before every text
            tokens = encode(text[1:], parse_special=False, add_special=False)
        return tokens

    # ------------------------------------------------------------ logprobs

    def _logprob(self, token: int, logits: FloatArray) -> Logprob:
        chosen, best = log_probabilities(logits, token, self._top)
        return self._entry(token, chosen, [self._entry(other, value, []) for other, value in best])

    def _entry(self, token: int, value: float, top: list[Logprob]) -> Logprob:
        """As Ollama: the bytes are those of the text, and a token that ends inside a character loses that end."""
        raw = self._tokenizer.token_bytes(token) if self.shows(token) else b""
        text = codecs.getincrementaldecoder("utf-8")("replace").decode(raw)
        return Logprob(text, value, list(text.encode()), top)
