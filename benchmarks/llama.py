"""llama.cpp beside us: a ready `llama-bench` (and `llama-batched-bench`) on the same file, in turns with our own runs."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from driven import ROUNDS, Model, with_model
from routed import Routed

PROMPTS = (512, 2048, 4096)
TOKENS = 64
USERS = 16
SECONDS = 240  # that one call may take


def places(layers: int, experts: int) -> dict[str, tuple[int, int | None, tuple[int, ...]]]:
    """What is compared: by its name, layers whose experts llama.cpp keeps in RAM, experts of a layer that we hold in VRAM, and
    lengths of prompts. llama.cpp places experts by layers and we by experts, so a half is as many bytes
    for both; ours are chosen evenly there: random routers prefer some, which would be in VRAM more than half of the time."""
    return {"ram": (layers, 0, PROMPTS), "half": (layers // 2, experts // 2, ()), "vram": (0, None, (2048,))}


class LlamaCpp:
    """`threads` CPU threads, flash attention on, everything but experts on the card."""

    def __init__(self, bench: Path, batched: Path | None, model: Path, threads: int) -> None:
        self._bench, self._batched, self._model, self._threads = bench, batched, model, threads

    def speeds(self, cpu_moe: int, prompts: tuple[int, ...]) -> dict[str, float]:
        """Tokens a second: `decode`, and `prefill_N` for each length, of one call. A prompt is one micro-batch."""
        lengths = ["-p", ",".join(map(str, prompts or (0,)))]
        sizes = ["-n", str(TOKENS), "-b", "4096", "-ub", "4096", "-r", "1", "-o", "json"]
        rows = json.loads(_call([self._bench, *self._common(cpu_moe), *lengths, *sizes]))
        return {f"prefill_{row['n_prompt']}" if row["n_prompt"] else "decode": row["avg_ts"] for row in rows}

    def users(self, cpu_moe: int) -> dict[str, float]:
        """All tokens a second of USERS texts, or nothing where there is no llama-batched-bench."""
        if self._batched is None:
            return {}
        sizes = ["-npp", "4", "-ntg", "24", "-npl", str(USERS), "-c", str(USERS * 64), "-b", "2048", "-ub", "512"]
        said = _call([self._batched, *self._common(cpu_moe), *sizes])
        return {f"decode_{USERS}_users": decoded_in_batches(said, USERS)}

    def _common(self, cpu_moe: int) -> list[str]:
        threads = str(self._threads)
        return ["-m", str(self._model), "-t", threads, "-ngl", "99", "-ncmoe", str(cpu_moe), "-fa", "on"]


def decoded_in_batches(said: str, users: int) -> float:
    """S_TG of the row of llama-batched-bench's table with so many texts."""
    for line in said.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) >= 8 and re.fullmatch(r"\d+", cells[2]) and int(cells[2]) == users:
            return float(cells[7])
    raise SystemExit(f"llama-batched-bench printed no row of {users} texts:\n{said[-500:]}")


def in_turns(theirs: LlamaCpp, path: Path, layers: int, experts: int, rounds: int = ROUNDS) -> dict[str, Any]:
    """Medians of both, each round theirs and then ours, with our model loaded all the time."""
    found: dict[str, Any] = {}
    for place, (cpu_moe, resident, prompts) in places(layers, experts).items():

        def both(model: Model, place: str = place, cpu_moe: int = cpu_moe, prompts: tuple[int, ...] = prompts) -> dict[str, Any]:
            calls = [lambda: theirs.speeds(cpu_moe, prompts)]
            even = Routed(model, 0.0, 0.0) if place == "half" else model
            measures: dict[str, Callable[[], float]] = {"decode": even.decode}
            measures |= {f"prefill_{n}": lambda n=n: model.prefill(n) for n in prompts}
            if place == "ram":
                calls.append(lambda: theirs.users(cpu_moe))
                measures[f"decode_{USERS}_users"] = lambda: model.users(USERS)
            return _rounds(calls, measures, rounds)

        found[place] = with_model(path, both, resident=resident)
        print(place, json.dumps(found[place]), flush=True)
    return {"llama": found}


def _rounds(calls: list[Callable[[], dict[str, float]]], measures: dict[str, Callable[[], float]], rounds: int) -> dict[str, Any]:
    theirs: defaultdict[str, list[float]] = defaultdict(list)
    ours: defaultdict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for call in calls:
            for name, value in call().items():
                theirs[name].append(value)
        for name, measure in measures.items():
            ours[name].append(measure())
    return {"llama_cpp": _medians(theirs), "moellama": _medians(ours)}


def _medians(values: dict[str, list[float]]) -> dict[str, float]:
    return {name: round(statistics.median(found), 1) for name, found in values.items()}


def _call(command: list[str | Path]) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=SECONDS)
    if done.returncode:
        raise SystemExit(f"{command[0]} failed with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout
