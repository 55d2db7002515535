"""Who owns which block of the KV cache, and which blocks hold text that a later request may reuse.

Only numbers live here; the tensors belong to the executor. A block is in exactly one of three states:

- *held*: in the table of one or more sequences,
- *idle*: in no table, but what it holds is known and may be reused; the least recently used is taken first,
- *blank*: in no table, holding nothing of worth.

A full block is known by a digest of its tokens and of all tokens before it, so equal prefixes share blocks, also between
running sequences. The unfinished last block of a sequence that ends is kept too: a prompt that begins the same way gets a
copy of it. A block that may still be written is always in one table alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from array import array
from collections import OrderedDict
from collections.abc import Sequence

from runtime.checkpoints import Checkpoints
from runtime.core import BLOCK_TOKENS, blocks_for

MIN_COPY = 4  # tokens that a partly matching block must save before it is copied
MAX_CANDIDATES = 32  # partly matching blocks that are compared, the newest first
_ROOT = b""


@dataclasses.dataclass(eq=False, slots=True)
class BlockTable:
    """The blocks of one sequence in order of position. Only the pool writes it."""

    blocks: list[int]
    keys: list[bytes]  # digests of the leading blocks that are full

    @property
    def capacity(self) -> int:
        """Tokens that fit."""
        return len(self.blocks) * BLOCK_TOKENS


@dataclasses.dataclass(frozen=True, slots=True)
class Opened:
    """A table for a new sequence: its first `cached` tokens are there once `copy` (from, to) has been carried out, and, where
    there are checkpoints, the state at `state` has been copied."""

    table: BlockTable
    cached: int
    copy: tuple[int, int] | None
    state: int | None = None  # the place of a checkpoint
    known: int = 0  # leading tokens whose keys and values are known, if not the state after them


@dataclasses.dataclass(frozen=True, slots=True)
class _Content:
    """What a block holds."""

    parent: bytes  # digest of all that stands before it
    tokens: list[int]  # BLOCK_TOKENS of them, or fewer
    key: bytes | None  # digest up to its end, if it is full


class BlockPool:
    """Hands out blocks 0 .. n_blocks - 1. `checkpoints`: of a model that has a state too; it goes on only from one of these."""

    def __init__(self, n_blocks: int, checkpoints: Checkpoints | None = None) -> None:
        self.n_blocks, self.checkpoints = n_blocks, checkpoints
        self._holders = [0] * n_blocks
        self._blank = list(range(n_blocks - 1, -1, -1))
        self._idle: OrderedDict[int, None] = OrderedDict()  # least recently used first
        self._content: dict[int, _Content] = {}
        self._by_key: dict[bytes, int] = {}
        self._after: dict[bytes, dict[int, None]] = {}  # digest -> blocks whose content follows it, oldest first

    @property
    def n_blank(self) -> int:
        return len(self._blank)

    @property
    def n_idle(self) -> int:
        return len(self._idle)

    @property
    def n_free(self) -> int:
        """Blocks that a sequence may have."""
        return len(self._blank) + len(self._idle)

    def extend(self, n_blocks: int) -> None:
        """Have so many blocks from now on; never fewer than before."""
        more = range(self.n_blocks, n_blocks)
        self._holders += [0] * len(more)
        self._blank[:0] = reversed(more)
        self.n_blocks += len(more)

    def open(self, tokens: Sequence[int], spare: int = 0) -> Opened | None:
        """A table with room for `tokens`, reusing what is known of them; at least the last token is left to compute.

        None, and nothing changed, if fewer than `spare` blocks would then be free.
        """
        blocks, keys = self._match(tokens)
        known, state = len(blocks) * BLOCK_TOKENS, None
        if self.checkpoints is not None:
            count, state = self.checkpoints.longest(keys)
            del blocks[count:], keys[count:]
        need = blocks_for(len(tokens)) - len(blocks)
        left = self.n_free - sum(not self._holders[block] for block in blocks) - need
        if left < spare:
            return None
        source, copied = None, 0
        if self.checkpoints is None:
            source, copied = self._similar(keys[-1] if keys else _ROOT, tokens[len(blocks) * BLOCK_TOKENS : -1])
        if source is not None and left < 1 and not self._holders[source]:
            source, copied = None, 0  # the source itself is needed
        cached = len(blocks) * BLOCK_TOKENS + copied
        for block in blocks:
            self._hold(block)
        if source is None:
            blocks += [self._take() for _ in range(need)]
            return Opened(BlockTable(blocks, keys), cached, None, state, known)
        self._hold(source)
        fresh = [self._take() for _ in range(need)]
        self._release(source)
        return Opened(BlockTable(blocks + fresh, keys), cached, (source, fresh[0]))

    def grow(self, table: BlockTable, n_tokens: int) -> bool:
        """Make room for `n_tokens` in all; False, and nothing changed, if there are too few free blocks."""
        need = blocks_for(n_tokens) - len(table.blocks)
        if need > self.n_free:
            return False
        table.blocks += [self._take() for _ in range(need)]
        return True

    def seal(self, table: BlockTable, tokens: Sequence[int], computed: int) -> None:
        """Make the blocks known that are full now that the first `computed` of `tokens` are in the cache."""
        for index in range(len(table.keys), computed // BLOCK_TOKENS):
            parent = table.keys[-1] if table.keys else _ROOT
            content = list(tokens[index * BLOCK_TOKENS : (index + 1) * BLOCK_TOKENS])
            key = _digest(parent, content)
            table.keys.append(key)
            if key not in self._by_key:  # else another sequence computed the same at the same time
                self._by_key[key] = table.blocks[index]
                self._remember(table.blocks[index], _Content(parent, content, key))

    def close(self, table: BlockTable, tokens: Sequence[int], computed: int) -> None:
        """Give all blocks back. What they hold, the first `computed` of `tokens`, stays known while they are idle."""
        self.seal(table, tokens, computed)
        full = len(table.keys)
        rest = list(tokens[full * BLOCK_TOKENS : computed])
        parent = table.keys[-1] if table.keys else _ROOT
        if len(rest) >= MIN_COPY and self._similar(parent, rest)[1] < len(rest):
            self._remember(table.blocks[full], _Content(parent, rest, None))
        for block in reversed(table.blocks):  # the end of a text is of less use than its beginning: it is taken first
            self._release(block)
        table.blocks, table.keys = [], []

    # ------------------------------------------------------------ what is known

    def _match(self, tokens: Sequence[int]) -> tuple[list[int], list[bytes]]:
        """The known full blocks that `tokens` begin with, the last token left out."""
        blocks: list[int] = []
        keys: list[bytes] = []
        parent = _ROOT
        for start in range(0, len(tokens) - BLOCK_TOKENS, BLOCK_TOKENS):
            parent = _digest(parent, tokens[start : start + BLOCK_TOKENS])
            block = self._by_key.get(parent)
            if block is None:
                break
            blocks.append(block)
            keys.append(parent)
        return blocks, keys

    def _similar(self, parent: bytes, tokens: Sequence[int]) -> tuple[int | None, int]:
        """The block after `parent` that begins most like `tokens`, and in how many tokens; (None, 0) if it does not pay."""
        best, length = None, MIN_COPY - 1
        for block in itertools.islice(reversed(self._after.get(parent, {})), MAX_CANDIDATES):
            common = _common(self._content[block].tokens, tokens)
            if common > length:
                best, length = block, common
        return (None, 0) if best is None else (best, length)

    def _remember(self, block: int, content: _Content) -> None:
        assert block not in self._content
        self._content[block] = content
        self._after.setdefault(content.parent, {})[block] = None

    def _forget(self, block: int) -> None:
        content = self._content.pop(block)
        siblings = self._after[content.parent]
        del siblings[block]
        if not siblings:
            del self._after[content.parent]
        if content.key is not None:
            del self._by_key[content.key]

    # ------------------------------------------------------------ who has it

    def _take(self) -> int:
        """A block for one sequence to write."""
        if self._blank:
            block = self._blank.pop()
        else:
            block, _ = self._idle.popitem(last=False)
            self._forget(block)
        self._holders[block] = 1
        return block

    def _hold(self, block: int) -> None:
        if not self._holders[block]:
            del self._idle[block]
        self._holders[block] += 1

    def _release(self, block: int) -> None:
        self._holders[block] -= 1
        assert self._holders[block] >= 0
        if self._holders[block]:
            return
        if block in self._content:
            self._idle[block] = None
        else:
            self._blank.append(block)


def _digest(parent: bytes, tokens: Sequence[int]) -> bytes:
    return hashlib.blake2b(array("i", tokens).tobytes(), key=parent, digest_size=16).digest()


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common prefix."""
    length = min(len(a), len(b))
    for i in range(length):
        if a[i] != b[i]:
            return i
    return length
