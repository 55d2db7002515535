"""A runner without a model, for tests of the server: it speaks frames on its pipes and answers from a script.

What it says is found in the prompt: `say(TEXT)` is answered with TEXT, word by word; without that it answers "A b c.".
`frame()` tells the grammar fields of its request as JSON; `refuse()` is answered Failed.
`again(WORD)` says that word as often as it may be repeated, or 100 times where there is no limit.
`slow()` says one word every 10 ms until it is cancelled or has said 1000; `hang()` says nothing; `die()` ends the process;
`busy()` computes for 1.5 s first and answers nothing meanwhile; with `cached()` all but one token of the prompt came from
the cache.
Requests for vectors are refused, unless an argument is `--embed`. Other arguments change the load: `--fail=KIND` answers Failed,
`--die` exits, `--hang` never answers, `--train=N` is the training context, `--card` puts half of it on a card. Tokens are words
with the space before them. Like the
real worker it ends when its input does.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a script's path begins with its own folder

from runtime import frames

_WORD = re.compile(r"\s*\S+|\s+$")
_AGAIN = re.compile(r"again\(([^()]*)\)")
_SAY = re.compile(r"say\(((?:[^()]|\([^()]*\))*)\)", re.DOTALL)


class FakeWorker:
    """The whole runner."""

    def __init__(self, arguments: list[str]) -> None:
        self._flags = dict(argument.removeprefix("--").partition("=")[::2] for argument in arguments)
        self._words: list[str] = []
        self._ids: dict[str, int] = {}
        self._running: dict[int, asyncio.Task[None]] = {}
        self._hanging: set[int] = set()  # requests for vectors that are never answered
        self._num_ctx = 0
        self._writer: Any = None

    async def run(self) -> None:
        """Answers frames until the input ends."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        transport, _ = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, sys.stdout)
        self._writer = transport
        while True:
            try:
                prefix = await reader.readexactly(frames.PREFIX_BYTES)
            except asyncio.IncompleteReadError:
                return
            frame = frames.decode(await reader.readexactly(frames.body_length(prefix)))
            if not self._handle(frame):
                return

    def _handle(self, frame: frames.Frame) -> bool:
        if isinstance(frame, frames.Load):
            return self._load(frame)
        if isinstance(frame, frames.Generate):
            self._running[frame.id] = asyncio.create_task(self._generate(frame))
        elif isinstance(frame, frames.Cancel):
            if frame.id in self._running:
                self._running.pop(frame.id).cancel()
            self._hanging.discard(frame.id)
        elif isinstance(frame, frames.Tokenize):
            self._send(frames.Tokens(frame.id, self._tokens(frame.text)))
        elif isinstance(frame, frames.Detokenize):
            self._send(frames.Text(frame.id, "".join(self._words[token] for token in frame.tokens)))
        elif isinstance(frame, frames.Embed):
            self._embed(frame)
        elif isinstance(frame, frames.Grow):
            self._num_ctx = max(self._num_ctx, min(frame.num_ctx, int(self._flags.get("train", "2048"))))
            self._send(frames.Grown(frame.id, self._num_ctx, 1000))
        elif isinstance(frame, frames.GiveBack):
            self._send(frames.GivenBack(frame.id, 500 // frame.models, shared=True))
        elif isinstance(frame, frames.GetStats):
            busy = len(self._running) + len(self._hanging)
            self._send(frames.Stats(frame.id, busy, 0, 8, 8 - busy, 0, 0, 1000, 0))
        return True

    def _load(self, load: frames.Load) -> bool:
        self._send(frames.LoadProgress("reading weights", 1, 2))
        if "die" in self._flags:
            return False
        if "fail" in self._flags:
            self._send(frames.Failed(None, self._flags["fail"], "the load failed"))
        elif "hang" not in self._flags:
            train = int(self._flags.get("train", "2048"))
            self._num_ctx = min(load.num_ctx or 4096, train)
            tokens = ["<|im_start|>", "<|im_end|>"]
            where = (500, "half on GPU 0", 5, False, 0) if "card" in self._flags else (0, "nowhere", 5)
            self._send(frames.Loaded("fake", self._num_ctx, train, 100, "<s>", "</s>", False, tokens, 1000, *where))
        return True

    def _embed(self, request: frames.Embed) -> None:
        """With `--embed`, a vector tells an input's words and what the frame asked for. An input may name how it fails."""
        refusals = {
            "long()": ("context_length", "too long"),
            "exceeds()": ("context_length", "the input length exceeds the context length"),
            "noroom()": ("context_length", "input after truncation exceeds maximum context length"),
            "nan()": ("bad_request", "not a number"),
            "oom()": ("out_of_memory", ""),
        }
        told = next((refusals[text] for text in request.inputs if text in refusals), None)
        if "embed" not in self._flags:
            told = ("unsupported", "this model cannot embed")
        if told:
            self._send(frames.Failed(request.id, *told))
        elif "hang()" in request.inputs:
            self._hanging.add(request.id)
        else:
            asked = [float(request.truncate), float(request.normalize), float(request.num_ctx), float(request.dimensions)]
            words = [len(self._tokens(text)) for text in request.inputs]
            self._send(frames.Embeddings(request.id, [[float(count), *asked] for count in words], sum(words)))

    async def _generate(self, request: frames.Generate) -> None:
        prompt = request.prompt.replace(frames.BREAK, "")
        tokens = [*request.tokens, *self._tokens(prompt)]
        if len(tokens) > self._num_ctx and not request.truncate:
            text = f"request ({len(tokens)} tokens) exceeds the available context size ({self._num_ctx} tokens)"
            text += ", try increasing it"
            self._send(frames.Failed(request.id, "context_length", text, len(tokens), self._num_ctx))
            return
        if len(tokens) > self._num_ctx:
            self._send(frames.Cut(request.id, len(tokens), self._num_ctx, len(tokens) - self._num_ctx))
        if "die()" in prompt:
            self._send(frames.Token(request.id, "last words", [0]))
            sys.stdout.flush()
            sys.exit(3)
        if "busy()" in prompt:
            end = time.process_time() + 1.5
            while time.process_time() < end:
                pass
        if "hang()" in prompt:
            await asyncio.sleep(3600)
        if "frame()" in prompt:
            prompt = f"say({json.dumps([request.grammar, request.grammar_start, request.grammar_opening])})"
        if "refuse()" in prompt:
            self._send(frames.Failed(request.id, "bad_request", frames.SCHEMA_FAILED + "it is none"))
            return
        words, again = self._answer(prompt), _AGAIN.findall(prompt)
        if again:
            words = [again[-1]] * (request.repeat_limit + 1 if request.repeat_limit else 100)
        said, reason = await self._say(request, words, 0.01 if "slow()" in prompt else 0)
        if again and request.repeat_limit:
            reason = "repeated"
        self._running.pop(request.id, None)
        cached = len(tokens) - 1 if "cached()" in prompt else 0
        self._send(frames.Done(request.id, reason, len(tokens), cached, 1000, len(said), 1000, tokens + said))

    @staticmethod
    def _answer(prompt: str) -> list[str]:
        if "slow()" in prompt:
            return [f" {number}" for number in range(1000)]
        said = _SAY.findall(prompt)
        return _WORD.findall(said[-1] if said else "A b c.")

    async def _say(self, request: frames.Generate, words: list[str], pause: float) -> tuple[list[int], str]:
        said: list[int] = []
        for word in words:
            if len(said) == request.num_predict:
                return said, "length"
            await asyncio.sleep(pause)
            if any(stop in word for stop in request.stop):
                return said, "stop"
            said += self._tokens(word)
            logprobs = [] if request.logprobs < 0 else [self._logprob(word, request.logprobs)]
            self._send(frames.Token(request.id, word, said[-1:], logprobs))
        return said, "stop"

    @staticmethod
    def _logprob(word: str, top: int) -> frames.Logprob:
        alternatives = [frames.Logprob(word, -0.5, list(word.encode())) for _ in range(top)]
        return frames.Logprob(word, -0.5, list(word.encode()), alternatives)

    def _tokens(self, text: str) -> list[int]:
        return [self._id(word) for word in _WORD.findall(text)]

    def _id(self, word: str) -> int:
        if word not in self._ids:
            self._ids[word] = len(self._words)
            self._words.append(word)
        return self._ids[word]

    def _send(self, frame: frames.Frame) -> None:
        self._writer.write(frames.encode(frame))


if __name__ == "__main__":
    asyncio.run(FakeWorker(sys.argv[1:]).run())
