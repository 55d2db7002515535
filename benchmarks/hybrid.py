"""Measures the hybrid executor on a machine with an NVIDIA GPU: `python benchmarks/hybrid.py STEP [STEP ...] --json FILE`.

- `decode`: experts in RAM, with a share over PCIe, half of them in VRAM (chosen evenly, and with skew), all in VRAM;
  `prefill`, `users`: the same for prompts and for several texts at a time
- `moe67b`: a 67B-class model on cards of 24, 12 and 8 GiB: experts chosen with skew, the same with experts that stand still
  (`still`), answers to prompts by the choice of random weights (`answer`), hit rates and bytes moved; and beside each as many
  whole layers as fit (the classic offload)
- `deepseek`: two layers with experts of DeepSeek-V3's size, all of them in RAM, extrapolated to its 61, and its plan for 24 GiB
- `breakdown`: microseconds a token by part
- `mailbox`: ten million hand-offs between card and CPU, none of them lost, doubled or answered with another's rows
- `correct`: logits by type of weights against the CPU's, and the embedded model against llama.cpp's recorded probabilities
- `faults`: a hand-off thread that hangs in the middle of an answer: seconds until its request has the typed error
- `llama`: llama.cpp in turns with us, by `--llama-bench PATH` and, for several users, `--batched-bench PATH`

Each writes its model into --folder where it is not there, and adds its figures to FILE. Figures are medians of repetitions in
turns; DRAM, PCIe and VRAM are measured in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import datetime
import json
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import closeness  # finds the helpers of the tests too
import driven
import handoffs
import hanging_worker
import llama
import shapes
import torch
from driven import AT, ROUNDS, TOKENS, Decoded, Model, bandwidths, in_turns, share, vram_used, with_model
from machine import ROOT
from random_gguf import SHAPES, write
from routed import Routed, decoding

from ollama_compat.errors import ApiError
from ollama_compat.runner import Runner
from runtime import models
from runtime.execute.needs import first_layer, mixtures, planned
from runtime.execute.placement import NoRoom
from runtime.frames import Generate, Load
from runtime.kernels import cores
from runtime.measure.batches import Texts
from runtime.measure.on_card import OnCard
from runtime.weights import open_weights

GIB = 1 << 30
HANDOFFS = 10**7
CLASSIC_ROWS = 512  # of a step where whole layers are on the CPU


@dataclasses.dataclass(frozen=True)
class Run:
    """What a step may need."""

    path: Path  # of its model
    rates: dict[str, float]  # GB/s, see driven.bandwidths
    arguments: argparse.Namespace


def decode(run: Run) -> dict[str, float]:
    def one(name: str) -> Callable[[Model], dict[str, float]]:
        return lambda model: in_turns({name: model.decode})

    experts = SHAPES["qwen3-30b-a3b"].experts
    return {
        **with_model(run.path, one("decode_ram"), resident=0),
        **with_model(run.path, one("decode_ram_pcie"), resident=0, over_pcie=None),
        **with_model(run.path, decoding("decode_half", 0.0, 0.0), resident=experts // 2),
        **with_model(run.path, decoding("decode_half_skew", 1.0, 0.3), resident=experts // 2),
        **with_model(run.path, one("decode_vram")),
    }


def prefill(run: Run) -> dict[str, float]:
    def ram(model: Model) -> dict[str, float]:
        return in_turns({f"prefill_{n}": lambda n=n: model.prefill(n) for n in (512, 2048, 4096)})

    def vram(model: Model) -> dict[str, float]:
        return in_turns({"prefill_vram": lambda: model.prefill(2048)})

    return {**with_model(run.path, ram, resident=0), **with_model(run.path, vram)}


def users(run: Run) -> dict[str, float]:
    return with_model(run.path, lambda m: in_turns({f"decode_{n}_users": lambda n=n: m.users(n) for n in (4, 16)}), resident=0)


def moe67b(run: Run) -> dict[str, float]:
    def measure(model: Model, card: int) -> dict[str, float]:
        name = f"moe67b_{card}g"
        prompts, answers, moving, still = [], [], [], []
        for _ in range(ROUNDS):
            prompts.append(model.prefill(2048))
            answers.append(model.decoded(at=2048))
        trace = Routed(model, 1.0, 0.3, 2 * ROUNDS * TOKENS)
        for _ in range(ROUNDS):
            moving.append(trace.decoded())
            with model.standing():
                still.append(trace.decoded())
        found = {f"{name}_prefill_2048": round(statistics.median(prompts), 1)}
        found[f"{name}_first_token_s"] = round(2048 / found[f"{name}_prefill_2048"], 3)
        for kind, runs in (("", moving), ("_still", still), ("_answer", answers)):
            found |= cached(model, f"{name}{kind}", runs, run.rates)
        return found | {f"{name}_peak_gib": round((vram_used() - before) / GIB, 2)}

    def classic(model: Model, card: int, layers: int) -> dict[str, float]:
        name = f"moe67b_{card}g_layers"
        found = in_turns({name: lambda: model.decode(12), f"{name}_prefill_2048": lambda: model.prefill(2048)}, rounds=2)
        found[f"{name}_on_card"] = layers
        return found | {f"{name}_peak_gib": round((vram_used() - before) / GIB, 2)}

    found: dict[str, float] = {}
    before = vram_used()
    for card in (24, 12, 8):
        found |= with_model(run.path, lambda model, card=card: measure(model, card), vram=card * GIB)
        layers, rows = whole_layers(run.path, card * GIB)
        options = {"vram": card * GIB, "num_gpu": layers, "num_batch": rows}
        found |= with_model(run.path, lambda model, card=card, layers=layers: classic(model, card, layers), **options)
    return found


def cached(model: Model, name: str, runs: list[Decoded], rates: dict[str, float]) -> dict[str, float]:
    """The median of some runs: tokens a second, and of the same run the hit rate, MB of experts moved a token, and the share of
    what its bytes allow."""
    run = sorted(runs, key=lambda run: run.tokens_a_second)[len(runs) // 2]
    hits, moved = round(run.hit_rate or 0.0, 3), round(run.moved / 1e6, 1)
    found = {name: round(run.tokens_a_second, 1), f"{name}_hit_rate": hits, f"{name}_moved_mb": moved}
    return found | {f"{name}_share": share(model, run, rates)}


def whole_layers(path: Path, vram: int) -> tuple[int, int]:
    """As many layers as a card holds with all their experts, the output among them, and the rows of its steps."""
    weights = open_weights(path, lambda *_: None, mapped=True)
    model = models.build(weights)
    asked = driven.ASKED | {"num_batch": CLASSIC_ROWS}
    try:
        for num_gpu in range(len(model.blk) + 1, 0, -1):
            try:
                chosen, rows = planned(weights, model, Load(str(path), num_gpu=num_gpu, **asked), driven.TEXT, vram, None)
            except NoRoom:
                continue
            every = tuple(mixture.ffn_gate_exps.shape[2] for mixture in mixtures(model, chosen.first))
            if chosen.first == first_layer(num_gpu, len(model.blk)) and chosen.resident == every:
                return num_gpu, rows
    finally:
        weights.close()
    raise SystemExit(f"not one layer of {path.name} fits the card")


def deepseek(run: Run) -> dict[str, Any]:
    """Each layer as fast as these two on the average, which have no more time to overlap copies; the three dense layers at the
    speed of VRAM, the output too."""
    chosen, rows = shapes.planned(shapes.DEEPSEEK_V3, 24 * GIB)
    words = f"{chosen.words}; staging buffers for {chosen.stages} of {len(chosen.resident)} layers, steps of {rows} rows"
    print(f"DeepSeek-V3 on a card of 24 GiB: {words}", flush=True)
    whole, sizes = shapes.DEEPSEEK_V3, shapes.DEEPSEEK_V3.sizes()
    repeated, output = whole.layers - whole.dense, sizes["output.weight"]
    dense = sum(size for name, size in sizes.items() if re.match(rf"blk\.[0-{whole.dense - 1}]\.", name))

    def measure(model: Model) -> dict[str, float]:
        found = in_turns({"deepseek_2_layers": model.decode, "deepseek_2_layers_prefill_2048": lambda: model.prefill(2048)})
        vram = run.rates["vram_gb_s"] * 1e9
        token = (1 / found["deepseek_2_layers"] - output / vram) / 2 * repeated + (dense + output) / vram
        prompt = 2048 / found["deepseek_2_layers_prefill_2048"] / 2 * repeated
        found["deepseek_2_layers_share"] = share(model, Decoded(found["deepseek_2_layers"]), run.rates)
        extrapolated = {"decode": round(1 / token, 2), "prefill_2048": round(2048 / prompt, 1)}
        return found | {"deepseek_extrapolated": extrapolated}

    return with_model(run.path, measure, resident=0, vram=24 * GIB, num_batch=2048) | {"deepseek_plan_24g": words}


def breakdown(run: Run) -> dict[str, float]:
    """Microseconds a token by part, experts in RAM, as `moellama bench` has them."""

    def measure(model: Model) -> dict[str, float]:
        texts = Texts(model.executor, 1, 2 * AT)
        texts.read(0, AT)
        parts = OnCard(model.executor, lambda *_: None).parts(lambda: texts.next(AT))
        return {f"us_{name}": round(1e6 * seconds, 1) for name, seconds in sorted(parts.items(), key=lambda part: -part[1])}

    return with_model(run.path, measure, resident=0)


def mailbox(run: Run) -> dict[str, float]:
    return handoffs.run(HANDOFFS)


def correct(run: Run) -> dict[str, Any]:
    return closeness.by_type(run.path.parent) | closeness.demo()


def faults(run: Run) -> dict[str, Any]:
    return {"hanging_hand_off_s": asyncio.run(hanging_hand_off())}


async def hanging_hand_off() -> float:
    """Seconds from the last token to the error of the answer in which the hand-off hangs."""
    runner, last = await Runner.spawn((sys.executable, hanging_worker.__file__)), 0.0
    try:
        await runner.load(Load(str(closeness.MODEL), num_ctx=512))
        async for _ in runner.generate(lambda number: Generate(number, "Once", num_predict=100)):
            last = time.perf_counter()
    except ApiError as error:
        print(error, flush=True)
        return round(time.perf_counter() - last, 2)
    finally:
        await runner.close()
    raise SystemExit("the hand-off did not hang")


def beside_llama_cpp(run: Run) -> dict[str, Any]:
    given, shape = run.arguments, SHAPES["qwen3-30b-a3b"]
    if given.llama_bench is None:
        raise SystemExit("the step `llama` needs --llama-bench")
    theirs = llama.LlamaCpp(given.llama_bench, given.batched_bench, run.path, cores.physical())
    return llama.in_turns(theirs, run.path, shape.layers, shape.experts, given.rounds)


def machine() -> dict[str, str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return {"gpu": torch.cuda.get_device_name(0), "cpu": cpu, "torch": torch.__version__}


def commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


QWEN = "qwen3-30b-a3b"
STEPS: dict[str, tuple[str, Callable[[Run], dict[str, Any]]]] = {
    "decode": (QWEN, decode),
    "prefill": (QWEN, prefill),
    "users": (QWEN, users),
    "moe67b": ("moe-67b", moe67b),
    "deepseek": ("deepseek-v3-2", deepseek),
    "breakdown": (QWEN, breakdown),
    "mailbox": ("", mailbox),
    "correct": ("", correct),
    "faults": ("", faults),
    "llama": (QWEN, beside_llama_cpp),
}
"""By its name, the shape of a step's model (none: it needs no large one) and the step."""


class Report:
    """FILE: all figures, the latest of each, and which run each group of them is from."""

    def __init__(self, file: Path | None, commit: str) -> None:
        self._file = file
        self._report = json.loads(file.read_text()) if file and file.exists() else {"figures": {}, "runs": []}
        command = " ".join(["python", *sys.argv])
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self._run: dict[str, Any] = {"commit": commit, "machine": machine(), "command": command, "date": now, "figures": []}
        self._report |= {"commit": commit, "machine": machine()}
        self._report["runs"].append(self._run)

    def add(self, figures: dict[str, Any]) -> None:
        """Take figures over and write the file."""
        self._report["figures"] |= figures
        self._run["figures"] += list(figures)
        if self._file:
            self._file.write_text(json.dumps(self._report, indent=1) + "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="+", choices=STEPS)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("/tmp"))
    parser.add_argument("--clean", action="store_true", help="remove a model when the next step does not need it")
    parser.add_argument("--commit", default=commit())
    parser.add_argument("--llama-bench", type=Path, help="llama.cpp's program, built with CUDA")
    parser.add_argument("--batched-bench", type=Path, help="llama-batched-bench of the same build")
    parser.add_argument("--rounds", type=int, default=2, help="of the step `llama`")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    report, rates = Report(given.json, given.commit), bandwidths()
    print(json.dumps(machine() | rates), flush=True)
    report.add(rates)
    for step, following in zip(given.steps, [*given.steps[1:], ""], strict=True):
        shape, measure = STEPS[step]
        path = given.folder / f"{shape or 'none'}.gguf"
        if shape and not path.exists():
            write(SHAPES[shape], path)
        found = measure(Run(path, rates, given))
        print(step, json.dumps(found), flush=True)
        report.add(found)
        if given.clean and (not following or STEPS[following][0] != shape):
            path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
