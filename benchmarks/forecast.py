"""What `moellama doctor` predicts beside what `moellama bench` measures right after it: `python benchmarks/forecast.py MODEL...`.

Each model by itself: the machine is measured anew for it, as a user would; `--turns 3`: doctor and bench in turns, and medians of
both, since a host changes what a virtual machine has from one second to the next. `--threads 1 0`: on one thread, and on as many
as a server takes. `--places cpu card vram=4 layers=8 cpu_moe=99`: on the CPU, as a server would place it, with so many GiB of the
card, with so many layers on the card, with the experts of so many layers in RAM. `--json FILE` keeps what was measured, so that a
change of the arithmetic can be tried without measuring again: `--again FILE` predicts from there.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from machine import ROOT, heading

from ollama_compat.cli import model_file
from ollama_compat.doctor import shape
from ollama_compat.doctor.places import Place, Speeds
from ollama_compat.doctor.shape import Shape
from ollama_compat.doctor.system import System
from runtime.frames import CALM, Load
from runtime.measure import card_plan

FAR = 0.2  # a prediction that is further off is marked
CHANGED = 0.2  # where memory is read faster or slower by this part than doctor read it, a row says so
GIB = 1 << 30
CARD = {"vram": 0, "layers": -1, "cpu_moe": 0}  # what a place may say, and what a server takes otherwise


def moellama(*words: str, **environ: str) -> dict[str, Any]:
    """What a command says in JSON."""
    command = [sys.executable, "-m", "ollama_compat", *words, "--json"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | environ, capture_output=True, check=False)
    if not done.stdout:
        raise SystemExit(done.stderr.decode())
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def asked(place: str) -> dict[str, int]:
    """By the names of CARD; layers 0 is the CPU alone."""
    name, _, value = place.partition("=")
    return CARD | ({"layers": 0} if name == "cpu" else {} if name == "card" else {name: int(value)})


def measured(name: str, path: Path, options: argparse.Namespace, told: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The model on the machine of which doctor told, with one more of the places where it is asked for each time."""
    lists = {"-p": options.prompts, "-n": [options.tokens], "-d": options.depths}
    lists |= {"--parallel": options.parallel, "-t": options.threads}
    words = [word for flag, values in lists.items() for word in (flag, ",".join(map(str, values)))]
    benches = {}
    for place in options.places:
        found = asked(place)
        flags = ["--n-gpu-layers", str(found["layers"])] if found["layers"] >= 0 else []
        flags += ["--n-cpu-moe", str(found["cpu_moe"])]
        environ = {"MOELLAMA_VRAM": str(found["vram"] * GIB)} if found["vram"] else {}
        benches[place] = moellama("bench", str(path), *words, "-r", str(options.rounds), *flags, **environ)
        print(f"measured {name}, {place}: {benches[place]['runs'][0]['placement']}", file=sys.stderr, flush=True)
        yield {"name": name, "path": str(path), "doctor": told, "benches": benches}


def placed(of: Shape, machine: dict[str, Any], speeds: Speeds, place: str, tests: list[dict[str, Any]]) -> Place:
    """Where a server puts it that is asked for such texts."""
    found = asked(place)
    if not found["layers"] or not machine["gpu"]:
        return speeds.place(of, None)
    free = machine["gpu"]["memory_free"]
    longest = max(test["n_prompt"] + test["n_gen"] + test["n_depth"] for test in tests)
    texts = {"num_ctx": longest, "num_parallel": max(test["n_seq"] for test in tests), "num_batch": 0}
    request = Load("", num_gpu=found["layers"], num_cpu_moe=found["cpu_moe"], **texts)
    return speeds.place(of, card_plan.placed(of.numbers, min(free, found["vram"] * GIB or free), request))


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """Tokens a second; `others`: cores that other programs had, of doctor's and bench's time the worse; `memory`: how fast bench
    read it, over how fast doctor did."""

    where: str
    test: str
    predicted: float
    measured: float
    others: float
    memory: float


def rows(entry: dict[str, Any], of: Shape) -> Iterator[Row]:
    """Of one turn."""
    machine = entry["doctor"]["machine"]
    system = entry["doctor"]["system"]
    speeds = Speeds(System(**system | {"memory_available": system["memory_available"] or math.inf}), machine)
    for name, bench in entry["benches"].items():
        place = placed(of, machine, speeds, name, bench["tests"])
        runs = {run["n_threads"]: run for run in bench["runs"]}
        for test in bench["tests"]:
            threads = test["n_threads"]
            words = f"{place.words}, {threads} thread{'s' * (threads > 1)}"
            told, speed = predicted(of, place, speeds, test)
            others = max(runs[threads].get("others") or 0.0, machine.get("others") or 0.0)
            far = of.bytes_a_token > system["cache_bytes"]  # else bench reads from a cache
            memory = test["read_bytes_per_second"] / machine["read_all" if threads > 1 else "read_one"] if far else 1.0
            yield Row(words, told, speed, statistics.median(test["samples_ts"]), others, memory)


def predicted(of: Shape, place: Place, speeds: Speeds, test: dict[str, Any]) -> tuple[str, float]:
    """The test's name, and tokens a second."""
    threads, texts, tokens = test["n_threads"], test["n_seq"], test["n_prompt"]
    middle = test["n_depth"] + test["n_gen"] // 2
    if place.on_card:
        found = speeds.predict(of, place, middle, tokens or 512)
        speed = (found.prompt if tokens else found.decode if texts == 1 else None) or math.nan
    elif tokens:
        speed = tokens / speeds.cpu.prompt_seconds(of, tokens, threads)
    else:
        speed = texts / speeds.cpu.decode_seconds(of, middle, texts=texts, threads=threads)
    after = f", behind {test['n_depth']}" if test["n_depth"] else ""
    return f"prompt of {tokens}" if tokens else f"decode, {texts} texts{after}" if texts > 1 else f"decode{after}", speed


def table(entries: list[dict[str, Any]]) -> Iterator[str]:
    """In Markdown; medians over turns."""
    yield "| model | where | test | predicted | measured | |"
    yield "|---|---|---|---|---|---|"
    for path, name in {entry["path"]: entry["name"] for entry in entries}.items():
        of = shape.of_file(Path(path), name)
        turns: dict[tuple[str, str], list[Row]] = {}
        for entry in entries:
            for row in rows(entry, of) if entry["path"] == path else ():
                turns.setdefault((row.where, row.test), []).append(row)
        yield from (line(of.name, several) for several in turns.values())


def line(name: str, several: list[Row]) -> str:
    """A row of the table."""
    told, found = (statistics.median(values) for values in zip(*((row.predicted, row.measured) for row in several), strict=True))
    others, memory = (statistics.median(values) for values in zip(*((row.others, row.memory) for row in several), strict=True))
    ratio, beside = told / found, f", others had {others:.1f} cores" if others > CALM else ""
    beside += f", memory at {memory:.2f}" if abs(memory - 1) > CHANGED else ""
    far = " !" if abs(ratio - 1) > FAR else ""
    return f"| {name} | {several[0].where} | {several[0].test} | {told:.4g} | {found:.4g} | {ratio:.2f}{far}{beside} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="names, or paths of GGUF files")
    parser.add_argument("--places", nargs="+", default=["cpu"])
    parser.add_argument("--prompts", nargs="+", type=int, default=[64, 512, 2048])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--depths", nargs="+", type=int, default=[0], help="tokens of the text before an answer")
    parser.add_argument("--parallel", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 0])
    parser.add_argument("--once", action="store_true", help="measure the machine for the first model alone: types are the same")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--again", type=Path, nargs="+")
    options = parser.parse_args()
    if options.again:
        entries = [entry for path in options.again for entry in json.loads(path.read_text())]
    else:
        print(heading())
        told = moellama("doctor", options.models[0]) if options.once else {}
        entries = []
        for file in [model_file.find(model) for model in options.models for _ in range(options.turns)]:
            name, path = file.name.removesuffix(".gguf"), file.path
            entries.append({})
            for entry in measured(name, path, options, told or moellama("doctor", str(path))):
                entries[-1] = entry
                if options.json:  # whatever ends this, what was measured is there
                    options.json.write_text(json.dumps(entries))
    print("\n".join(table(entries)))


if __name__ == "__main__":
    main()
