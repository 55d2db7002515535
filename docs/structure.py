"""Write the list of files into docs/structure.md: the first line of each module's docstring. `--check` only compares."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/structure.md"
BEGIN, END = "<!-- files -->\n", "<!-- end of files -->"


def listing() -> str:
    """One section a folder, one line a file."""
    lines: list[str] = []
    for package in ("ollama_compat", "runtime"):
        for folder in [ROOT / package, *sorted(path for path in (ROOT / package).rglob("*") if path.is_dir())]:
            files = sorted(folder.glob("*.py"))
            if files:
                lines += ["", f"**{folder.relative_to(ROOT)}/** {about(folder / '__init__.py')}", ""]
                lines += [f"- `{file.name}`: {about(file)}" for file in files if file.name != "__init__.py"]
    return "\n".join(lines).strip() + "\n"


def about(file: Path) -> str:
    """The first paragraph's first sentence of the module docstring, on one line."""
    text = (ast.get_docstring(ast.parse(file.read_text())) if file.exists() else "") or ""
    return " ".join(text.split("\n\n")[0].split())


def page() -> str:
    text = PAGE.read_text()
    head, rest = text.split(BEGIN)
    return head + BEGIN + "\n" + listing() + "\n" + END + rest.split(END)[1]


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(0 if page() == PAGE.read_text() else "docs/structure.md is not up to date: python docs/structure.py")
    PAGE.write_text(page())
