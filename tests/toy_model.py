"""A model of no weights: a real tokenizer for bytes, and an executor whose logits are a formula of the text so far.

The executor keeps tokens where a real one keeps keys and values, and reads the text back through the block tables, so a
block that is lost, shared wrongly or overwritten changes the answer.
"""

from __future__ import annotations

import sys
import threading
import zlib
from array import array
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from runtime.core import BLOCK_TOKENS, Batch, CannotGrow, FloatArray, IntArray
from runtime.engine import Engine, Job
from runtime.frames import Done, Failed, Generate, Load, Reply, Token
from runtime.loader import LoadError, Model
from runtime.sampling.candidates import highest
from runtime.tokenizer import Tokenizer

BOS, EOS, CALL = 256, 257, 258  # control tokens; the ids below are bytes
REFUSED = 3333  # tokens that no cache grows to
WORDS = ("he", "ll", "hell")  # tokens 259, 260 and 261
N_VOCAB = 259 + len(WORDS)

Formula = Callable[[Sequence[int]], FloatArray]


def make_tokenizer(add_bos: bool = True) -> Tokenizer:
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    spelled = [chr(byte) if byte in printable else chr(0x100 + others.index(byte)) for byte in range(256)]
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": [*spelled, "<bos>", "<eos>", "<call>", *WORDS],
        "tokenizer.ggml.token_type": array("i", [1] * 256 + [3] * 3 + [1] * len(WORDS)),
        "tokenizer.ggml.merges": ["h e", "l l", "he ll"],
        "tokenizer.ggml.bos_token_id": BOS,
        "tokenizer.ggml.eos_token_id": EOS,
        "tokenizer.ggml.add_bos_token": add_bos,
    }
    return Tokenizer.from_gguf(metadata)


def chaos(tokens: Sequence[int]) -> FloatArray:
    """Logits that depend on every token and its place; never the end."""
    seed = zlib.crc32(np.array(tokens, np.int32).tobytes())
    logits = np.random.Generator(np.random.SFC64(seed)).standard_normal(N_VOCAB).astype(np.float32) * 2
    logits[256:259] = -30
    return logits


def saying(n_prompt: int, answer: Sequence[int]) -> Formula:
    """After a prompt of so many tokens come those of `answer`, then EOS."""

    def formula(tokens: Sequence[int]) -> FloatArray:
        at = len(tokens) - n_prompt
        logits = np.zeros(N_VOCAB, np.float32)
        logits[answer[at] if at < len(answer) else EOS] = 20
        return logits

    return formula


class ToyExecutor:
    """Implements runtime.core.Executor."""

    def __init__(self, formula: Formula = chaos, *, n_blocks: int = 64, max_rows: int = 256, max_outputs: int = 128) -> None:
        self.n_vocab, self.n_ctx_train, self.n_blocks = N_VOCAB, 4096, n_blocks
        self.max_rows, self.max_outputs = max_rows, max_outputs
        self.size, self.size_vram, self.placement, self.several = 1234, 0, "nowhere", True
        self.rows: list[int] = []  # of every step
        self.copied = 0
        self._formula = formula
        self._cache: npt.NDArray[np.int32] = np.full((n_blocks, BLOCK_TOKENS), -1, np.int32)

    def forward(self, batch: Batch) -> FloatArray:
        assert 0 < len(batch.tokens) <= self.max_rows
        assert len(batch.outputs) <= self.max_outputs
        self.rows.append(len(batch.tokens))
        written = set()
        for token, position, line in zip(batch.tokens, batch.positions, batch.sequences, strict=True):
            place = (batch.tables[line, position // BLOCK_TOKENS], position % BLOCK_TOKENS)
            assert place not in written, "two rows write the same place"
            written.add(place)
            self._cache[place] = token
        rows = [self._formula(self._text(batch, row)) for row in batch.outputs]
        return np.array(rows, np.float32).reshape(-1, self.n_vocab)

    def _text(self, batch: Batch, row: int) -> list[int]:
        end = int(batch.positions[row]) + 1
        blocks = batch.tables[batch.sequences[row], : -(-end // BLOCK_TOKENS)]
        text = self._cache[blocks].reshape(-1)[:end].tolist()
        assert -1 not in text, "a place was read that nobody wrote"
        return text

    def copy_blocks(self, pairs: list[tuple[int, int]]) -> None:
        for source, target in pairs:
            self._cache[target] = self._cache[source]
            self.copied += 1

    def close(self) -> None:
        pass


class GrowingExecutor(ToyExecutor):
    """One whose cache can grow, to `most` blocks."""

    def __init__(self, formula: Formula = chaos, *, n_blocks: int = 64, most: int = 1 << 20) -> None:
        super().__init__(formula, n_blocks=n_blocks)
        self._most = most

    def grow(self, num_ctx: int, memory: int) -> int:
        if num_ctx == REFUSED:
            raise CannotGrow("the card is full")
        blocks = max(self.n_blocks, min(self._most, -(-num_ctx // BLOCK_TOKENS) + 1))
        more = np.full((blocks - self.n_blocks, BLOCK_TOKENS), -1, np.int32)
        self._cache = np.concatenate([self._cache, more])
        self.n_blocks = blocks
        self.size += more.nbytes
        return blocks


class RecurrentExecutor(ToyExecutor):
    """One that keeps states too: the text so far, which has to be that of the blocks."""

    def __init__(self, formula: Formula = chaos, *, checkpoints: int = 8, **sizes: int) -> None:
        super().__init__(formula, **sizes)
        self.lines, self.checkpoints = self.max_outputs, checkpoints
        self._states: list[list[int]] = [[-1] for _ in range(self.max_outputs + checkpoints)]

    def forward(self, batch: Batch) -> FloatArray:
        for token, position, line in zip(batch.tokens, batch.positions, batch.sequences, strict=True):
            if position == 0:
                self._states[line] = []
            assert len(self._states[line]) == position, "a state is of another text"
            self._states[line].append(int(token))
        return super().forward(batch)

    def _text(self, batch: Batch, row: int) -> list[int]:
        text = super()._text(batch, row)
        assert self._states[batch.sequences[row]][: len(text)] == text
        return text

    def copy_states(self, pairs: list[tuple[int, int]]) -> None:
        for source, target in pairs:
            self._states[target] = list(self._states[source])


class ShortlistingExecutor(ToyExecutor):
    """One that can keep logits to itself; `lists`: of every step, whether it did."""

    shortlist = 64

    def __init__(self, formula: Formula = chaos) -> None:
        super().__init__(formula)
        self.lists: list[bool] = []

    def forward(self, batch: Batch) -> FloatArray:
        self.lists.append(False)
        return super().forward(batch)

    def likeliest(self, batch: Batch) -> list[tuple[IntArray, FloatArray]]:
        self.lists.append(True)
        return [(ids.astype(np.int32), best) for ids, best in (highest(row, self.shortlist) for row in super().forward(batch))]


class HangingExecutor(ToyExecutor):
    """One whose third step never ends, which another thread can know."""

    def forward(self, batch: Batch) -> FloatArray:
        if len(self.rows) == 2:
            self.rows.append(0)
            threading.Event().wait()
        return super().forward(batch)

    def stuck(self) -> str:
        return "nobody answers" if len(self.rows) > 2 else ""


class Runs:
    """An engine and all that it said."""

    def __init__(self, executor: ToyExecutor, num_ctx: int = 512, add_bos: bool = True) -> None:
        self.executor = executor
        self.engine = Engine(executor, make_tokenizer(add_bos), num_ctx)
        self.frames: dict[int | None, list[Reply]] = {}

    def add(self, request: Generate) -> None:
        job = self.engine.prepare(request)
        self._note([job] if not isinstance(job, Job) else self.engine.submit(job))

    def step(self, times: int = 1) -> None:
        for _ in range(times):
            self._note(self.engine.step())

    def cancel(self, number: int) -> None:
        self._note(self.engine.cancel(number))

    def run(self, *requests: Generate) -> None:
        """All requests at once, to their ends."""
        for request in requests:
            self.add(request)
        for _ in range(100_000):
            if not self.engine.busy:
                return
            self.step()
        raise AssertionError("the engine does not come to an end")

    def text(self, number: int) -> str:
        return "".join(frame.text for frame in self.tokens(number))

    def tokens(self, number: int) -> list[Token]:
        return [frame for frame in self.frames[number] if isinstance(frame, Token)]

    def ids(self, number: int) -> list[int]:
        return [token for frame in self.tokens(number) for token in frame.tokens]

    def done(self, number: int) -> Done:
        last = self.frames[number][-1]
        assert isinstance(last, Done), last
        return last

    def failed(self, number: int) -> Failed:
        (only,) = self.frames[number]
        assert isinstance(only, Failed), only
        return only

    def _note(self, replies: Sequence[Reply]) -> None:
        for reply in replies:
            number = getattr(reply, "id", None)
            earlier = self.frames.setdefault(number, [])
            assert not (earlier and isinstance(earlier[-1], (Done, Failed))), "a frame after the last one"
            earlier.append(reply)


def alone(formula: Formula, prompt: Sequence[int], count: int) -> list[int]:
    """The greedy answer, computed without engine, blocks or batches."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(int(formula(tokens).argmax()))
    return tokens[len(prompt) :]


def open_toy(request: Load, progress: Callable[[str, int, int], None]) -> Model:
    """Stands in for runtime.loader.open_model; the path says what happens."""
    progress("reading weights", 0, 2)
    progress("reading weights", 2, 2)
    print("a stray print must not reach the frames")
    match request.path:
        case "broken":
            raise LoadError("bad_model", "broken: no model")
        case "huge":
            raise MemoryError("17 GiB needed")
        case "bug":
            raise ZeroDivisionError
        case "growing":
            return Model("toy", GrowingExecutor(n_blocks=32), make_tokenizer())
        case "hanging":
            return Model("toy", HangingExecutor(), make_tokenizer())
        case "poison":
            return Model("toy", ToyExecutor(_poison), make_tokenizer())
    return Model("toy", ToyExecutor(n_blocks=256, max_rows=request.num_batch), make_tokenizer())


def _poison(tokens: Sequence[int]) -> FloatArray:
    if len(tokens) > 8:
        raise RuntimeError("kernel failed")
    return chaos(tokens)


if __name__ == "__main__":
    from runtime.worker import main

    sys.exit(main(open_toy))
