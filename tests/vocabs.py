"""The vocabularies under tests/fixtures, and what tests of tokenizers read them with."""

from __future__ import annotations

import lzma
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from runtime.gguf_file import open_gguf
from runtime.tokenizer import Tokenizer

VOCABS = Path(__file__).parent / "fixtures/vocabs"
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)

Metadata = dict[str, Any]


@cache
def committed(name: str) -> Metadata:
    """Metadata of a vocabulary under tests/fixtures, unpacked beside no file that the tests would leave behind."""
    with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
        file.write(lzma.decompress((VOCABS / f"{name}.gguf.xz").read_bytes()))
        file.flush()
        with open_gguf(file.name) as opened:
            return {key: opened.metadata[key] for key in opened.metadata}


def texts(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    return [tokenizer.token_text(token) for token in ids]
