"""The CPU's side of the hand-off, with a stand-in for the GPU that writes tickets as the kernels do."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_gguf
from numba import types

torch = pytest.importorskip("torch", reason="needs the extra cuda")

from echo import Echo  # noqa: E402

from runtime import models  # noqa: E402
from runtime.execute.cuda_experts import layer_of  # noqa: E402
from runtime.execute.experts import Layer  # noqa: E402
from runtime.execute.mailbox import WORD, ExpertProgram, HandoffError, Mailbox  # noqa: E402
from runtime.execute.needs import mixtures  # noqa: E402
from runtime.kernels.jit import njit  # noqa: E402
from runtime.kernels.leaves import Leaves  # noqa: E402
from runtime.kernels.memory import f32, load_acquire32, store_release32  # noqa: E402
from runtime.weights import Weights, open_weights  # noqa: E402

ROWS = 4


class Gpu:
    """Sends rows and choices, waits for the answer."""

    def __init__(self, mailbox: Mailbox) -> None:
        box, rows, width, used = mailbox.box, mailbox.rows, mailbox.width, mailbox.used
        self.words = mailbox._words
        self.x, self.y = (view(address, ctypes.c_float, (rows, width)) for address in (box.x, box.y))
        self.weights, self.ids = view(box.weights, ctypes.c_float, (rows, used)), view(box.ids, ctypes.c_int32, (rows, used))

    def step(self, ticket: int, x: np.ndarray, ids: np.ndarray, weights: np.ndarray) -> np.ndarray:
        n = len(x)
        self.x[:n], self.ids[:n], self.weights[:n] = x, ids, weights
        self.words[0] = ticket
        while int(self.words[WORD]) != ticket and not self.words[2 * WORD]:
            pass
        return self.y[:n].copy()


_yield = types.ExternalFunction("sched_yield", types.int32())


@njit(nogil=True)
def gpu(ticket: int, reply: int, abort: int, x: int, y: int, width: int, last: int, handoffs: int) -> int:
    """The kernels' side of so many hand-offs; how many rows came back wrong. Row i carries the number i."""
    sent, received, wrong = f32(x, width), f32(y, width), 0
    for i in range(handoffs):
        sent[:] = i
        wanted = np.int32(last + 1 + i)
        store_release32(ticket, wanted)
        while load_acquire32(reply) != wanted and load_acquire32(abort) == 0:
            _yield()
        for j in range(width):
            wrong += received[j] != i
    return wrong


def view(address: int, kind: type, shape: tuple[int, int]) -> np.ndarray:
    return np.ctypeslib.as_array((kind * (shape[0] * shape[1])).from_address(address)).reshape(shape)


@pytest.fixture
def weights(tmp_path: Path) -> Iterator[Weights]:
    opened = open_weights(tiny_gguf.write(tmp_path / "m.gguf", tiny_gguf.variant("qwen3moe", "F32")), lambda *_: None)
    yield opened
    opened.close()


@pytest.fixture
def layers(weights: Weights) -> list[Layer]:
    return [layer_of(mixture.experts) for mixture in mixtures(models.build(weights))]


@pytest.fixture
def mailbox(layers: list[Layer]) -> Mailbox:
    return Mailbox(ROWS, layers[0].gate.shape[0], 3, pinned=False)


def expected(weights: Weights, layer: Layer, x: np.ndarray, ids: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    gate, up, down = (weights.dequantize(t).reshape(t.shape[::-1]) for t in layer.tensors)
    out = np.zeros_like(x)
    for row in range(len(x)):
        for expert, weight in zip(ids[row], chosen[row], strict=True):
            if expert >= 0:
                g, u = gate[expert] @ x[row], up[expert] @ x[row]
                out[row] += weight * (down[expert] @ (g / (1 + np.exp(-g)) * u))
    return out


@pytest.mark.parametrize("threads", [1, 2])
def test_each_layer_is_answered(threads: int, weights: Weights, layers: list[Layer], mailbox: Mailbox) -> None:
    program, gpu, rng = ExpertProgram(Leaves(), threads, mailbox, layers), Gpu(mailbox), np.random.default_rng(1)
    ticket = 0
    for rows in (1, 3, ROWS, 1):
        runner = threading.Thread(target=program.run, args=(rows,))
        runner.start()
        for layer in layers:
            x = rng.standard_normal((rows, mailbox.width)).astype(np.float32)
            ids = np.argsort(rng.random((rows, layer.experts)))[:, :3].astype(np.int32)
            ids[rng.random(ids.shape) < 0.3] = -1  # the GPU's own
            chosen = rng.random((rows, 3)).astype(np.float32)
            ticket += 1
            y = gpu.step(ticket, x, ids, chosen)
            want = expected(weights, layer, x, ids, chosen)
            np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-4 * max(1e-6, np.abs(want).max()))
        runner.join()
        mailbox.check()
    program.close()


def test_tickets_count_modulo_two_to_the_32(layers: list[Layer], mailbox: Mailbox) -> None:
    program, gpu = ExpertProgram(Leaves(), 1, mailbox, layers[:1]), Gpu(mailbox)
    program._answered[0] = 2**31 - 2
    x, none = np.ones((1, mailbox.width), np.float32), np.full((1, 3), -1, np.int32)
    for ticket in (2**31 - 1, -(2**31), -(2**31) + 1):
        runner = threading.Thread(target=program.run, args=(1,))
        runner.start()
        assert not gpu.step(ticket, x, none, np.zeros((1, 3), np.float32)).any()
        runner.join()
    program.close()


def test_no_ticket_of_many_is_lost_or_doubled() -> None:
    """Across the end of the 32 bits; a lost or doubled ticket stops both sides, and a row that is old shows in its number."""
    each, runs, last = 100, 30, -1500
    mailbox = Mailbox(1, 16, 1, pinned=False)
    box, program, found = mailbox.box, Echo(mailbox, each, last), list[int]()
    words = box.ticket, box.reply, box.abort, box.x, box.y
    runner = threading.Thread(target=lambda: found.append(gpu(*words, 16, last, each * runs)))
    runner.start()
    for _ in range(runs):
        program.run(1)
    runner.join()
    mailbox.check()
    program.close()
    assert found == [0]
    assert program.answered == int(mailbox._words[0]) == int(mailbox._words[WORD]) == last + each * runs


def test_a_stale_ticket_is_not_answered_and_abort_ends_the_wait(layers: list[Layer], mailbox: Mailbox) -> None:
    program = ExpertProgram(Leaves(), 2, mailbox, layers)
    mailbox._words[0] = 7  # not the next one
    runner = threading.Thread(target=program.run, args=(1,))
    runner.start()
    assert int(mailbox._words[WORD]) == 0
    mailbox.abort()
    runner.join(20)
    assert not runner.is_alive()
    with pytest.raises(HandoffError):
        mailbox.check()
    program.close()


def test_a_step_that_does_not_end_after_one_side_gave_up_is_told(mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.execute.mailbox.PATIENCE", 0.05)
    assert not mailbox.stuck()
    mailbox.abort()
    assert not mailbox.stuck()  # it may end by itself yet
    time.sleep(0.06)
    assert "lost each other" in mailbox.stuck()


def test_a_gpu_that_never_sends_is_given_up(layers: list[Layer], mailbox: Mailbox) -> None:
    program = ExpertProgram(Leaves(), 1, mailbox, layers)
    program.run(1)  # returns by itself
    with pytest.raises(HandoffError, match="lost each other"):
        mailbox.check()
    program.close()


def test_speed_is_probed_without_a_trace(layers: list[Layer], mailbox: Mailbox) -> None:
    assert mailbox.seconds(Leaves(), 1, layers[0], ROWS) > 0
    assert not mailbox._words.any()
