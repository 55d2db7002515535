"""What following a grammar costs: decode speed with and without, in turns, in the engine that serves requests.

    python benchmarks/grammar.py [MODEL.gguf] [--tokens 150] [--rounds 9] [--temperature 0.8] [--threads 0] [--users 1]

Each round answers freely and by every grammar, in an order that rotates. Printed are medians: of the microseconds that a stream's
token takes, and of the ratios to the free text of the same round, with the middle half of these. All answers begin with the same
prompt and have the same length; with several users all of them follow the grammar at the same time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from generate import cpu_name

from runtime.engine import Engine, Job
from runtime.frames import CallForm, Done, Generate, Load, Sampling
from runtime.loader import open_model

DEMO = Path(__file__).resolve().parents[1] / "ollama_compat/data/demo-moe-Q4_K_M.gguf"
PROMPT = "<|im_start|>user\nTell me a story about a boat.<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 3},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "minItems": 2, "maxItems": 5},
        "home": {"anyOf": [{"type": "null"}, {"type": "string", "pattern": "^[A-Z][a-z]{2,20}$"}]},
    },
    "required": ["name", "age", "tags", "home"],
}
STORY = {"type": "object", "properties": {"story": {"type": "string"}}, "required": ["story"]}
TOOL = {"name": "tell", "parameters": STORY, "strict": True}
GRAMMARS: dict[str, str | CallForm] = {
    "free": "",
    "strings": json.dumps({"type": "array", "items": {"type": "string"}}),
    "objects": json.dumps({"type": "array", "items": PERSON}),
    "gbnf sentences": 'root ::= ([A-Z] [a-zA-Z]* ([ ,]+ [a-zA-Z]+)* [.!?] " ")+ "@@@@"',
    "strict tool, text": CallForm([TOOL], "<tool_call>", "</tool_call>", forced=False, several=True),
}


def answer(engine: Engine, number: int, grammar: str | CallForm, tokens: int, temperature: float, users: int = 1) -> float:
    """Microseconds a token of one of the users' streams, from the first one on."""
    fields = {"grammar": grammar} if isinstance(grammar, str) else {"calls": grammar}
    for user in range(users):
        sampling = Sampling(temperature=temperature, seed=number + 1000 * user, logit_bias=[(token, -1e30) for token in ENDS])
        request = Generate(user, PROMPT, sampling=sampling, num_predict=tokens, preserved=["<tool_call>"], **fields)
        job = engine.prepare(request)
        assert isinstance(job, Job), job
        engine.submit(job)
    done: list[Done] = []
    while engine.busy:
        done += [reply for reply in engine.step() if isinstance(reply, Done)]
    assert all(reply.eval_tokens == tokens for reply in done), f"the answers ended after {[reply.eval_tokens for reply in done]}"
    return statistics.fmean(reply.eval_ns / (tokens - 1) / 1000 for reply in done)


ENDS: list[int] = []  # tokens that would end an answer or an array: they are forbidden, so that all are equally long


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?", default=DEMO)
    parser.add_argument("--tokens", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--users", type=int, default=1)
    options = parser.parse_args()
    load = Load(str(options.model), num_ctx=2048, num_parallel=options.users, num_thread=options.threads)
    model = open_model(load, lambda phase, done, total: None)
    texts = map(model.tokenizer.token_bytes, range(model.tokenizer.n_vocab))
    ENDS.extend(token for token, text in enumerate(texts) if b"]" in text or token in model.tokenizer.eog_ids)
    engine = model.engine(2048)
    assert isinstance(engine, Engine)
    found: dict[str, list[float]] = {name: [] for name in GRAMMARS}
    for grammar in GRAMMARS.values():  # compile kernels and grammars
        answer(engine, 1, grammar, 20, options.temperature, options.users)
    for turn in range(options.rounds):
        names = [*GRAMMARS][turn % len(GRAMMARS) :] + [*GRAMMARS][: turn % len(GRAMMARS)]
        for name in names:
            found[name].append(answer(engine, 2 + turn, GRAMMARS[name], options.tokens, options.temperature, options.users))
    print(cpu_name(), "|", " ".join(sys.argv))
    for name, times in found.items():
        costs = [time / free - 1 for time, free in zip(times, found["free"], strict=True)]
        low, middle, high = statistics.quantiles(costs, n=4)
        print(f"{name:18} {statistics.median(times):7.1f} us a token  {middle:+7.1%} ({low:+.1%} to {high:+.1%})")
    model.executor.close()


if __name__ == "__main__":
    main()
