"""What `moellama doctor` predicts beside what `moellama bench` measures right after it: `python benchmarks/forecast.py MODEL...`.

Each model by itself: the machine is measured anew for it, as a user would. --threads 1 0: on one thread, and on as many as a
server takes. --json FILE keeps what was measured, so that a change of the arithmetic can be tried without measuring again:
`--again FILE` predicts from there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from machine import ROOT, heading

from ollama_compat.doctor import shape
from ollama_compat.doctor.predict import Predictor
from ollama_compat.doctor.shape import Shape

FAR = 0.2  # a prediction that is further off is marked


def moellama(*words: str) -> dict[str, Any]:
    """What a command says in JSON."""
    done = subprocess.run([sys.executable, "-m", "ollama_compat", *words, "--json"], cwd=ROOT, capture_output=True, check=False)
    if not done.stdout:
        raise SystemExit(done.stderr.decode())
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measured(path: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The machine, then the model on it."""
    told = moellama("doctor", str(path))
    lists = {"-p": options.prompts, "-n": [options.tokens], "--parallel": options.parallel, "-t": options.threads}
    words = [word for flag, values in lists.items() for word in (flag, ",".join(map(str, values)))]
    words += ["-r", str(options.rounds), "--n-gpu-layers", "0"]
    return {"path": str(path), "doctor": told, "bench": moellama("bench", str(path), *words)}


def rows(entry: dict[str, Any], of: Shape) -> Iterator[tuple[str, int, str, float, float]]:
    """Model, threads, test, tokens a second as predicted and as measured."""
    told = entry["doctor"]
    predictor = Predictor(told["machine"], told["system"]["cache_bytes"])
    for test in entry["bench"]["tests"]:
        threads = test["n_threads"]
        if test["n_prompt"]:
            name = f"prompt of {test['n_prompt']}"
            seconds = predictor.prompt_seconds(of, test["n_prompt"], threads) / test["n_prompt"]
        else:
            middle, texts = test["n_depth"] + test["n_gen"] // 2, test["n_seq"]
            name = f"decode, {texts} texts" if texts > 1 else "decode"
            seconds = predictor.decode_seconds(of, middle, threads=threads, texts=texts) / texts
        yield of.name, threads, name, 1 / seconds, statistics.median(test["samples_ts"])


def table(entries: list[dict[str, Any]]) -> Iterator[str]:
    """In Markdown."""
    yield "| model | threads | | predicted | measured | |"
    yield "|---|---|---|---|---|---|"
    for entry in entries:
        of = shape.of_file(Path(entry["path"]), Path(entry["path"]).stem)
        for model, threads, test, predicted, found in rows(entry, of):
            ratio = predicted / found
            far = " !" if abs(ratio - 1) > FAR else ""
            yield f"| {model} | {threads} | {test} | {predicted:.4g} | {found:.4g} | {ratio:.2f}{far} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--prompts", nargs="+", type=int, default=[64, 512, 2048])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--parallel", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--again", type=Path, nargs="+")
    options = parser.parse_args()
    if options.again:
        entries = [entry for path in options.again for entry in json.loads(path.read_text())]
    else:
        print(heading())
        entries = [measured(path, options) for path in options.models]
    if options.json:
        options.json.write_text(json.dumps(entries))
    print("\n".join(table(entries)))


if __name__ == "__main__":
    main()
