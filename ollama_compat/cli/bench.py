"""bench: how fast a model reads prompts and writes tokens on this machine, by the runtime itself, without a server."""

from __future__ import annotations

import json
import math
import platform
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ollama_compat import memory
from ollama_compat.cli import human, model_file, work
from ollama_compat.cli.command import Call
from ollama_compat.cli.errors import CommandError
from ollama_compat.cli.flags import Parsed
from ollama_compat.cli.model_file import ModelFile
from ollama_compat.cli.others import beside
from ollama_compat.doctor import system
from ollama_compat.settings import VERSION
from ollama_compat.store.header import ModelHeader

DEFAULTS = {"n-prompt": "512", "n-gen": "128", "n-depth": "0", "parallel": "1,4", "threads": "0", "repetitions": "5"}
PLACES = {"n-gpu-layers": "num_gpu", "n-cpu-moe": "num_cpu_moe"}  # flags of single numbers, and what jobs call them
SINGLE = {"repetitions", *PLACES}
COLUMNS = ("model", "size", "params", "backend", "threads", "test", "t/s", "spread", "GB/s", "of limit")
LEAST, LARGEST = {"parallel": 1, "repetitions": 1}, 1 << 20


def bench(call: Call) -> None:
    """`bench MODEL`."""
    file = model_file.find(call.words[0])
    header = model_file.header(file)
    numbers = {name: _numbers(call.flags, name) for name in DEFAULTS}
    if not any((*numbers["n-prompt"], *numbers["n-gen"])):
        raise CommandError("there is nothing to measure: all of --n-prompt and --n-gen are 0")
    _check(file, header, numbers)
    arguments = {
        "path": str(file.path),
        "prompts": numbers["n-prompt"],
        "gens": numbers["n-gen"],
        "depths": numbers["n-depth"],
        "batches": numbers["parallel"],
        "threads": numbers["threads"],
        "repetitions": numbers["repetitions"][0],
        "memory": int(free) if math.isfinite(free := memory.available()) else 0,
        **model_file.loading(),
        **{name: _numbers(call.flags, flag)[0] for flag, name in PLACES.items() if call.flags.text(flag)},
    }
    result = work.run("bench", arguments)
    rows = [row for run in result["runs"] for row in _rows(file, header, run)]
    if call.flags.on("json"):
        print(json.dumps(_document(result, rows)))
    else:
        print(_text(result, rows), end="")


def _check(file: ModelFile, header: ModelHeader, numbers: Mapping[str, Sequence[int]]) -> None:
    """What would be found only after the weights have been read."""
    if header.has("pooling_type"):
        raise CommandError(f"{file.name} makes vectors and no text, and bench measures how fast text is read and written")
    answers = [n + depth for n in numbers["n-gen"] if n for depth in numbers["n-depth"]]
    longest, context = max([*numbers["n-prompt"], *answers]), header.count("context_length")
    if context and longest > context:
        raise CommandError(f"{longest} tokens are longer than this model's context of {context}")


def _numbers(flags: Parsed, name: str) -> list[int]:
    """A list as llama-bench takes it: `512` or `512,2048`; of some flags one number."""
    text = flags.text(name) or DEFAULTS.get(name, "")
    single, least = name in SINGLE, LEAST.get(name, 0)
    parts = [text] if single else text.split(",")
    if not all(part.isascii() and part.isdigit() and least <= int(part) <= LARGEST for part in parts):
        kind, between = ("a number", "") if single else ("numbers", " with commas between them")
        raise CommandError(f"--{name} takes {kind} from {least} to {LARGEST}{between}, not {text!r}")
    return [int(part) for part in parts]


def _rows(file: ModelFile, header: ModelHeader, run: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A row a test, with llama-bench's names where it has the same thing."""
    for test in run["tests"]:
        speeds, times = test["samples_ts"], test["samples_ns"]
        single = test["n_gen"] > 0 and test["n_seq"] == 1
        rate = statistics.median(speeds) * run["bytes_per_token"] if single else None
        yield {
            "model_filename": str(file.path),
            "model_type": f"{header.architecture} {human.number(header.parameter_count)} {header.file_type}",
            "model_size": file.path.stat().st_size,
            "model_n_params": header.parameter_count,
            "backends": run["backend"],
            "n_threads": run["n_threads"],
            "type_k": run["kv_cache_type"],
            "type_v": run["kv_cache_type"],
            "n_prompt": test["n_prompt"],
            "n_gen": test["n_gen"],
            "n_depth": test["n_depth"],
            "n_seq": test["n_seq"],
            "median_ts": statistics.median(speeds),
            "avg_ts": statistics.fmean(speeds),
            "stddev_ts": statistics.stdev(speeds) if len(speeds) > 1 else 0.0,
            "avg_ns": round(statistics.fmean(times)),
            "samples_ns": times,
            "samples_ts": speeds,
            "bytes_per_token": run["bytes_per_token"],
            "bytes_per_second": rate,
            "read_bytes_per_second": test["read_bytes_per_second"],
            "share_of_limit": statistics.median(speeds) * test["limit_seconds"] if single else None,
        }


def _document(result: dict[str, Any], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    parts = [{key: value for key, value in run.items() if key != "tests"} for run in result["runs"]]
    return {"version": VERSION, "cpu_info": system.read().cpu, "isa": result["isa"], "tests": list(rows), "runs": parts}


def _text(result: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "|".join([" --- "] * len(COLUMNS)) + "|"]
    lines += ["| " + " | ".join(_cells(row)) + " |" for row in rows]
    for run in result["runs"]:
        lines += ["", *_parts(run)]
    kinds = {run["kv_cache_type"] for run in result["runs"]} - {"f16"}
    kept = "".join(f"; keys and values in {kind}" for kind in kinds)
    lines += ["", f"{system.read().cpu}; {platform.system()}; {' '.join(sys.argv[1:])}{kept}"]
    return "\n".join(lines) + "\n"


def _cells(row: dict[str, Any]) -> list[str]:
    speeds = row["samples_ts"]
    return [
        row["model_type"],
        f"{row['model_size'] / 2**20:.2f} MiB",
        f"{row['model_n_params'] / 1e6:.2f} M",
        row["backends"],
        str(row["n_threads"]),
        _test(row),
        f"{row['median_ts']:.2f}",
        f"{min(speeds):.2f}-{max(speeds):.2f}",
        f"{row['bytes_per_second'] / 1e9:.1f}" if row["bytes_per_second"] else "",
        f"{row['share_of_limit']:.0%}" if row["share_of_limit"] else "",
    ]


def _test(row: dict[str, Any]) -> str:
    name = f"pp{row['n_prompt']}" if row["n_prompt"] else f"tg{row['n_gen']}"
    depth = f" @ d{row['n_depth']}" if row["n_depth"] else ""
    return name + depth + (f" x{row['n_seq']}" if row["n_seq"] > 1 else "")


def _parts(run: dict[str, Any]) -> list[str]:
    """Where the model is, and the time of a token by part, a line each."""
    whole = sum(run["parts"].values())
    speeds = (("RAM", run["read_bytes_per_second"]), ("VRAM", run["vram_bytes_per_second"]))
    reads = ", ".join(f"{speed / 1e9:.1f} GB/s from {name}" for name, speed in speeds if speed)
    head = f"One token on {run['n_threads']} thread(s), {whole * 1e6:.0f} us; plain reads of as many bytes get {reads}:"
    ordered = sorted(run["parts"].items(), key=lambda part: -part[1])
    lines = (f"  {name:<16} {seconds * 1e6:9.1f} us {seconds / whole:5.1%}" for name, seconds in ordered)
    told = [f"During the tests {busy}."] if (busy := beside(run["others"])) else []
    return [run["placement"], *told, head, *lines]
