"""The GPU executor: a model whose weights fit a card in f16 runs there as a whole."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch

from runtime import models
from runtime.core import BLOCK_TOKENS, Batch, FloatArray
from runtime.execute.torch_ops import TorchOps, TorchStep
from runtime.kernels.leaves import Leaves
from runtime.models.transformer import Transformer
from runtime.weights import Progress, Weights, open_weights

log = logging.getLogger(__name__)

MAX_OUTPUTS = 128  # logits rows of one step
RESERVE = 1 << 30  # bytes of the card that are left to activations and to CUDA itself


class TorchExecutor:
    """Implements runtime.core.Executor on a torch device."""

    def __init__(
        self, weights: Weights, model: Transformer, device: torch.device, blocks: int, rows: int, progress: Progress
    ) -> None:
        self._model = model
        dtype = torch.float16 if device.type == "cuda" else torch.float32
        self._ops = TorchOps(device, dtype, blocks, Leaves())
        tensors = [tensor for tensor in weights if len(tensor.shape) > 1]
        for done, tensor in enumerate(tensors, 1):
            self._ops.weight(tensor)
            progress("uploading weights", done, len(tensors))
        config = model.config
        self.n_vocab = config.n_vocab
        self.n_ctx_train = config.context_length
        self.n_blocks = blocks
        self.max_rows = rows
        self.max_outputs = min(rows, MAX_OUTPUTS)
        bytes_each = dtype.itemsize
        cache = blocks * block_values(model) * bytes_each
        self.size = sum(int(np.prod(tensor.shape)) for tensor in tensors) * bytes_each + cache
        self.size_vram = self.size if device.type == "cuda" else 0
        self.placement = f"all {config.block_count} layers on {device} ({self.size / 2**20:.0f} MiB as {str(dtype)[6:]})"

    def forward(self, batch: Batch) -> FloatArray:
        """Logits (outputs, n_vocab) of the batch's wanted rows."""
        with torch.inference_mode():
            self._ops.step = TorchStep(batch, self._ops.device)
            logits: FloatArray = self._model(self._ops).float().cpu().numpy()
        return logits

    def copy_blocks(self, pairs: list[tuple[int, int]]) -> None:
        """Copy whole blocks of the cache, (from, to), on every layer."""
        with torch.inference_mode():
            for source, target in pairs:
                there, here = (slice(block * BLOCK_TOKENS, (block + 1) * BLOCK_TOKENS) for block in (target, source))
                for keys, values in self._ops.caches:
                    keys[there], values[there] = keys[here].clone(), values[here].clone()

    def close(self) -> None:
        """Give the device's memory back."""
        del self._ops, self._model
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def block_values(model: Transformer) -> int:
    """Keys and values of one block of the cache, on all layers."""
    config = model.config
    return config.block_count * BLOCK_TOKENS * config.head_count_kv * (config.key_length + config.value_length)


def bytes_needed(weights: Weights, model: Transformer, blocks: int) -> int:
    """Bytes of the card that the model takes in f16."""
    values = sum(int(np.prod(tensor.shape)) for tensor in weights)
    return 2 * (values + blocks * block_values(model)) + RESERVE


def load(
    path: str | Path,
    *,
    num_ctx: int,
    num_parallel: int,
    num_batch: int,
    main_gpu: int,
    progress: Progress,
) -> TorchExecutor | None:
    """The model on the card `main_gpu`; None, with the reason in the log, where it does not fit or the card cannot be used."""
    weights = open_weights(path, progress)
    try:
        model = models.build(weights)
        blocks = num_parallel * -(-min(num_ctx, model.config.context_length) // BLOCK_TOKENS) + 1
        device = torch.device("cuda", main_gpu)
        free, _ = torch.cuda.mem_get_info(device)
        needed = bytes_needed(weights, model, blocks)
        if needed > free:
            sizes = needed / 2**30, main_gpu, free / 2**30
            log.info("the model needs %.1f GiB in f16, GPU %d has %.1f GiB free: it runs on the CPU", *sizes)
            return None
        return TorchExecutor(weights, model, device, blocks, min(num_batch, 4096), progress)
    except (RuntimeError, AssertionError) as error:  # what torch raises for a missing, broken or full card
        log.warning("GPU %d cannot be used: %s; the model runs on the CPU", main_gpu, error)
        return None
    finally:
        weights.close()
