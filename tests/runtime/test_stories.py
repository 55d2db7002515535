"""stories260K (karpathy/tinyllamas, MIT) writes the story that llama2.c's own test expects."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from stepping import Text, blocks_for

from runtime.execute.cpu import CpuExecutor
from runtime.gguf_file import open_gguf
from runtime.tokenizer import Tokenizer

MODEL = Path(__file__).resolve().parents[1] / "fixtures/stories260Ktok512.gguf"
STORY = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, "
    "red ball. She wanted to play with it, but it was too high.\nLily's mom said, \"Lily, let's go to the park.\" Lily was sad "
    "and didn't know what to do."
)


def test_karpathys_story(executors: Callable[..., CpuExecutor]) -> None:
    with open_gguf(MODEL) as file:
        tokenizer = Tokenizer.from_gguf(file.metadata)
    text = Text(executors(MODEL, ctx=128), blocks_for(128))
    tokens = tokenizer.encode("")
    assert tokens == [tokenizer.bos_id]
    for _ in range(120):
        tokens.append(int(text.feed(tokens[-1:])[0].argmax()))
    assert tokenizer.decode(tokens[1:]).strip().startswith(STORY)
