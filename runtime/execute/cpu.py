"""The CPU executor: a recorded Program on the thread pool."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

from runtime import models
from runtime.core import LONGEST, Batch, FloatArray
from runtime.execute import strips
from runtime.execute.budget import Budget, batch
from runtime.execute.needs import head_sizes
from runtime.execute.recorded import Recorded
from runtime.execute.recorder import Recorder
from runtime.execute.step import Limits
from runtime.kernels import compile as kernel_compile
from runtime.kernels import cores, kept
from runtime.kernels.kept import Kept
from runtime.kernels.leaves import Leaves
from runtime.models.transformer import Transformer
from runtime.weights import Progress, Tensor, Weights, open_weights

MAX_OUTPUTS = 128  # logits rows of one step
THREAD_BYTES = 8 << 20  # weights a token for each thread: with less, threads wait for one another more than they compute


@dataclasses.dataclass(frozen=True, slots=True)
class Sizes:
    """How large an executor is made."""

    budget: Budget
    num_ctx: int  # tokens of a sequence
    parallel: int  # sequences that are promised so many
    longer: int  # of these, those that a longer context is promised to as well
    rows: int  # of a step
    promised: int  # blocks
    blocks: int

    @classmethod
    def chosen(cls, budget: Budget, num_ctx: int, num_parallel: int, num_batch: int) -> Sizes:
        """By what is asked for; 0 leaves it to the memory."""
        num_ctx = num_ctx or budget.context()
        parallel = num_parallel or budget.parallel(num_ctx)
        rows = max(1, min(num_batch or batch(num_ctx), 4096))
        promised, blocks = budget.promised(num_ctx, parallel), budget.blocks(num_ctx, parallel)
        return cls(budget, num_ctx, parallel, num_parallel or 1, rows, promised, blocks)

    def grown(self, num_ctx: int, memory: int) -> Sizes:
        """With the blocks of a longer context, as far as the memory that is free now holds them."""
        longer = dataclasses.replace(self.budget, memory=memory).promised(num_ctx, self.longer)
        more = max(0, longer - 1 - self.longer * self.budget.blocks_of(self.num_ctx))
        num_ctx = max(num_ctx, self.num_ctx)
        return dataclasses.replace(self, num_ctx=num_ctx, promised=self.promised + more, blocks=self.blocks + more)

    def limits(self) -> Limits:
        """With addresses for all that the context may grow to."""
        table = self.budget.blocks_of(max(LONGEST, self.num_ctx))
        reserved = max(self.blocks, self.parallel * table + 1)
        outputs = min(self.rows, MAX_OUTPUTS)
        return Limits(self.rows, outputs, reserved, self.blocks, table + 1, outputs + self.budget.checkpoints)


class CpuExecutor:
    """Implements runtime.core.Executor."""

    def __init__(self, weights: Weights, model: Transformer, leaves: Leaves, threads: int, sizes: Sizes, kind: Kept) -> None:
        self.leaves, self.threads = leaves, threads
        self.bytes_per_token = bytes_per_token(weights, model)
        self._weights = weights
        self._sizes = sizes
        limits = sizes.limits()
        self._recorder = Recorder(leaves, threads, limits, strip_rows(leaves, weights), kind)
        self._recorded = Recorded(self._recorder, model(self._recorder), threads)
        self._closed = False
        config = model.config
        self.n_vocab = config.n_vocab
        self.n_ctx_train = config.context_length
        self.num_ctx = sizes.num_ctx
        self.n_blocks = min(sizes.blocks, self._recorder.blocks)
        self.max_rows = limits.rows
        self.max_outputs = limits.outputs
        self.several = True
        self.lines, self.checkpoints = limits.outputs, sizes.budget.checkpoints
        self.size = self._size(sizes.promised)
        self.size_vram = 0
        plural, where = "s" if threads > 1 else "", "" if weights.writable else ", read from the file as they are used"
        layers = f"{config.block_count} layers on the CPU ({weights.nbytes / 2**20:.0f} MiB{where})"
        self.placement = f"{layers}, {threads} thread{plural}"

    def forward(self, batch: Batch) -> FloatArray:
        """Logits (outputs, n_vocab) of the batch's wanted rows; the view is valid until the next call."""
        self._recorded.run(batch)
        return self._recorded.result[: len(batch.outputs)]

    def timed(self, batch: Batch) -> list[tuple[str, float]]:
        """One pass, and for each row of the Program its label (see Recorder) and its share of the time."""
        return self._recorded.timed(batch)

    def copy_blocks(self, pairs: list[tuple[int, int]]) -> None:
        """Copy whole blocks of the cache, (from, to), on every layer."""
        self._recorded.copy_blocks(pairs)

    def copy_states(self, pairs: list[tuple[int, int]]) -> None:
        """Copy states of texts, (from, to), on every layer that keeps them."""
        self._recorded.copy_states(pairs)

    def grow(self, num_ctx: int, memory: int) -> int:
        """Let the cache hold longer contexts: the blocks that there are now, old ones where they were. `memory`: bytes free."""
        self._sizes = self._sizes.grown(num_ctx, memory)
        self.n_blocks = min(self._sizes.blocks, self._recorder.blocks)
        self.size = self._size(min(self._sizes.promised, self.n_blocks))
        return self.n_blocks

    def _size(self, blocks: int) -> int:
        """Bytes resident with so many blocks, and the states of as many texts as run and are kept."""
        return self._weights.resident + self._recorder.nbytes(blocks, self._sizes.parallel + self.checkpoints)

    def close(self) -> None:
        """Stop the threads, then give the weights back."""
        if not self._closed:
            self._closed = True
            self._recorded.close()
            self._weights.close()


def load(
    path: str | Path,
    *,
    num_ctx: int,
    num_parallel: int,
    num_batch: int,
    num_thread: int,
    kv_cache_type: str,
    adapters: Sequence[str] = (),
    memory: int = 0,
    mapped: bool = False,
    progress: Progress,
) -> CpuExecutor:
    """Read a GGUF model and record it for the CPU. Raises GGUFError, ModelError or MemoryError.

    `memory`: bytes that are free before the load, 0 where nobody knows; by it go `num_ctx`, `num_parallel` and `num_batch` where
    they are 0. `mapped`: weights stay in the file.
    """
    weights = open_weights(path, progress, adapters, mapped=mapped)
    model = models.build(weights)
    leaves, kind = Leaves(), kept.chosen(kv_cache_type, *head_sizes(model))
    kernel_compile.keep(leaves, kernels(leaves, weights, kind, writable=weights.writable), progress)
    most_useful = max(1, bytes_per_token(weights, model) // THREAD_BYTES)
    threads = num_thread if num_thread > 0 else min(cores.physical(), most_useful)
    free = memory // 2 if mapped else memory and max(1, memory - weights.resident)  # the file's pages need some too
    room = budget(model, free, kind)
    return CpuExecutor(weights, model, leaves, threads, Sizes.chosen(room, num_ctx, num_parallel, num_batch), kind)


def strip_rows(leaves: Leaves, weights: Weights) -> int:
    """Rows of the strips that these weights are multiplied in; 0: as the file has them."""
    return leaves.strip_rows if weights.writable else 0


def kernels(leaves: Leaves, tensors: Iterable[Tensor], kind: Kept, *, writable: bool = True) -> list[str]:
    """Names of the kernels that a model of these tensors needs. `writable`: they may be laid out anew."""
    tensors = list(tensors)
    plain, in_strips = strips.types(tensors, leaves.strip_rows if writable else 0)
    modules = kernel_compile.modules_for(tensor.name for tensor in tensors)
    return [*kernel_compile.CHOOSING, *kernel_compile.names(leaves.tier, plain, modules, in_strips, kind)]


def bytes_per_token(weights: Weights, model: Transformer) -> int:
    """Bytes of weights that one token's decode reads: all, but of the experts only those that are chosen, and of an
    embedding table that is not the output nothing."""
    config, output = model.config, model.output.weight.name
    total = 0
    for tensor in weights:
        if tensor.name == model.token_embd.weight.name != output:
            continue
        stacked = "_exps." in tensor.name
        total += tensor.nbytes * config.expert_used_count // config.expert_count if stacked else tensor.nbytes
    return total


def budget(model: Transformer, memory: int, kind: Kept) -> Budget:
    """Of the model's cache. `memory`: bytes free beside its weights, 0 where nobody knows."""
    block = sum(h.head_count_kv * (kind.head_bytes(h.key_length) + kind.head_bytes(h.value_length)) for h in model.heads)
    return Budget(max(1, block), model.config.context_length, memory, model.state_bytes())
