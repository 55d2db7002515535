"""Hand-offs between a card and the CPU, millions of them, each with a payload of its own that has to come back."""

from __future__ import annotations

import sys
import time

import torch
from machine import ROOT

sys.path.insert(0, str(ROOT / "tests"))

from echo import Echo

from runtime.cuda.module import Module
from runtime.execute.mailbox import Mailbox
from runtime.kernels.leaves import Leaves

EACH = 500  # of one graph
WIDTH = 64  # values of a row
FIRST = -(10**6)  # the first ticket: they pass 0 on their way, which is 2^32


def run(handoffs: int) -> dict[str, float]:
    """How many of the rows came back wrong, tickets lost or doubled, and microseconds a hand-off. Row i carries the number i."""
    device = torch.device("cuda", 0)
    module, mailbox = Module(["F32"], device, Leaves().cache.folder), Mailbox(1, WIDTH, 1, pinned=True)
    program, stream = Echo(mailbox, EACH, FIRST), torch.cuda.Stream(device)
    number, back, wrong = (torch.zeros((1, WIDTH), device=device) for _ in range(3))
    sent = torch.full((1,), FIRST, dtype=torch.int32, device=device)
    count, none = torch.ones_like(sent), torch.zeros_like(sent)
    weights = torch.zeros(1, device=device)

    def one() -> None:
        number.add_(1)
        module.launch("send", (1,), 1024, mailbox.box, number, none, weights, none, 1, WIDTH, sent, count)
        module.launch("receive", (1,), 1024, mailbox.box, None, back, WIDTH, sent, count)
        wrong.add_(back.sub_(number).abs_())

    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        for _ in range(EACH):
            one()
    start = time.perf_counter()
    with torch.cuda.stream(stream):
        for _ in range(handoffs // EACH):
            graph.replay()
            program.run(1)
    stream.synchronize()
    seconds = time.perf_counter() - start
    mailbox.check()
    program.close()
    done = handoffs // EACH * EACH
    lost = abs(int(sent[0]) - FIRST - done) + abs(program.answered - FIRST - done) + abs(int(number[0, 0]) - done)
    figures = {"handoffs": done, "handoffs_lost_or_doubled": lost, "handoffs_wrong_rows": float(wrong.sum())}
    return figures | {"handoff_us": round(1e6 * seconds / done, 2)}
