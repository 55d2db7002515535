"""Make the goldens from llama.cpp: python tests/golden/make.py [NAME...]

Needs the package llama-cpp-python (0.3.36 was used: llama.cpp of September 2026, native build) beside numpy and gguf.
Writes, for each model below, NAME.npz with
    tokens   (n,) int32          the text, evaluated in windows of `window` tokens
    logits   (n, vocab) float32  small models only
    lengths, scores              of models that rank: tokens of each text, and llama.cpp's number for it
    lengths, vectors             of embedding models: tokens of each text, and llama.cpp's vector of it
    ids      (n, 16) int16       the 16 most likely next tokens
    logprobs (n, 16) float32     and their log probabilities
    target   (n,) float32        the log probability of the token that follows
    self_kl, self_agreement      how far llama.cpp with flash attention is from llama.cpp without, on the same text
demo-moe-MIX.npz is of the demo model in other types, on the beginning of its text.
And demo-moe.greedy.npz: prompts, 64 greedy tokens each, without and with flash attention, and the gap in nats between
llama.cpp's two best at each step.
"""

from __future__ import annotations

import lzma
import sys
import tempfile
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
import distance  # noqa: E402
import tiny_gguf  # noqa: E402

DEMO = HERE.parents[1] / "ollama_compat/data/demo-moe-Q4_K_M.gguf"
WINDOW = 512
MIXES = {"Q8_0": 1024, "Q2_K": 1024, "IQ4_XS": 1024, "MXFP4_MOE": 1024, "F32": 5120}  # and how many tokens
TEXTS = ["a", "Why is the sky blue?", "the sky is the sky, " * 12, "w1 w2 w3 looking"]
GREEDY = [
    "Tell me a short story about a fox and a lantern.",
    "What is the capital of France?",
    "What is 12 plus 30?",
    "Write a story about a little boat.",
    "Who are you?",
    "Say hello to my friend Anna.",
    "What colour is the sky?",
    "Once upon a time there was a girl called Lily. What did she find?",
    "Name three animals.",
    "How many days are in a week?",
    "Tell me about the sea.",
    "What is 7 times 8?",
    "A dog and a cat are friends. Tell their story.",
    "Why do birds sing?",
    "What should I eat for breakfast?",
    "Write one sentence about the moon.",
    "What is the opposite of hot?",
    "Tell me a joke.",
    "Can you help me plan a picnic?",
    "Describe a rainy day.",
]


def engine(path: Path, *, flash: bool = False, **options: Any) -> llama_cpp.Llama:
    options |= {"n_threads": 2, "n_threads_batch": 2}
    return llama_cpp.Llama(str(path), n_ctx=2048, n_batch=512, logits_all=True, flash_attn=flash, verbose=False, **options)


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def evaluate(llm: llama_cpp.Llama, tokens: list[int]) -> np.ndarray:
    """Logits (n, vocab), the text cut into windows that know nothing of each other."""
    out = []
    for start in range(0, len(tokens), WINDOW):
        part = tokens[start : start + WINDOW]
        llm.reset()
        llm.eval(part)
        out.append(np.array(llm.scores[: len(part)], np.float32))
    return np.concatenate(out)


def summary(tokens: list[int], logits: np.ndarray) -> dict[str, np.ndarray]:
    logprobs = log_softmax(logits)
    ids = np.argsort(-logprobs, axis=1, kind="stable")[:, :16]
    following = np.array([*tokens[1:], 0])
    return {
        "tokens": np.array(tokens, np.int32),
        "ids": ids.astype(np.int16),
        "logprobs": np.take_along_axis(logprobs, ids, 1).astype(np.float32),
        "target": logprobs[np.arange(len(tokens)), following].astype(np.float32),
        "window": np.array(WINDOW),
    }


def tiny(name: str) -> None:
    """Architectures with random weights: all logits."""
    architecture, _, kind = name.removeprefix("tiny-").rpartition("-")
    shape = tiny_gguf.variant(architecture, kind)
    with tempfile.TemporaryDirectory() as folder:
        llm = engine(tiny_gguf.write(Path(folder) / "model.gguf", shape))
        tokens = np.random.default_rng(1).integers(0, shape.vocab - 1, 48).tolist()
        np.savez_compressed(HERE / f"{name}.npz", tokens=np.array(tokens, np.int32), logits=evaluate(llm, tokens))


def adapted(name: str) -> None:
    """The same with a LoRA adapter."""
    architecture = name.removeprefix("lora-")
    shape = tiny_gguf.variant(architecture, "F32")
    with tempfile.TemporaryDirectory() as folder:
        path = tiny_gguf.write(Path(folder) / "model.gguf", shape)
        adapter = tiny_gguf.write_adapter(Path(folder) / "adapter.gguf", shape, tiny_gguf.ADAPTED[architecture])
        llm = engine(path, lora_path=str(adapter))
        tokens = np.random.default_rng(1).integers(0, shape.vocab - 1, 48).tolist()
        np.savez_compressed(HERE / f"{name}.npz", tokens=np.array(tokens, np.int32), logits=evaluate(llm, tokens))


def vectors(name: str) -> None:
    """Embedding models with random weights: the texts' tokens, one after the other, and their vectors as they come."""
    architecture, _, kind = name.removeprefix("tiny-").rpartition("-")
    shape = tiny_gguf.variant(architecture, kind)
    with tempfile.TemporaryDirectory() as folder:
        path = tiny_gguf.write(Path(folder) / "model.gguf", shape)
        llm = llama_cpp.Llama(str(path), n_ctx=512, n_batch=512, n_ubatch=512, embedding=True, verbose=False, n_threads=2)
        texts = [llm.tokenize(text.encode()) for text in TEXTS]
        arrays = {
            "tokens": np.array([token for text in texts for token in text], np.int32),
            "lengths": np.array([len(text) for text in texts], np.int32),
            "vectors": np.array([llm.embed(text) for text in TEXTS], np.float32),
        }
        np.savez_compressed(HERE / f"{name}.npz", **arrays)


def ranks(name: str) -> None:
    """Models that rank, with random weights: the texts' tokens, and the number that llama.cpp gives each."""
    architecture, _, kind = name.removeprefix("tiny-").rpartition("-")
    with tempfile.TemporaryDirectory() as folder:
        path = tiny_gguf.write(Path(folder) / "model.gguf", tiny_gguf.variant(architecture, kind))
        options = {"pooling_type": llama_cpp.LLAMA_POOLING_TYPE_RANK, "embedding": True, "n_threads": 2}
        llm = llama_cpp.Llama(str(path), n_ctx=512, n_batch=512, n_ubatch=512, verbose=False, **options)
        texts = [llm.tokenize(text.encode()) for text in TEXTS]
        arrays = {
            "tokens": np.array([token for text in texts for token in text], np.int32),
            "lengths": np.array([len(text) for text in texts], np.int32),
            "scores": np.array([llm.embed(text)[0] for text in TEXTS], np.float32),
        }
        np.savez_compressed(HERE / f"{name}.npz", **arrays)


def demo() -> None:
    llm = engine(DEMO)
    with lzma.open(HERE / "text.txt.xz", "rt") as file:
        text = file.read()
    tokens = llm.tokenize(text.encode(), add_bos=False, special=True)
    golden = summary(tokens, evaluate(llm, tokens))
    flash = engine(DEMO, flash=True)
    kl, agreement = distance.to_golden(golden, log_softmax(evaluate(flash, tokens)))
    np.savez_compressed(HERE / "demo-moe.npz", self_kl=kl, self_agreement=agreement, **golden)
    template = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    prompts = [llm.tokenize(template.format(question).encode(), add_bos=False, special=True) for question in GREEDY]
    texts = [greedy(llm, prompt) for prompt in prompts]
    arrays = {
        "prompts": np.array([t for p in prompts for t in p], np.int32),
        "lengths": np.array([len(p) for p in prompts], np.int32),
        "answers": np.array([answer for answer, _ in texts], np.int32),
        "gaps": np.array([gap for _, gap in texts], np.float32),
        "flash_answers": np.array([greedy(flash, prompt)[0] for prompt in prompts], np.int32),
    }
    np.savez_compressed(HERE / "demo-moe.greedy.npz", **arrays)


def mixed(mix: str) -> None:
    tokens = np.load(HERE / "demo-moe.npz")["tokens"][: MIXES[mix]].tolist()
    with tempfile.TemporaryDirectory() as folder:
        path = tiny_gguf.requantised(DEMO, Path(folder) / "model.gguf", mix)
        golden = summary(tokens, evaluate(engine(path), tokens))
        kl, agreement = distance.to_golden(golden, log_softmax(evaluate(engine(path, flash=True), tokens)))
        np.savez_compressed(HERE / f"demo-moe-{mix}.npz", self_kl=kl, self_agreement=agreement, **golden)


def greedy(llm: llama_cpp.Llama, prompt: list[int]) -> tuple[list[int], list[float]]:
    """64 greedy tokens, and how far the best led at each."""
    llm.reset()
    llm.eval(prompt)
    answer, gap = [], []
    for _ in range(64):
        logprobs = log_softmax(np.array(llm.scores[llm.n_tokens - 1]))
        first, second = np.argsort(-logprobs)[:2]
        answer.append(int(first))
        gap.append(float(logprobs[first] - logprobs[second]))
        llm.eval([int(first)])
    return answer, gap


def main(names: list[str]) -> None:
    for architecture in tiny_gguf.ARCHITECTURES:
        for kind in tiny_gguf.kinds(architecture):
            name = f"tiny-{architecture}-{kind}"
            if not names or name in names:
                tiny(name)
    for architecture in tiny_gguf.ADAPTED:
        if not names or f"lora-{architecture}" in names:
            adapted(f"lora-{architecture}")
    for architecture in tiny_gguf.ENCODERS:
        for kind in ("F32", "F16"):
            name = f"tiny-{architecture}-{kind}"
            if not names or name in names:
                vectors(name)
    for architecture in tiny_gguf.RANKERS:
        name = f"tiny-{architecture}-F32"
        if not names or name in names:
            ranks(name)
    if not names or "demo-moe" in names:
        demo()
    for mix in MIXES:
        if not names or f"demo-moe-{mix}" in names:
            mixed(mix)


if __name__ == "__main__":
    main(sys.argv[1:])
