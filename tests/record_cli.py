"""Records what Ollama's own command does: `python tests/record_cli.py OLLAMA > tests/fixtures/ollama/cli.json`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from cli_cases import Case, cases
from fake_ollama import FakeOllama, meaning, without_frames


def record(binary: str, case: Case) -> dict[str, Any]:
    """Status, output and requests of one command line."""
    with FakeOllama(case.replies) as server, tempfile.TemporaryDirectory() as folder:
        lay_out(case, Path(folder))
        environ = {"OLLAMA_HOST": server.host, "HOME": folder, "PATH": os.environ["PATH"]}
        run = subprocess.run([binary, *case.args], input=case.stdin, capture_output=True, cwd=folder, env=environ, check=False)
        told = {
            "status": run.returncode,
            "out": run.stdout.decode(),
            "err": without_frames(run.stderr.decode()),
            "requests": meaning(server.requests),
        }
        return json.loads(json.dumps(told).replace(folder, "FOLDER"))  # type: ignore[no-any-return]


def lay_out(case: Case, folder: Path) -> None:
    """Write the files of a case."""
    for name, data in case.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def main() -> None:
    """Record every case."""
    binary = sys.argv[1]
    version = subprocess.run([binary, "-v"], capture_output=True, text=True, check=True, env={"HOME": "/tmp"}).stdout
    recorded = {case.name: record(binary, case) for case in cases()}
    print(json.dumps({"version": version.strip().split("\n")[-1], "cases": recorded}, ensure_ascii=False, indent=0))


if __name__ == "__main__":
    main()
