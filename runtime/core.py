"""The nouns that scheduler, engine and models share. Comments say who writes each field."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

BLOCK_TOKENS = 64  # tokens in one block of the KV cache
LONGEST = 1 << 20  # tokens that a context can grow to

IntArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float32]


def blocks_for(n_tokens: int) -> int:
    """Blocks that hold so many tokens."""
    return -(-n_tokens // BLOCK_TOKENS)


class ModelError(Exception):
    """The file is no model that this runtime can run; the message names what is wrong."""


class ContextLengthError(Exception):
    """A prompt does not fit the context."""

    def __init__(self, n_prompt: int, n_ctx: int) -> None:
        super().__init__(f"request ({n_prompt} tokens) exceeds the available context size ({n_ctx} tokens), try increasing it")
        self.n_prompt = n_prompt
        self.n_ctx = n_ctx


@dataclasses.dataclass(slots=True)
class Batch:
    """One step's rows. The engine fills it, the executor reads it; a row is one token of one sequence.

    Rows of one sequence stand together with rising positions. Every row's key and value are in the cache before any row
    attends, so a prefill chunk and decode rows of other sequences mix freely.
    """

    tokens: IntArray  # (rows,)
    positions: IntArray  # (rows,) place in the sequence, from 0
    sequences: IntArray  # (rows,) line of `tables`
    tables: IntArray  # (sequences, blocks) block numbers of each sequence, padded with 0
    outputs: IntArray  # (outputs,) rows whose logits are wanted, rising


class Executor(Protocol):
    """A loaded model, ready to step."""

    n_vocab: int
    n_ctx_train: int
    n_blocks: int  # blocks in the KV pool
    max_rows: int  # rows a batch may hold
    max_outputs: int  # logits a batch may ask for
    several: bool  # a step takes less time with a few rows of one sequence than as many steps would
    size: int  # bytes resident
    size_vram: int
    placement: str

    def forward(self, batch: Batch) -> FloatArray:
        """Logits, (outputs, n_vocab); a view that is valid until the next call."""

    def copy_blocks(self, pairs: list[tuple[int, int]]) -> None:
        """Copy whole KV blocks, (from, to), on every layer."""

    def close(self) -> None:
        """Stop the threads and free the memory."""


@runtime_checkable
class Recurrent(Protocol):
    """An executor that may have layers with a state of the whole text so far. A text's state lies by its line of the batch's
    tables, and begins anew with the row of position 0; places from `lines` on are for checkpoints."""

    lines: int  # texts that can have a state at a time
    checkpoints: int  # further states; 0: there are no such layers

    def copy_states(self, pairs: list[tuple[int, int]]) -> None:
        """Copy states, (from, to), one after the other, on every such layer."""


@runtime_checkable
class Growing(Protocol):
    """An executor whose cache can hold longer contexts than it was loaded for."""

    def grow(self, num_ctx: int, memory: int) -> int:
        """Make room for a sequence of `num_ctx` tokens, within `memory` free bytes (0: unknown). Returns the new n_blocks.
        Raises CannotGrow, and nothing has changed."""


class CannotGrow(Exception):
    """There is no room for a longer context beside what is there: the model has to be loaded anew."""


class CardTaken(Exception):
    """Other models of this server hold the card, and without them there would be room for a better plan."""


@runtime_checkable
class OnCard(Protocol):
    """An executor that computes on a card."""

    pinned: bool | None  # whether the weights in RAM that the card reads are pinned; None: there are none
    gpu: int  # the card, as `main_gpu` of frames.Load counts

    def shares(self, main_gpu: int | None) -> bool:
        """Whether a model that were loaded now would come to the same card."""

    def give_back(self, nbytes: int, models: int) -> int:
        """Let the card have so many bytes free for another one of `models` models, or as many as can be spared. Returns the bytes
        of the card that this model has then."""


@runtime_checkable
class Watched(Protocol):
    """An executor whose steps can hang: two sides wait for one another."""

    def stuck(self) -> str:
        """Why the step that runs will not end; "": nothing is known against it. Any thread may ask."""


@runtime_checkable
class Caching(Protocol):
    """An executor that keeps the hottest experts in VRAM."""

    @property
    def expert_lookups(self) -> int:
        """Experts that rows have asked for, but not those of prompts that brought all experts to the card."""

    @property
    def expert_hits(self) -> int:
        """How many of these were in VRAM."""


@runtime_checkable
class Shortlisting(Protocol):
    """An executor that can keep logits to itself but for the likeliest of each row."""

    shortlist: int  # tokens of a list

    def likeliest(self, batch: Batch) -> list[tuple[IntArray, FloatArray]]:
        """What `forward` does, but of each wanted row only `shortlist` tokens and their logits, or more: those with the highest
        logits, falling, of equal ones the lower token first. Views that are valid until the next call."""


@runtime_checkable
class Encoder(Protocol):
    """A loaded embedding model: texts in, one vector each out."""

    n_vocab: int
    n_ctx_train: int
    longest: int  # tokens a text may have
    max_rows: int  # tokens that the texts of one step may have together
    size: int  # bytes resident
    size_vram: int
    placement: str
    ranks: bool  # a vector is one number: how well the second text answers the first

    def encode(self, texts: Sequence[Sequence[int]]) -> FloatArray:
        """Vectors (texts, width), as the model makes them; a view that is valid until the next call."""

    def close(self) -> None:
        """Stop the threads and free the memory."""


Metadata = dict[str, Any]
