"""A model's parts on both sides, made by a plan: weights on the card, what the CPU computes, and how both meet."""

from __future__ import annotations

import dataclasses
import logging

from runtime.cuda.blocks import BlockMemory
from runtime.cuda.module import Module
from runtime.cuda.side import SideStream
from runtime.execute import strips
from runtime.execute.cards import Choice
from runtime.execute.cuda_experts import layer_of
from runtime.execute.cuda_ops import CudaOps
from runtime.execute.cuda_values import memory
from runtime.execute.device_step import BUCKETS, DeviceStep
from runtime.execute.expert_cache import ExpertCache
from runtime.execute.experts import Residence
from runtime.execute.front import Front, FrontSize
from runtime.execute.mailbox import ExpertProgram, Mailbox
from runtime.execute.needs import is_matrix, mixtures, on_card
from runtime.execute.placement import Plan
from runtime.execute.step import Limits
from runtime.execute.streaming import Streamer
from runtime.kernels import compile as kernel_compile
from runtime.kernels import cores
from runtime.kernels.kept import Kept
from runtime.kernels.leaves import Leaves
from runtime.models.transformer import Transformer
from runtime.weights import Progress, Weights

log = logging.getLogger(__name__)

HANDED_ROWS = 256  # at the most, of a step whose experts the CPU computes; more are streamed
PROBED_ROWS = 32  # of the step that tells how fast the CPU is


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """How to load. `threads`: 0 leaves them to us; `over_pcie`: see CudaOps, None: by measurement."""

    num_ctx: int
    rows: int  # of a step
    outputs: int  # rows of logits
    threads: int
    over_pcie: float | None
    pinned: int  # bytes that may be, < 0: any number
    texts: int  # that can have a state at a time, where layers keep one
    kept: Kept  # keys and values
    card: Choice
    progress: Progress


@dataclasses.dataclass(slots=True)
class Parts:
    """What is there so far: where not all can be made, `stop` and `release` undo what was."""

    weights: Weights
    model: Transformer
    module: Module
    blocks: BlockMemory
    step: DeviceStep
    ops: CudaOps
    front: Front | None = None  # the first layers, where the CPU computes them
    program: ExpertProgram | None = None  # the experts that the card has no room for
    streamer: Streamer | None = None  # the same for prompts
    pinned: bool = False  # the weights
    handed_rows: int = 0  # of a step up to which the CPU computes experts

    def place(self, chosen: Plan, leaves: Leaves, options: Options) -> ExpertCache:
        """Make all parts, as planned. Raises CudaError, torch's own errors, ModelError."""
        kernel_compile.keep(leaves, kernel_compile.CHOOSING, options.progress)
        if chosen.first:
            self._keep_back(chosen.first, leaves, options)
        layers = [layer_of(mixture.experts) for mixture in mixtures(self.model, chosen.first)]
        if any(n < layer.experts for n, layer in zip(chosen.resident, layers, strict=True)):
            self._pin(options.pinned)
        stacked = {tensor.name for layer in layers for tensor in layer.tensors}
        done = self._upload_dense(chosen, stacked, options)
        cache = ExpertCache(layers, self.ops.device, SideStream(self.module))
        for residence, count in zip(cache.residences, chosen.resident, strict=True):
            self.ops.residences[residence.layer.gate.name] = residence
            if count:
                done += _upload_experts(residence, count, self.ops)
                options.progress("uploading weights", done, chosen.vram)
        cache.open(moving=self.pinned)
        absent = [residence for residence in cache.residences if not residence.complete]
        if absent:
            self._share(absent, leaves, options, chosen.stages)
        return cache

    def stop(self) -> None:
        """End the CPU's threads."""
        if self.program:
            self.program.close()
        if self.front:
            self.front.close()

    def release(self) -> None:
        """Let go of the host's memory; the card must be done with it."""
        if self.pinned and self.weights.arena:
            self.module.unpin(self.weights.arena[0])

    def _upload_dense(self, chosen: Plan, stacked: set[str], options: Options) -> int:
        """All matrices but experts; returns their bytes."""
        done = 0
        for tensor in self.weights:
            if is_matrix(tensor) and tensor.name not in stacked and on_card(tensor, self.model, chosen.first):
                self.ops.weight(tensor)
                done += tensor.nbytes
                options.progress("uploading weights", done, chosen.vram)
        return done

    def _keep_back(self, first: int, leaves: Leaves, options: Options) -> None:
        """Let the CPU compute the layers before `first`."""
        weights, writable = self.weights, self.weights.writable
        kept = [tensor for tensor in weights if not on_card(tensor, self.model, first)]
        plain, in_strips = strips.types(kept, leaves.strip_rows if writable else 0)
        types = plain | {self.model.token_embd.weight.quant.name}
        modules = kernel_compile.modules_for(tensor.name for tensor in kept)
        kernel_compile.ahead(leaves, types, options.progress, modules, in_strips, options.kept)
        rows, blocks = max(options.rows, BUCKETS[-1]), self.blocks
        limits = Limits(rows, options.outputs, blocks.most, blocks.blocks, self.step.table, self.ops.lines)
        size = FrontSize(first, limits, options.threads or cores.physical(), writable, options.kept)
        self.front = Front(leaves, self.model, size, self.ops.device)

    def _share(self, absent: list[Residence], leaves: Leaves, options: Options, stages: int) -> None:
        """Let the CPU compute what the card has no room for."""
        config, rows = self.model.config, min(HANDED_ROWS, options.rows)
        mailbox = Mailbox(rows, config.embedding_length, config.expert_used_count, pinned=True)
        layers = [residence.layer for residence in absent]
        kernel_compile.ahead(leaves, {t.quant.name for layer in layers for t in layer.tensors}, options.progress)
        threads = options.threads or cores.physical()
        self.program = ExpertProgram(leaves, threads, mailbox, layers)
        self.ops.mailbox = mailbox
        self.streamer = Streamer(absent, self.module, stages)
        self.ops.stream_by(self.streamer)
        probed = min(rows, PROBED_ROWS)
        seconds = mailbox.seconds(leaves, threads, layers[0], probed)
        self.handed_rows = min(rows, _crossover(probed, seconds, self.streamer.seconds()))

    def _pin(self, limit: int) -> None:
        """Let the card read the weights by itself, where they are no more than `limit` (< 0: any number of) bytes."""
        arena = self.weights.arena
        allowed = arena is not None and (limit < 0 or arena[1] <= limit)
        self.pinned = allowed and arena is not None and self.module.pin(*arena)
        if not self.pinned:
            log.warning("%.1f GiB of weights are not pinned%s: experts go to the GPU more slowly", self.weights.nbytes / 2**30,
                        "" if allowed else ", because they may not be")  # fmt: skip


def _upload_experts(residence: Residence, count: int, ops: CudaOps) -> int:
    """The first `count` experts of a layer; returns their bytes."""
    sizes = zip(residence.layer.tensors, residence.layer.sizes, strict=True)
    parts = [memory(tensor.address, count * size).to(ops.device) for tensor, size in sizes]
    residence.keep(parts)
    return sum(part.nbytes for part in parts)


def _crossover(rows: int, seconds: float, streamed: float) -> int:
    """Rows of a step up to which the CPU, which took `seconds` for `rows` of a layer, is faster than streaming the layer."""
    most = max(1, int(rows * streamed / seconds))
    message = "a layer's experts: %.2f ms for %d rows on the CPU, %.2f ms over the bus; more than %d rows are streamed"
    log.info(message, 1e3 * seconds, rows, 1e3 * streamed, most)
    return most
