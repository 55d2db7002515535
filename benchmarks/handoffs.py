"""Hand-offs between a card and the CPU, millions of them, each with a payload of its own that has to come back."""

from __future__ import annotations

import sys
import time

import torch
from machine import ROOT

sys.path.insert(0, str(ROOT / "tests"))

from echo import Echo

from runtime.cuda.blocks import BlockMemory
from runtime.cuda.module import Module
from runtime.execute.cuda_ops import Choice, CudaOps, Value
from runtime.execute.device_step import DeviceStep
from runtime.execute.mailbox import Mailbox
from runtime.kernels.leaves import Leaves

EACH = 500  # of one graph
WIDTH = 64  # values of a row
FIRST = -(10**6)  # the first ticket: they pass 0 on their way, which is 2^32


def run(handoffs: int) -> dict[str, float]:
    """How many of the rows came back wrong, tickets lost or doubled, and microseconds a hand-off. Row i carries the number i."""
    device, leaves = torch.device("cuda", 0), Leaves()
    module, step = Module(["F32"], device, leaves.cache.folder), DeviceStep(1, 1, 1, device)
    ops, mailbox = CudaOps(module, step, BlockMemory(device, None, 1, 1), leaves), Mailbox(1, WIDTH, 1, pinned=True)
    ops.mailbox, program = mailbox, Echo(mailbox, EACH, FIRST)
    stream, number = torch.cuda.Stream(device), torch.zeros((1, WIDTH), device=device)
    wrong, count = torch.zeros_like(number), torch.ones(1, dtype=torch.int32, device=device)
    none = torch.zeros((1, 1), dtype=torch.int32, device=device)
    choice = Choice(none, none.float(), none, 1, none)
    x = Value(number, count)

    def one() -> None:
        number.add_(1)
        ops._send(x, choice)
        back = ops._receive(x, None).data
        wrong.add_(back.sub_(number).abs_())

    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        for _ in range(EACH):
            one()
    ops._sent.fill_(FIRST)
    torch.cuda.synchronize()
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
    lost = abs(int(ops._sent[0]) - FIRST - done) + abs(program.answered - FIRST - done) + abs(int(number[0, 0]) - done)
    figures = {"handoffs": done, "handoffs_lost_or_doubled": lost, "handoffs_wrong_rows": float(wrong.sum())}
    return figures | {"handoff_us": round(1e6 * seconds / done, 2)}
