"""NVIDIA's cards as the driver's own library tells of them, without a context on any, and which one a process keeps to.

A process with a context on a card takes half a GB of it, and torch makes contexts on the first card that it sees for things that
belong to none. So where there are several, a process hides all but its own before CUDA starts in it.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
from collections.abc import Mapping, MutableMapping, Sequence

VISIBLE = "CUDA_VISIBLE_DEVICES"
_NVML = ("libnvidia-ml.so.1", "/usr/lib/wsl/lib/libnvidia-ml.so.1")
_UUID_BYTES = 96  # NVML_DEVICE_UUID_V2_BUFFER_SIZE of nvml.h


@dataclasses.dataclass(frozen=True, slots=True)
class Card:
    """`name`: as CUDA_VISIBLE_DEVICES takes it; `free`: bytes of its memory."""

    name: str
    free: int


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """The card that a process keeps to. `number`: among all, as `main_gpu` counts; `device`: by which CUDA knows it in this
    process; `environ`: what the user says of the cards."""

    number: int
    device: int
    environ: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def is_for(self, main_gpu: int | None) -> bool:
        """Whether another process that were asked for this now would keep to the same card."""
        return self.number == (roomiest(known(self.environ)) if main_gpu is None else main_gpu)


class _Memory(ctypes.Structure):
    """nvmlMemory_t of nvml.h."""

    _fields_ = tuple((name, ctypes.c_ulonglong) for name in ("total", "free", "used"))


def known(environ: Mapping[str, str] = os.environ) -> list[Card]:
    """The cards that a process with this environment may use, in the order in which `main_gpu` counts them: that of
    CUDA_VISIBLE_DEVICES, else the driver's. Empty where the driver's library does not say."""
    cards, names = _all(), environ.get(VISIBLE)
    if names is None:
        return cards
    asked = [name.strip() for name in names.split(",")]
    found = [_named(cards, name) for name in asked]
    usable = found[: found.index(None)] if None in found else found  # CUDA too stops at the first that is none
    return [dataclasses.replace(card, name=name) for card, name in zip(usable, asked, strict=False) if card]


def keep_to(
    main_gpu: int | None, environ: MutableMapping[str, str] = os.environ, cards: Sequence[Card] | None = None
) -> Choice:
    """Choose the card that `main_gpu` names, else the one with the most free memory, and let this process see no other. Call it
    once, before CUDA starts."""
    cards = known(environ) if cards is None else cards
    number = roomiest(cards) if main_gpu is None else main_gpu
    said = {VISIBLE: environ[VISIBLE]} if VISIBLE in environ else {}
    if len(cards) < 2 or number >= len(cards):
        return Choice(number, number, said)
    environ[VISIBLE] = cards[number].name
    return Choice(number, 0, said)


def roomiest(cards: Sequence[Card]) -> int:
    """The number of the card with the most free memory, the first of equal ones; 0 where none is known."""
    return max(range(len(cards)), key=lambda number: cards[number].free, default=0)


def _named(cards: Sequence[Card], name: str) -> Card | None:
    """By its number, or the beginning of its name, as CUDA reads it."""
    if name.isdecimal():
        return cards[int(name)] if int(name) < len(cards) else None
    matching = [card for card in cards if name and card.name.startswith(name)]
    return matching[0] if len(matching) == 1 else None


def _all() -> list[Card]:
    library = _library()
    if library is None:
        return []
    count = ctypes.c_uint()
    told = library.nvmlDeviceGetCount_v2(ctypes.byref(count)) == 0
    cards = [_card(library, number) for number in range(count.value)] if told else []
    return [card for card in cards if card]


def _library() -> ctypes.CDLL | None:
    for name in _NVML:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        return library if library.nvmlInit_v2() == 0 else None
    return None


def _card(library: ctypes.CDLL, number: int) -> Card | None:
    device, memory, name = ctypes.c_void_p(), _Memory(), ctypes.create_string_buffer(_UUID_BYTES)
    told = library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(number), ctypes.byref(device)) == 0
    told = told and library.nvmlDeviceGetMemoryInfo(device, ctypes.byref(memory)) == 0
    told = told and library.nvmlDeviceGetUUID(device, name, ctypes.c_uint(_UUID_BYTES)) == 0
    return Card(name.value.decode(), int(memory.free)) if told else None
