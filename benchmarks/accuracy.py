"""How near to llama.cpp: the demo model on the recorded text of tests/golden, beside llama.cpp's distance from itself.

    python benchmarks/accuracy.py [--threads 2]

KL divergence, how often the best token is the same where llama.cpp is clear, perplexity, and greedy texts that are equal.
MOELLAMA_ISA chooses the tier.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
import numpy.typing as npt
from machine import ROOT, heading

sys.path.insert(0, str(ROOT / "tests"))

import distance
from stepping import Text, blocks_for, open_model

from runtime.execute.cpu import CpuExecutor
from runtime.kernels import jit

GOLDEN = ROOT / "tests/golden"
MODEL = ROOT / "ollama_compat/data/demo-moe-Q4_K_M.gguf"


def log_probabilities(executor: CpuExecutor, tokens: list[int], window: int) -> npt.NDArray[np.float64]:
    """(tokens, vocabulary), each window of the text from an empty cache."""
    parts = []
    for start in range(0, len(tokens), window):
        text, part = Text(executor, blocks_for(window)), tokens[start : start + window]
        parts += [text.feed(part[at : at + executor.max_outputs]) for at in range(0, len(part), executor.max_outputs)]
    logits = np.concatenate(parts).astype(np.float64)
    logits -= logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


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
    arguments = parser.parse_args()
    print(f"{heading()}; tier {jit.TIER.name}", flush=True)
    golden = dict(np.load(GOLDEN / "demo-moe.npz"))
    tokens = golden["tokens"]
    executor = open_model(MODEL, threads=arguments.threads, rows=512, ctx=512)
    ours = log_probabilities(executor, tokens.tolist(), int(golden["window"]))
    kl, agreement = distance.to_golden(golden, ours)
    chosen = ours[np.arange(len(tokens) - 1), tokens[1:]].mean()
    print(f"{len(tokens)} tokens of {MODEL.name}, windows of {int(golden['window'])}")
    print(f"mean KL from llama.cpp {kl:.2e}; llama.cpp with flash attention from without {float(golden['self_kl']):.2e}")
    print(f"same best token where clear {agreement:.2%}; llama.cpp with itself {float(golden['self_agreement']):.2%}")
    print(f"perplexity over llama.cpp's {np.exp(golden['target'][:-1].mean() - chosen):.5f}")
    equal, flash, texts = greedy(executor)
    print(f"greedy texts equal to llama.cpp's {equal} of {texts}; llama.cpp with itself {flash} of {texts}")
    executor.close()


if __name__ == "__main__":
    main()
