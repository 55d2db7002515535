"""Who may import whom: two worlds, one border, and data flows down."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BORDER = {"runtime.frames", "runtime.gguf_file"}  # all that the text world may take from the token world
TEXT_ONLY = {"aiohttp", "jinja2", "ollama_compat"}
TOKEN_ONLY = {"numpy", "numba", "torch", "tokenizers", "gguf", "llvmlite"}

# from the top down: a module imports only from its own layer or from one below
LAYERS = [
    {"worker", "job"},
    {"pipes", "measure"},
    {"engine"},
    {"scheduler", "sampling", "kv_cache", "grammar"},
    {"execute"},
    {"models"},
    {"layers"},
    {"weights"},
    {"kernels"},
    {"quants", "tokenizer", "config"},
    {"core", "frames", "gguf_file"},
]


def imports(path: Path) -> Iterator[str]:
    """Full names of the modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("path", sources("ollama_compat"), ids=lambda path: str(path.relative_to(ROOT)))
def test_text_world(path: Path) -> None:
    names = set(imports(path))
    assert not {name for name in names if name.split(".")[0] in TOKEN_ONLY}
    runtime = {name for name in names if name.startswith("runtime.")}
    assert not {name for name in runtime if not any(name == b or name.startswith(f"{b}.") for b in BORDER)}


@pytest.mark.parametrize("path", sources("runtime"), ids=lambda path: str(path.relative_to(ROOT)))
def test_token_world(path: Path) -> None:
    assert not {name for name in imports(path) if name.split(".")[0] in TEXT_ONLY}


# what quant types emit with
EMITTERS = tuple(f"runtime.kernels.{name}" for name in ("basics", "emitter", "strips", "x86", "vbmi"))


def layer_of(module: str) -> int | None:
    """Index in LAYERS of `runtime.X...`; None for helpers that belong to one module."""
    if module.startswith(EMITTERS):
        return len(LAYERS) - 1
    part = module.split(".")[1] if module.count(".") else ""
    return next((i for i, layer in enumerate(LAYERS) if part in layer), None)


@pytest.mark.parametrize("path", sources("runtime"), ids=lambda path: str(path.relative_to(ROOT)))
def test_runtime_layers(path: Path) -> None:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    mine = layer_of(module)
    if mine is None or module == "runtime.kernels.probe":
        return
    for name in imports(path):
        other = layer_of(name) if name.startswith("runtime.") else None
        assert other is None or other >= mine, f"{module} imports {name}, which lies above it"


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import ollama_compat.app", ["torch", "numba", "numpy", "tokenizers"]),
        ("import ollama_compat.__main__", ["torch", "numba", "numpy", "aiohttp", "jinja2"]),
        ("import runtime.worker, runtime.execute.cpu", ["torch", "aiohttp", "jinja2"]),
    ],
)
def test_what_a_process_loads(statement: str, absent: list[str]) -> None:
    code = f"{statement}\nimport sys\nprint(*[name for name in {absent} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.split() == []
