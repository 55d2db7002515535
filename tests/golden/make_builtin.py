#!/usr/bin/env python3
"""Writes ollama_renderers.json.xz and ollama_parsers.json.xz: what Ollama's built-in code makes of builtin_cases.json.

python tests/golden/make_builtin.py path/to/builtin.out   (built as ollama_builtin/main.go says)
"""

from __future__ import annotations

import json
import lzma
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RENDERERS = [
    *(
        "cogito",
        "cohere",
        "deepseek3.1",
        "functiongemma",
        "gemma4",
        "gemma4-large",
        "gemma4-small",
        "glimmer",
        "glm-4.7",
        "glm-ocr",
    ),
    *("laguna", "lfm2", "lfm2-thinking", "nemotron-3-nano", "nemotron-3.5-nano", "olmo3", "olmo3-32b-think", "olmo3-think"),
    *("olmo3.1", "ornith", "poolside-v1", "qwen3-coder", "qwen3-vl-instruct", "qwen3-vl-thinking", "qwen3.5", "qwen3.8"),
]


def ask(program: str, cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    lines = "".join(json.dumps(case) + "\n" for case in cases)
    done = subprocess.run([program], input=lines, capture_output=True, encoding="utf-8", check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def write(name: str, golden: Any) -> None:
    (HERE / name).write_bytes(lzma.compress(json.dumps(golden, ensure_ascii=False).encode(), preset=9))


def main() -> None:
    program, cases = sys.argv[1], json.loads((HERE / "builtin_cases.json").read_text())
    asked = [{"renderer": renderer, **conversation} for renderer in RENDERERS for conversation in cases["conversations"]]
    write("ollama_renderers.json.xz", [case | answer for case, answer in zip(asked, ask(program, asked), strict=True)])
    answers = [
        {"parser": parser, "text": text, "think": think}
        for parser, texts in cases["answers"].items()
        for text in texts
        for think in (None, True, False)
    ] + cases["continued"]
    tables = json.loads(lzma.decompress((HERE / "ollama_tables.json.xz").read_bytes()))
    answers += [{"parser": parser, "text": text, "think": None} for parser, texts in tables.items() for text in texts]
    asked = [{**case, "tools": cases["tools"], "pieces": [case["text"]]} for case in answers]
    write("ollama_parsers.json.xz", [case | answer for case, answer in zip(answers, ask(program, asked), strict=True)])


if __name__ == "__main__":
    main()
