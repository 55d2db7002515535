"""How near to llama.cpp: the demo model on the recorded text of tests/golden, beside llama.cpp's distance from itself.

    python benchmarks/accuracy.py [--mixes Q8_0 Q2_K IQ4_XS MXFP4_MOE F32] [--kinds q8_0 q4_0] [--peer] [--threads 2]

KL divergence, how often the best token is the same where llama.cpp is clear, perplexity, and greedy texts that are equal.
`--mixes`: the model quantised once more, to these. `--kinds`: keys and values kept in these types, against f16. `--peer` asks
llama.cpp itself, by the package llama-cpp-python; without it only what is recorded is compared. MOELLAMA_ISA chooses the tier.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from machine import ROOT, heading

sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT / "tests/golden"))

import distance
from stepping import Text, blocks_for, open_model
from tiny_gguf import requantised

from runtime.execute.cpu import CpuExecutor
from runtime.kernels import jit

GOLDEN = ROOT / "tests/golden"
MODEL = ROOT / "ollama_compat/data/demo-moe-Q4_K_M.gguf"
GGML_TYPES = {"f16": 1, "q4_0": 2, "q8_0": 8}
Array = npt.NDArray[Any]


def log_softmax(logits: Array) -> npt.NDArray[np.float64]:
    logits = logits.astype(np.float64)
    logits -= logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def ours(path: Path, golden: dict[str, Array], threads: int, kind: str = "f16") -> npt.NDArray[np.float64]:
    """Our log probabilities on the CPU, (tokens, vocabulary)."""
    executor = open_model(path, threads=threads, rows=512, ctx=512, kind=kind)
    found = forced(executor, golden)
    executor.close()
    return found


def forced(executor: Any, golden: dict[str, Array]) -> npt.NDArray[np.float64]:
    """Log probabilities of an executor, (tokens, vocabulary), each window of the text from an empty cache."""
    tokens, window, parts = golden["tokens"].tolist(), int(golden["window"]), []
    for start in range(0, len(tokens), window):
        text, part = Text(executor, blocks_for(window)), tokens[start : start + window]
        parts += [text.feed(part[at : at + executor.max_outputs]) for at in range(0, len(part), executor.max_outputs)]
    return log_softmax(np.concatenate(parts))


def theirs(path: Path, golden: dict[str, Array], *, flash: bool, kind: str = "f16") -> npt.NDArray[np.float64]:
    """llama.cpp's of the same."""
    import make  # tests/golden/make.py

    kinds = {"type_k": GGML_TYPES[kind], "type_v": GGML_TYPES[kind]}
    return log_softmax(make.evaluate(make.engine(path, flash=flash, **kinds), golden["tokens"].tolist()))


def recorded(path: Path, golden: dict[str, Array]) -> dict[str, Array]:
    """A golden of another file, on the same text."""
    import make

    own: dict[str, Array] = make.summary(golden["tokens"].tolist(), theirs(path, golden, flash=False))
    own["self_kl"], own["self_agreement"] = map(np.array, distance.to_golden(own, theirs(path, golden, flash=True)))
    return own


def perplexity(logprobs: Array, tokens: Array) -> float:
    return float(np.exp(-logprobs[np.arange(len(tokens) - 1), tokens[1:]].mean()))


def compare(name: str, golden: dict[str, Array], logprobs: Array) -> None:
    """A line of the table of models."""
    kl, agreement = distance.to_golden(golden, logprobs)
    ratio = perplexity(logprobs, golden["tokens"]) / np.exp(-golden["target"][:-1].mean())
    print(f"{name:10} {kl:9.2e} {float(golden['self_kl']):9.2e}   {agreement:8.2%} {float(golden['self_agreement']):8.2%}   "
          f"{ratio:.5f}", flush=True)  # fmt: skip


def compare_kinds(golden: dict[str, Array], arguments: argparse.Namespace) -> None:
    """The table of types of keys and values: each implementation beside itself with f16."""
    print("\nkeys, values   KL from f16   perplexity over that of f16    llama.cpp with flash attention: the same")
    exact, tokens = ours(MODEL, golden, arguments.threads), golden["tokens"]
    peer = theirs(MODEL, golden, flash=True) if arguments.peer else None
    for kind in arguments.kinds:
        kept = ours(MODEL, golden, arguments.threads, kind)
        found = [divergence(exact, kept), perplexity(kept, tokens) / perplexity(exact, tokens)]
        if peer is not None:
            kept = theirs(MODEL, golden, flash=True, kind=kind)
            found += [divergence(peer, kept), perplexity(kept, tokens) / perplexity(peer, tokens)]
        print(f"{kind:12} " + "   ".join(f"{kl:.2e} {ratio:.5f}" for kl, ratio in zip(found[::2], found[1::2], strict=True)))


def divergence(p: Array, q: Array) -> float:
    """Mean KL of two whole distributions by token."""
    return float((np.exp(p) * (p - q)).sum(-1).mean())


def greedy(executor: CpuExecutor) -> tuple[int, int, int]:
    """Texts equal to llama.cpp's, texts equal between llama.cpp without and with flash attention, and texts."""
    golden = np.load(GOLDEN / "demo-moe.greedy.npz")
    equal = 0
    prompts = np.split(golden["prompts"], np.cumsum(golden["lengths"])[:-1])
    for prompt, answer in zip(prompts, golden["answers"], strict=True):
        text = Text(executor, blocks_for(256))
        token, same = int(text.feed(prompt.tolist())[-1].argmax()), True
        for expected in answer:
            same = same and token == expected
            token = int(text.feed([int(expected)])[0].argmax())
        equal += same
    return equal, int((golden["answers"] == golden["flash_answers"]).all(1).sum()), len(golden["answers"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--mixes", nargs="*", default=[])
    parser.add_argument("--kinds", nargs="*", default=[])
    parser.add_argument("--peer", action="store_true")
    arguments = parser.parse_args()
    assert arguments.peer or not arguments.mixes, "only Q4_K_M is recorded whole: other mixes need --peer"
    print(f"{heading()}; tier {jit.TIER.name}", flush=True)
    golden = dict(np.load(GOLDEN / "demo-moe.npz"))
    print(f"{len(golden['tokens'])} tokens, windows of {int(golden['window'])}; llama.cpp's own is that of flash attention")
    print("           KL from llama.cpp     same best where clear   perplexity over")
    print("mix        ours      its own     ours     its own        llama.cpp's")
    compare("Q4_K_M", recorded(MODEL, golden) if arguments.peer else golden, ours(MODEL, golden, arguments.threads))
    with tempfile.TemporaryDirectory() as folder:
        for mix in arguments.mixes:
            path = requantised(MODEL, Path(folder) / f"{mix}.gguf", mix)
            compare(mix, recorded(path, golden), ours(path, golden, arguments.threads))
    if arguments.kinds:
        compare_kinds(golden, arguments)
    executor = open_model(MODEL, threads=arguments.threads, rows=512, ctx=512)
    equal, flash, texts = greedy(executor)
    print(f"\ngreedy texts equal to llama.cpp's {equal} of {texts}; llama.cpp with itself {flash} of {texts}")
    executor.close()


if __name__ == "__main__":
    main()
