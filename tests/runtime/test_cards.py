"""Which card a process keeps to, by what the driver's library says of them: here a stand-in says it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import pytest

from runtime.execute import cards
from runtime.execute.cards import VISIBLE, Choice

NAMES = ("GPU-aa11", "GPU-bb22", "GPU-bc33")


class Nvml:
    """Three cards with 8, 24 and 16 GB free; one may have fallen off the bus."""

    def __init__(self, lost: int | None = None) -> None:
        self._lost = lost

    def nvmlInit_v2(self) -> int:
        return 0

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:
        count._obj.value = len(NAMES)
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, number: ctypes.c_uint, device: Any) -> int:
        device._obj.value = number.value + 1
        return 15 if number.value == self._lost else 0

    def nvmlDeviceGetMemoryInfo(self, device: ctypes.c_void_p, memory: Any) -> int:
        memory._obj.free = (8, 24, 16)[(device.value or 0) - 1] << 30
        return 0

    def nvmlDeviceGetUUID(self, device: ctypes.c_void_p, name: Any, _: ctypes.c_uint) -> int:
        name.value = NAMES[(device.value or 0) - 1].encode()
        return 0


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Callable[[Nvml | None], None]:
    """Sets what the driver's library is."""
    return lambda library: monkeypatch.setattr(cards, "_library", lambda: library)


def numbers(visible: str | None) -> list[int]:
    """The cards that are left, by the driver's numbers."""
    environ = {} if visible is None else {VISIBLE: visible}
    return [(8, 24, 16).index(card.free >> 30) for card in cards.known(environ)]


@pytest.mark.parametrize(
    ("visible", "left"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("-1", []),
        ("2,0", [2, 0]),
        ("1, 7, 0", [1]),
        ("GPU-bb22,GPU-aa11", [1, 0]),
        ("GPU-a", [0]),
        ("GPU-b", []),  # two begin so
        ("2,GPU-bb", [2, 1]),
    ],
)
def test_the_cards_that_a_process_may_use(driver: Callable[[Nvml | None], None], visible: str | None, left: list[int]) -> None:
    driver(Nvml())
    assert numbers(visible) == left


def test_a_card_of_which_nothing_is_told_is_none(driver: Callable[[Nvml | None], None]) -> None:
    driver(Nvml(lost=1))
    assert numbers(None) == [0, 2]


@pytest.mark.parametrize(("main_gpu", "number"), [(None, 1), (0, 0), (2, 2)])
def test_a_process_keeps_to_one_card(driver: Callable[[Nvml | None], None], main_gpu: int | None, number: int) -> None:
    driver(Nvml())
    environ: dict[str, str] = {}
    assert cards.keep_to(main_gpu, environ) == Choice(number, 0)
    assert environ == {VISIBLE: NAMES[number]}


def test_the_numbers_are_those_of_the_cards_that_the_user_left(driver: Callable[[Nvml | None], None]) -> None:
    driver(Nvml())
    environ = {VISIBLE: "0,2"}
    choice = cards.keep_to(None, environ)
    assert choice == Choice(1, 0, {VISIBLE: "0,2"})
    assert environ == {VISIBLE: "2"}
    assert choice.is_for(None)
    assert not choice.is_for(0)


@pytest.mark.parametrize("number", range(3))
def test_who_else_comes_to_a_card(driver: Callable[[Nvml | None], None], number: int) -> None:
    driver(Nvml())
    choice = cards.keep_to(number, {})
    assert [choice.is_for(main_gpu) for main_gpu in (0, 1, 2)] == [main_gpu == number for main_gpu in (0, 1, 2)]
    assert choice.is_for(None) == (number == 1)  # which has most room


@pytest.mark.parametrize(("main_gpu", "visible"), [(3, None), (1, "2"), (None, "2")])
def test_nothing_is_hidden_where_there_is_no_choice(
    driver: Callable[[Nvml | None], None], main_gpu: int | None, visible: str | None
) -> None:
    driver(Nvml())
    environ = {} if visible is None else {VISIBLE: visible}
    before, number = dict(environ), main_gpu or 0
    assert cards.keep_to(main_gpu, environ) == Choice(number, number, before)
    assert environ == before


def test_without_the_drivers_library(driver: Callable[[Nvml | None], None]) -> None:
    driver(None)
    environ: dict[str, str] = {}
    assert cards.keep_to(None, environ) == Choice(0, 0)
    assert cards.keep_to(1, environ) == Choice(1, 1)
    assert cards.keep_to(None, environ).is_for(None)
    assert not environ


def test_what_this_machines_driver_says() -> None:
    assert all(card.free > 0 and card.name for card in cards.known({}))
