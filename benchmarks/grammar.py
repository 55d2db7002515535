"""What following a grammar costs: decode speed with and without, in turns, in the engine that serves requests.

    python benchmarks/grammar.py [MODEL.gguf] [--tokens 150] [--rounds 9] [--temperature 0.8] [--threads 0] [--users 1]
        [--only KIND]... [--new] [--cpu-time]

Each round answers by every grammar, in an order that rotates, and each answer is said once more without it: tokens are chosen
freely then, and those of the answer taken instead, so that the model computes the same. Printed are medians: of the microseconds
that a stream's token takes, and of the ratios of the two, with the middle half of these. All answers of a round are to the same
prompt and of the same length; with several users all of them follow the grammar at the same time. `--new`: every answer is the
first one by its grammar. `--cpu-time`: by the time of the engine's thread alone, which others on the machine disturb less; for
models that it computes by itself.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from generate import cpu_name

from runtime.core import Encoder, FloatArray
from runtime.engine import Engine, Job
from runtime.frames import CallForm, Done, Generate, Load, Sampling, Token
from runtime.loader import Model, open_model
from runtime.sampling import Sampler

DEMO = Path(__file__).resolve().parents[1] / "ollama_compat/data/demo-moe-Q4_K_M.gguf"
PROMPT = "<|im_start|>user\nTell me story number {} about a boat.<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
TOWN = {"type": "string", "pattern": "^[A-Z][a-z]{2,20}$"}
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 3},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "minItems": 2, "maxItems": 5},
        "home": {"anyOf": [{"type": "null"}, TOWN]},
    },
    "required": ["name", "age", "tags", "home"],
}
STORY = {"type": "object", "properties": {"story": {"type": "string"}}, "required": ["story"]}
TOOL = {"name": "tell", "parameters": STORY, "strict": True}
BOATS = {"enum": ["sailing boat", "fishing boat", "steamer", "sailor", "harbour", "lighthouse"]}
SUMS = r"""
root ::= sum "@@@@"
sum ::= product ([-+] product)*
product ::= factor ([*/] factor)*
factor ::= [a-z]+ | [0-9]+ | "(" sum ")"
"""
WORDS = r"""
start: (WORD MARK)+ "@@@@"
WORD: /[A-Za-z]+/
MARK: /[ ,.!?]+/
"""


def listing(items: dict[str, Any]) -> str:
    """A list of such values."""
    return json.dumps({"type": "array", "items": items})


def calls(*, forced: bool) -> CallForm:
    return CallForm([TOOL], "<tool_call>", "</tool_call>", forced=forced, several=True)


@dataclasses.dataclass(frozen=True)
class Kind:
    """A grammar, and what is forbidden beside the ends of answers, so that all are equally long: tokens with these letters."""

    grammar: str | CallForm
    never: bytes = b"]"


KINDS = {
    "free": Kind(""),
    "strings": Kind(listing({"type": "string"})),
    "long strings": Kind(listing({"type": "string", "minLength": 200})),
    "bounded strings": Kind(listing({"type": "string", "maxLength": 100})),
    "patterns": Kind(listing(TOWN)),
    "numbers": Kind(listing({"type": "number"})),
    "enums": Kind(listing(BOATS)),
    "objects": Kind(listing(PERSON)),
    "any objects": Kind(listing({"type": "object"})),
    "gbnf sentences": Kind('root ::= ([A-Z] [a-zA-Z]* ([ ,]+ [a-zA-Z]+)* [.!?] " ")+ "@@@@"', b"@"),
    "gbnf sums": Kind(SUMS, b"@"),
    "lark words": Kind(WORDS, b"@"),
    "lark expression": Kind("start: /([A-Z][a-zA-Z]*([ ,]+[a-zA-Z]+)*[.!?] )+@@@@/\n", b"@"),
    "strict tool, text": Kind(calls(forced=False)),
    "strict tool, calls": Kind(calls(forced=True), b"]"),
}


class Reciter(Sampler):
    """Chooses like any other, and then says what it was told to."""

    def __init__(self, options: Sampling, told: list[int]) -> None:
        super().__init__(options, 2048)
        self._told = iter(told)

    def sample(self, logits: FloatArray) -> int:
        """The next token it was told."""
        super().sample(logits)
        return next(self._told)


@dataclasses.dataclass(frozen=True)
class Bench:
    model: Model
    engine: Engine
    tokens: int
    temperature: float
    users: int

    @classmethod
    def of(cls, model: Model, options: argparse.Namespace) -> Bench:
        """With an engine that has seen nothing yet."""
        assert not isinstance(model.executor, Encoder)
        clock = time.thread_time_ns if options.cpu_time else time.perf_counter_ns
        engine = Engine(model.executor, model.tokenizer, 2048, clock)
        return cls(model, engine, options.tokens, options.temperature, options.users)

    def forbidden(self, letters: bytes) -> list[tuple[int, float]]:
        """Biases that keep an answer from its end, and from tokens with one of the letters."""
        tokenizer = self.model.tokenizer
        texts = [tokenizer.token_bytes(token) for token in range(tokenizer.n_vocab)]
        ends = [token for token, text in enumerate(texts) if set(letters) & set(text) or token in tokenizer.eog_ids]
        return [(token, -1e30) for token in ends]

    def both(self, number: int, kind: Kind) -> tuple[float, float]:
        """Microseconds that a token takes of an answer by the grammar, and of the same answer without it."""
        time, tokens = self.answer(number, kind)
        return time, self.answer(number, Kind("", kind.never), tokens)[0]

    def answer(self, number: int, kind: Kind, told: list[list[int]] | None = None) -> tuple[float, list[list[int]]]:
        """Microseconds a token of one of the users' streams, from the first one on, and the tokens of each. `told`: the tokens to
        say instead of those that are chosen."""
        biases = self.forbidden(kind.never)
        for user in range(self.users):
            sampling = Sampling(temperature=self.temperature, seed=number + 1000 * user, logit_bias=biases)
            job = self.engine.prepare(self.request(user, number + 1000 * user, kind, sampling))
            assert isinstance(job, Job), job
            if told is not None:
                job.sampler = Reciter(sampling, told[user])
            self.engine.submit(job)
        said: list[list[int]] = [[] for _ in range(self.users)]
        times: list[float] = []
        while self.engine.busy:
            for reply in self.engine.step():
                if isinstance(reply, Token):
                    said[reply.id] += reply.tokens
                elif isinstance(reply, Done):
                    times.append(reply.eval_ns / (self.tokens - 1) / 1000)
        assert [len(tokens) for tokens in said] == [self.tokens] * self.users, f"an answer to {kind.grammar} is too short"
        return statistics.fmean(times), said

    def request(self, user: int, number: int, kind: Kind, sampling: Sampling) -> Generate:
        """For one of the users."""
        fields: Any = {"grammar": kind.grammar} if isinstance(kind.grammar, str) else {"calls": kind.grammar}
        fields |= {"num_predict": self.tokens, "preserved": ["<tool_call>", "</tool_call>"]}
        return Generate(user, PROMPT.format(number), sampling=sampling, **fields)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?", default=DEMO)
    parser.add_argument("--tokens", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--users", type=int, default=1)
    parser.add_argument("--new", action="store_true")
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--only", action="append", choices=KINDS, default=[])
    options = parser.parse_args()
    load = Load(str(options.model), num_ctx=2048, num_parallel=options.users, num_thread=options.threads)
    model = open_model(load, lambda phase, done, total: None)
    bench = Bench.of(model, options)
    kinds = {name: kind for name, kind in KINDS.items() if not options.only or name in ("free", *options.only)}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    for kind in kinds.values():  # compile kernels and grammars
        bench.both(1, kind)
    for turn in range(options.rounds):
        names = [*kinds][turn % len(kinds) :] + [*kinds][: turn % len(kinds)]
        for name in names:
            if options.new:
                bench = Bench.of(model, options)
                bench.both(1, kinds["free"])
            found[name].append(bench.both(2 + turn, kinds[name]))
    print(cpu_name(), "|", " ".join(sys.argv))
    for name, times in found.items():
        low, middle, high = statistics.quantiles([followed / free - 1 for followed, free in times], n=4)
        median = statistics.median(followed for followed, _ in times)
        print(f"{name:18} {median:7.1f} us a token  {middle:+7.1%} ({low:+.1%} to {high:+.1%})")
    model.executor.close()


if __name__ == "__main__":
    main()
