"""Checkouts of this project against one another, interleaved: what a change to the kernels is worth.

    git worktree add ../before HEAD~1
    python benchmarks/trees.py MODEL.gguf ../before . [--threads 2] [--prompt 512] [--tokens 64] [--rounds 9]

Each tree runs in a process of its own with its own sources; all stay loaded and take turns, the order alternates. The first tree
is what the others' ratios refer to.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from machine import heading

from ollama_compat.compare.figures import ratio, spread

CHILD = """
import sys
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/benchmarks"]
from pathlib import Path
import generate
prompt, tokens = int(sys.argv[4]), int(sys.argv[5])
ours = generate.Ours(Path(sys.argv[2]), int(sys.argv[3]), max(prompt, tokens))
ours.prefill(64), ours.decode(8)
print("ready", flush=True)
for line in sys.stdin:
    print(ours.prefill(prompt), ours.decode(tokens), flush=True)
"""


class Tree:
    """One checkout, loaded."""

    def __init__(self, path: Path, arguments: argparse.Namespace) -> None:
        self.path = path.resolve()
        sizes = (arguments.threads, arguments.prompt, arguments.tokens)
        command = [sys.executable, "-c", CHILD, str(self.path), str(arguments.model.resolve()), *map(str, sizes)]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=self.path)
        assert self._answer() == "ready", f"{path} did not load the model"
        self.prefill: list[float] = []
        self.decode: list[float] = []

    def turn(self) -> None:
        """Measure once."""
        assert self._child.stdin is not None
        self._child.stdin.write("go\n")
        self._child.stdin.flush()
        prefill, decode = map(float, self._answer().split())
        self.prefill.append(prefill)
        self.decode.append(decode)

    def close(self) -> None:
        """End the process."""
        self._child.communicate()

    def _answer(self) -> str:
        assert self._child.stdout is not None
        return self._child.stdout.readline().strip()


def show(tree: Tree, first: Tree) -> None:
    """Medians, spread, and the ratio to the first tree with its interval."""
    print(tree.path)
    for name in ("prefill", "decode"):
        found, against = spread(getattr(tree, name)), ratio(getattr(tree, name), getattr(first, name))
        text = "" if tree is first else f"  {against.value:.3f}x ({against.low:.3f}-{against.high:.3f})"
        print(f"  {name:8} {found.median:9.1f} ({found.low:.1f}-{found.high:.1f}){text}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("trees", type=Path, nargs="+")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    trees = [Tree(path, arguments) for path in arguments.trees]
    print(heading(), flush=True)
    for number in range(arguments.rounds):
        for tree in trees if number % 2 == 0 else reversed(trees):
            tree.turn()
    for tree in trees:
        tree.close()
        show(tree, trees[0])


if __name__ == "__main__":
    main()
