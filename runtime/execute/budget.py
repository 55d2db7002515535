"""How much context a model gets on the CPU: what is asked for, as far as the memory reaches.

Memory of the cache is taken where it is written, so what is promised and never used costs only addresses. That is why the
addresses of the longest context are reserved at once, and a longer context than the one of the load only adds blocks.
"""

from __future__ import annotations

import dataclasses

from runtime.core import BLOCK_TOKENS

DEFAULT_CONTEXT = 4096  # tokens, where nobody says and the memory is not known
LARGEST_DEFAULT = 262144  # Ollama's largest default too
PARALLEL = 4  # sequences that are promised a whole context, where nobody says
DEFAULT_SHARE = 0.5  # of the free memory, for a context that nobody asked for
CACHE_SHARE = 0.9  # of the free memory, for the whole cache
CHECKPOINTS = 32  # states of texts that are kept for later, at the most
SPARE_BYTES = 512 << 20  # of cache beyond the promised context, for prefixes and for more sequences


@dataclasses.dataclass(frozen=True, slots=True)
class Budget:
    """What the sizes of a cache depend on."""

    block_bytes: int  # of one block on all layers
    trained: int  # tokens
    memory: int  # bytes that are free beside the weights; 0: unknown
    state_bytes: int = 0  # of a text on all layers that keep one

    @property
    def checkpoints(self) -> int:
        """States that are kept for later beside those of the texts that run: two for each of these, more of small ones."""
        return min(CHECKPOINTS, max(2 * PARALLEL, SPARE_BYTES // self.state_bytes)) if self.state_bytes else 0

    def context(self) -> int:
        """Tokens of a context that nobody has named: the longest of a few that leaves half of the memory free."""
        least = min(DEFAULT_CONTEXT, self.trained)
        sizes = {least, self.trained, *(DEFAULT_CONTEXT << step for step in range(1, 7))}
        room = int(self.memory * DEFAULT_SHARE)
        fitting = (n for n in sizes if n <= min(self.trained, LARGEST_DEFAULT) and self.context_bytes(n) <= room)
        return max(fitting, default=least)

    def context_bytes(self, num_ctx: int) -> int:
        """Bytes of the keys and values of so many tokens, and of a state."""
        return self.blocks_of(num_ctx) * self.block_bytes + self.state_bytes

    def blocks_of(self, num_ctx: int) -> int:
        """Blocks of a context, which ends where the training did."""
        return -(-min(num_ctx, self.trained) // BLOCK_TOKENS)

    def parallel(self, num_ctx: int) -> int:
        """Sequences that are promised so many tokens, where nobody says: as many as half of the memory holds, up to PARALLEL."""
        if not self.memory:
            return PARALLEL
        return max(1, min(PARALLEL, int(self.memory * DEFAULT_SHARE) // self.context_bytes(num_ctx)))

    def promised(self, num_ctx: int, parallel: int) -> int:
        """Blocks that hold so many contexts at a time, or all that there is memory for."""
        blocks = parallel * self.blocks_of(num_ctx) + 1
        return max(1, min(blocks, self._most())) if self.memory else blocks

    def blocks(self, num_ctx: int, parallel: int) -> int:
        """Blocks of the pool: those promised, and some more for what may be used again."""
        more = min(SPARE_BYTES // self.block_bytes, 31 * self.blocks_of(num_ctx))
        blocks = self.promised(num_ctx, parallel) + more
        return max(1, min(blocks, self._most())) if self.memory else blocks

    def _most(self) -> int:
        states = (PARALLEL + self.checkpoints) * self.state_bytes
        return max(0, int(self.memory * CACHE_SHARE) - states) // self.block_bytes


def batch(num_ctx: int) -> int:
    """Ollama's own choice of the batch, in tokens, by the context."""
    if num_ctx > 32768:
        return 2048
    return 1024 if num_ctx > 4096 else 512
