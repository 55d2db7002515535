"""Records what `transformers` makes of the checkpoints of tests/tiny_hf.py: `python tests/golden/make_hf.py` (needs torch too).

hf.npz has, for every name, the logits of TOKENS (or, of an embedding model, the mean or last of its states).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import tiny_hf

NAMES = ["llama", "llama3", "mistral", "mixtral", "qwen2", "qwen3", "qwen3moe", "qwen3-embedding", "bert", "gemma3", "gpt-oss"]
TOKENS = np.random.default_rng(5).integers(5, 250, 24)


def record(name: str, folder: Path) -> np.ndarray:
    tiny_hf.write(folder, tiny_hf.CHECKPOINTS[name])
    kind = {"bert": transformers.AutoModel, "qwen3-embedding": transformers.AutoModel}.get(
        name, transformers.AutoModelForCausalLM
    )
    model = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval().float()
    with torch.inference_mode():
        out = model(input_ids=torch.tensor(TOKENS[None]))
    if name == "bert":
        return out.last_hidden_state[0].mean(0).numpy()
    return out.last_hidden_state[0, -1].numpy() if name == "qwen3-embedding" else out.logits[0].numpy()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        values = {name: record(name, Path(folder) / name) for name in NAMES}
    np.savez_compressed(Path(__file__).with_name("hf.npz"), tokens=TOKENS, **values)
