"""The hybrid executor: attention, router, dense layers and the hottest experts on the GPU, the other experts on the CPU.

A step of few rows is one captured graph; the CPU answers the graph's tickets meanwhile. A step of many rows streams the
experts that are not in VRAM through staging buffers on the card.
"""

from __future__ import annotations

import concurrent.futures
import logging
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from runtime import models
from runtime.core import LONGEST, Batch, CannotGrow, CardTaken, FloatArray, IntArray, ModelError, blocks_for
from runtime.cuda.blocks import BlockMemory
from runtime.cuda.module import Module
from runtime.cuda.nvrtc import CudaError
from runtime.execute import shares
from runtime.execute.budget import DEFAULT_CONTEXT
from runtime.execute.cards import Choice
from runtime.execute.cpu import bytes_per_token
from runtime.execute.cuda_attention import kernels as attention_kernels
from runtime.execute.cuda_ops import CudaOps
from runtime.execute.cuda_values import Value
from runtime.execute.device_step import BUCKETS, DeviceStep, bucket
from runtime.execute.needs import (
    CHECKPOINTS,
    MAX_OUTPUTS,
    first_layer,
    head_sizes,
    planned,
    ram_bytes,
    text_bytes,
    texts,
)
from runtime.execute.parts import Options, Parts
from runtime.execute.placement import SLACK, NoRoom, Plan
from runtime.execute.shortlist import LIST, Shortlist
from runtime.frames import Load
from runtime.kernels import cores, kept
from runtime.kernels.kept import Kept
from runtime.kernels.leaves import Leaves
from runtime.models.transformer import Transformer
from runtime.weights import Progress, Weights, open_weights

log = logging.getLogger(__name__)

MOST_PARTS = 4  # shares over PCIe that are tried: none, one expert of a token, two, three
PROBED_TOKENS = 6  # of a turn

Graphs = dict[int, tuple[torch.cuda.CUDAGraph, torch.Tensor]]  # by the most rows of their steps, with the logits


class HybridExecutor:
    """Implements runtime.core.Executor, Growing, OnCard and Watched."""

    def __init__(self, weights: Weights, model: Transformer, chosen: Plan, module: Module, options: Options) -> None:
        config, device = model.config, module.device
        self._weights, self._model, self._module = weights, model, module
        self._stream = torch.cuda.Stream(device)
        self.n_vocab = config.n_vocab
        self.n_ctx_train = config.context_length
        self.num_ctx = options.num_ctx
        self.n_blocks = chosen.blocks
        self.max_rows = options.rows
        self.max_outputs = options.outputs
        self.several = True
        self.lines, self.checkpoints = options.texts, CHECKPOINTS if model.state_bytes() else 0
        self._logits = torch.zeros((self.max_outputs, config.n_vocab), pin_memory=True)
        self._list = Shortlist(self.max_outputs, pinned=True)
        self.shortlist = LIST if config.n_vocab > LIST else 0
        self._graphs: Graphs = {}
        self._first = chosen.first
        self._helper = concurrent.futures.ThreadPoolExecutor(1)
        self._parts: Parts | None = None
        leaves = Leaves()
        longest = max(options.num_ctx, min(config.context_length, LONGEST))
        table, more = blocks_for(longest) + 1, blocks_for(longest) - blocks_for(options.num_ctx)
        self._blocks = BlockMemory(device, module.pages(), chosen.blocks, chosen.blocks + more)
        self._spare = chosen.spare
        self._card = options.card
        try:
            with torch.inference_mode(), torch.cuda.stream(self._stream):
                self._step = DeviceStep(self.max_rows, self.max_outputs, table, device)
                kinds = {tensor.quant for tensor in weights if len(tensor.shape) > 1}
                self._ops = CudaOps(module, self._step, self._blocks, leaves, kinds, options.kept)
                self._ops.lines = self.lines + self.checkpoints
                self._parts = Parts(weights, model, module, self._blocks, self._step, self._ops)
                self._cache = self._parts.place(chosen, leaves, options)
                self._program, self._front, self._streamer = self._parts.program, self._parts.front, self._parts.streamer
                self._warm()
                if self._program and self._parts.pinned:
                    self._ops.over_pcie = self._best_share() if options.over_pcie is None else options.over_pcie
                    self._graphs = {}
        except BaseException:  # an interrupt too: the memory of the card and of the kernels goes back
            self._release()
            raise
        self.size = max(weights.nbytes, chosen.vram)
        self.size_vram = chosen.vram
        self.pinned = self._parts.pinned if self._program else None
        self.gpu = self._card.number
        self.placement = chosen.words + (", in memory that is not pinned" if self.pinned is False else "")
        self.threads = options.threads or cores.physical() if self._program or self._front else 1
        self.bytes_per_token = bytes_per_token(weights, model)
        self.ram_bytes_per_token = ram_bytes(weights, model, chosen)
        if not self._program and not self._front:
            weights.close()

    def forward(self, batch: Batch) -> FloatArray:
        """Logits (outputs, n_vocab) of the batch's wanted rows; the view is valid until the next call."""
        self._run(batch, whole=True)
        logits: FloatArray = self._logits[: len(batch.outputs)].numpy()
        return logits

    def likeliest(self, batch: Batch) -> list[tuple[IntArray, FloatArray]]:
        """See runtime.core.Shortlisting."""
        logits, found = self._run(batch, whole=False), []
        for row in range(len(batch.outputs)):
            best = self._list.row(row)
            if best is None:  # too many equal ones
                values = logits[row].cpu().numpy()
                best = np.arange(self.n_vocab, dtype=np.int32), values
            found.append(best)
        return found

    def _run(self, batch: Batch, *, whole: bool) -> torch.Tensor:
        """A step; its logits on the card, and on the host, if they are wanted as a `whole`."""
        rows, outputs = len(batch.tokens), len(batch.outputs)
        few = rows <= min(BUCKETS[-1], self.max_outputs)
        self._step.fill(batch, apart=few)
        if self._front:
            self._front.run(batch)
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            self._cache.begin(rows)
            return self._replay(rows, outputs, whole) if few else self._eager(batch, rows, outputs, whole)

    @property
    def expert_hits(self) -> int:
        """Experts of rows that were found in VRAM; whole-prompt passes do not count."""
        return self._cache.hits

    @property
    def expert_lookups(self) -> int:
        """Experts of rows that were looked up."""
        return self._cache.lookups

    @property
    def over_pcie(self) -> float:
        """The part of the absent experts that the card reads from RAM by itself."""
        return self._ops.over_pcie

    def launches(self) -> list[tuple[str, str]]:
        """The kernels of a lone token's graph in their order: their names, and the tensor that each multiplies by, or nothing. In
        this graph, which is the one for lone tokens from now on, none starts early: so each has the time that it takes."""
        found: list[tuple[str, str]] = []
        self._module.seen = lambda name, arguments: found.append((name, self._ops.tensor_of(arguments)))
        try:
            with torch.inference_mode(), torch.cuda.stream(self._stream):
                self._graphs[1] = self._capture(1, early=False)
        finally:
            self._module.seen = None
        return found

    def watch_experts(self, steps: int, step: Callable[[], object]) -> float:
        """Seconds that the CPU computes experts for in one of so many steps; 0 where it has none."""
        if self._program is None:
            return 0.0
        self._program.busy = []
        try:
            for _ in range(steps):
                step()
            return statistics.median(self._program.busy)
        finally:
            self._program.busy = None

    def front_rows(self, batch: Batch) -> list[tuple[str, float]]:
        """The first layers' rows on the CPU in a pass of them alone, see Front.timed."""
        return self._front.timed(batch) if self._front else []

    def copy_blocks(self, pairs: list[tuple[int, int]]) -> None:
        """Copy whole blocks of the cache, (from, to), on every layer."""
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            for source, target in pairs:
                for keys, values in self._ops.caches.values():
                    keys[target].copy_(keys[source])
                    values[target].copy_(values[source])
        if self._front:
            self._front.copy_blocks(pairs)

    def copy_states(self, pairs: list[tuple[int, int]]) -> None:
        """Copy states of texts, (from, to), on every layer that keeps them."""
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            self._ops.copy_states(pairs)
        if self._front:
            self._front.copy_states(pairs)

    def grow(self, num_ctx: int, memory: int) -> int:
        """Let the cache hold longer contexts; blocks, and the graphs that read them, stay as they are."""
        num_ctx = min(num_ctx, self.n_ctx_train)
        blocks = self.n_blocks + max(0, blocks_for(num_ctx) - blocks_for(self.num_ctx))
        if blocks > self._blocks.most:
            raise CannotGrow(f"there are addresses for {self._blocks.most} blocks, and not for {blocks}")
        needed = self._blocks.needed(blocks) + text_bytes(self._model, num_ctx) - text_bytes(self._model, self.num_ctx)
        room = max(0, min(self._spare, torch.cuda.mem_get_info(self._module.device)[0] - SLACK))
        if needed > room:
            raise CannotGrow(f"{needed >> 20} MiB more are needed on the card, and {room >> 20} MiB are free")
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            self._blocks.grow(blocks)
        self._spare -= needed
        self.size, self.size_vram = self.size + needed, self.size_vram + needed
        self.n_blocks, self.num_ctx = blocks, max(num_ctx, self.num_ctx)
        return blocks

    def shares(self, main_gpu: int | None) -> bool:
        """Whether a model that were loaded now would come to the same card."""
        return self._card.is_for(main_gpu)

    def give_back(self, nbytes: int, models: int) -> int:
        """Let the card have so many bytes free for another one of `models` models, as far as there are places for experts that
        the CPU computes as well; an equal share of them stays. Returns the bytes of the card that this model has then."""
        torch.cuda.empty_cache()
        lacking = nbytes - torch.cuda.mem_get_info(self._module.device)[0]
        held = self._cache.partial_bytes
        if lacking <= 0 or not held or self._streamer is None:
            return self.size_vram
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            self._graphs.clear()
            freed = self._cache.shrink(max(1 / models, 1 - lacking / held))
            self._streamer = self._streamer.renewed()
            self._ops.stream_by(self._streamer)
            self._stream.synchronize()
        torch.cuda.empty_cache()
        self.size_vram -= freed
        log.info("%.1f GiB of experts leave the card for another model", freed / 2**30)
        return self.size_vram

    def stuck(self) -> str:
        """Why the step that runs will not end, or ""."""
        return self._ops.mailbox.stuck() if self._ops.mailbox else ""

    def close(self) -> None:
        """Stop the threads and give the memory of both sides back."""
        self._release()
        self._parts = None
        del self._ops, self._model, self._cache, self._streamer, self._step, self._logits
        self._blocks.close()
        self._weights.close()
        torch.cuda.empty_cache()

    def _release(self) -> None:
        """Stop the threads and whatever the card does, and let go of the host's memory."""
        if self._parts:
            self._parts.stop()
        self._helper.shutdown()
        self._graphs.clear()
        torch.cuda.synchronize(self._module.device)
        if self._parts:
            self._parts.release()

    # ------------------------------------------------------------ a step

    def _replay(self, rows: int, outputs: int, whole: bool) -> torch.Tensor:
        size = bucket(rows)
        if size not in self._graphs:
            self._graphs[size] = self._capture(size)
        graph, logits = self._graphs[size]
        graph.replay()
        if whole:
            self._fetch(logits, outputs)
        if self._program:
            self._program.run(rows)
        self._cache.move()
        self._finish()
        return logits

    def _fetch(self, logits: torch.Tensor, outputs: int) -> None:
        self._logits[:outputs].copy_(logits[:outputs], non_blocking=True)

    def _capture(self, size: int, *, early: bool = True) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
        self._ops.begin(size, size, None)
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            self._module.early = early and self._module.starts_early
            try:
                logits = self._compute(size)
            finally:
                self._module.early = False
        return graph, logits

    def _eager(self, batch: Batch, rows: int, outputs: int, whole: bool) -> torch.Tensor:
        streamed = self._streamer is not None and self._parts is not None and rows > self._parts.handed_rows
        self._ops.begin(bucket(rows), bucket(outputs), batch)
        handed = self._program if not streamed else None
        job = self._helper.submit(handed.run, rows) if handed else None
        if streamed and self._streamer:
            self._cache.settle()
            self._streamer.start(self._stream)
        try:
            logits = self._compute(len(batch.tables))
            if whole:
                self._fetch(logits, outputs)
        except BaseException:  # whatever it is: the CPU waits for tickets that will not come
            if self._ops.mailbox:
                self._ops.mailbox.abort()
            raise
        finally:
            if job:
                job.result()
            if self._streamer:
                self._streamer.stop()
        self._finish()
        return logits

    def _compute(self, sequences: int) -> torch.Tensor:
        self._step.upload(sequences)
        logits: Value = self._model.end(self._ops, self._begin(), self._first)
        self._ops.list_likeliest(logits, self._list)
        self._cache.report()
        return logits.data

    def _begin(self) -> Value:
        """The rows that the card's first layer gets."""
        if self._front:
            return self._ops.given(self._front.upload(self._ops.rows))
        x: Value = self._model.begin(self._ops, 0)
        return x

    def _finish(self) -> None:
        self._stream.synchronize()
        if self._ops.mailbox:
            self._ops.mailbox.check()

    # ------------------------------------------------------------ the first steps

    def _best_share(self) -> float:
        """The part of the absent experts that is best read over PCIe, measured on tokens at the start of a text."""
        used = self._model.config.expert_used_count
        tried = [part / used for part in range(1, min(used, MOST_PARTS))]
        graphs: dict[float, Graphs] = {share: {} for share in (0.0, *tried)}
        gains = shares.gains(tried, lambda share: self._seconds_a_token(share, graphs[share]))
        words = ", ".join(f"{share:.3f}: {gain:.2f}" for share, gain in gains.items())
        log.info("speed by the share of experts read over PCIe, against none: %s", words)
        return shares.best(gains)

    def _seconds_a_token(self, over_pcie: float, graphs: Graphs) -> float:
        """With this share, and the graphs that were captured with it."""
        self._ops.over_pcie, self._graphs = over_pcie, graphs
        zero, times = np.zeros(1, np.int32), []
        for i in range(PROBED_TOKENS):
            token = np.array([i * 7919 % self.n_vocab], np.int32)
            batch = Batch(token, zero, zero, np.zeros((1, 1), np.int32), zero)  # into block 0, which is no text's
            self._step.fill(batch, apart=True)
            start = time.perf_counter()
            self._replay(1, 1, whole=False)
            times.append(time.perf_counter() - start)
        return statistics.median(times[2:])  # the first one may capture

    def _warm(self) -> None:
        """A step without rows, so that nothing is loaded for the first time while a graph is captured."""
        self._ops.begin(1, 1, None)
        job = self._helper.submit(self._program.run, 0) if self._program else None
        self._compute(1)
        if job:
            job.result()
        self._finish()


def load(
    request: Load,
    progress: Progress,
    *,
    mapped: bool = False,
    resident: int | None = None,
    over_pcie: float | None = None,
    card: Choice | None = None,
) -> HybridExecutor | None:
    """The model with its attention on a card; None, with the reason in the log, where that cannot be.

    `card`: the one that this process keeps to, if it has chosen; else all are seen, and it is `main_gpu`. `mapped`: weights stay
    in the file. `resident`: experts of a layer that may lie in VRAM; `over_pcie`: see CudaOps.

    Raises GGUFError for a file that is none, CardTaken where only other models of this server are in the way.
    """
    gpu = request.main_gpu or 0
    card = card or Choice(gpu, gpu)
    try:
        if card.device >= torch.cuda.device_count():
            raise CudaError(f"there is no such card, but {torch.cuda.device_count()}")
        _have_room(request, resident, card.device)
    except (CudaError, NoRoom, ModelError, RuntimeError) as error:
        log.warning("GPU %d cannot be used: %s; the model runs on the CPU", gpu, error)
        return None
    weights = open_weights(request.path, progress, mapped=mapped)
    try:
        model = models.build(weights)
        kinds = {tensor.quant.name if tensor.quant.cuda else "F16" for tensor in weights if len(tensor.shape) > 1}
        kind = kept.chosen(request.kv_cache_type, *head_sizes(model))
        module = Module(kinds, torch.device("cuda", card.device), Leaves().cache.folder, attention_kernels(model.heads, kind))
        vram = _vram(request, card.device)
        share = over_pcie if request.pcie else 0.0
        while True:
            try:
                return _open(weights, model, module, request, card, kind, vram, resident, share, progress)
            except torch.OutOfMemoryError as error:
                vram = vram * 4 // 5
                log.warning("the plan did not fit (%s): planning for %.1f GiB", str(error).split(".")[0], vram / 2**30)
                torch.cuda.empty_cache()
    except CardTaken:
        weights.close()
        raise
    except (CudaError, NoRoom, ModelError, RuntimeError, AssertionError) as error:  # the last two are torch's
        log.warning("GPU %d cannot be used: %s; the model runs on the CPU", gpu, error)
        weights.close()
        return None


def _vram(request: Load, device: int) -> int:
    """Bytes of the card that the model may take."""
    free, _ = torch.cuda.mem_get_info(device)
    return min(max(0, int(free) - request.gpu_overhead), request.vram or int(free))


def _have_room(request: Load, resident: int | None, device: int) -> None:
    """Raises what `_plan` does before the weights are read: the CPU would have to read them once more."""
    weights = open_weights(request.path, lambda *_: None, mapped=True)
    try:
        _plan(weights, models.build(weights), request, _vram(request, device), resident)
    finally:
        weights.close()


def _open(
    weights: Weights,
    model: Transformer,
    module: Module,
    request: Load,
    card: Choice,
    kind: Kept,
    vram: int,
    resident: int | None,
    over_pcie: float | None,
    progress: Progress,
) -> HybridExecutor:
    chosen, rows, num_ctx = _plan(weights, model, request, vram, resident)
    log.info("%s", chosen.words)
    count = texts(request.num_parallel)
    outputs = min(rows, MAX_OUTPUTS)
    options = Options(num_ctx, rows, outputs, request.num_thread, over_pcie, request.pinned, count, kind, card, progress)
    return HybridExecutor(weights, model, chosen, module, options)


def _plan(weights: Weights, model: Transformer, request: Load, vram: int, resident: int | None) -> tuple[Plan, int, int]:
    """The plan, rows of a step, and tokens of a context. Raises NoRoom, and CardTaken where others have what is missing."""
    num_ctx = min(request.num_ctx or DEFAULT_CONTEXT, model.config.context_length)
    try:
        chosen, rows = planned(weights, model, request, num_ctx, vram, resident)
    except NoRoom as error:
        raise (CardTaken if request.shared else NoRoom)(str(error)) from error
    if request.shared and chosen.first > first_layer(request.num_gpu, len(model.blk)):
        raise CardTaken(f"only {len(model.blk) - chosen.first} of {len(model.blk)} layers fit beside other models")
    return chosen, rows, num_ctx
