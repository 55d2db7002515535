"""A model ready to answer: its executor, its tokenizer, and what the server wants to know of it."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

from runtime.core import CardTaken, Encoder, Executor, ModelError, OnCard
from runtime.embedder import Embedder
from runtime.engine import Engine
from runtime.execute.budget import DEFAULT_CONTEXT
from runtime.frames import Load, Loaded
from runtime.gguf_file import GGUFError, open_gguf
from runtime.kernels import cores
from runtime.kernels.isa import IsaError
from runtime.published import translated
from runtime.tokenizer import Tokenizer
from runtime.weights import Progress

_LOG = logging.getLogger(__name__)

MEMORY_SHARE = 0.95  # of the free memory, for weights


class LoadError(Exception):
    """The model cannot be loaded. `kind` is one of runtime.frames.FAILURES."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclasses.dataclass(frozen=True, slots=True)
class Model:
    """What a runner runs."""

    architecture: str
    executor: Executor | Encoder
    tokenizer: Tokenizer
    num_ctx: int = DEFAULT_CONTEXT  # tokens of a sequence where the request leaves them open
    rank_template: str = ""  # how a model that ranks is asked

    def engine(self, num_ctx: int) -> Engine | Embedder:
        """What answers requests with it. `num_ctx`: tokens of a sequence; 0 leaves them open."""
        executor, tokenizer, num_ctx = self.executor, self.tokenizer, num_ctx or self.num_ctx
        if isinstance(executor, Encoder):
            return Embedder(executor, tokenizer, num_ctx, self.rank_template)
        return Engine(executor, tokenizer, num_ctx)

    def loaded(self, num_ctx: int, load_ns: int) -> Loaded:
        """The frame that answers Load. `num_ctx`: what a sequence can have."""
        executor, tokenizer = self.executor, self.tokenizer
        return Loaded(
            architecture=self.architecture,
            num_ctx=num_ctx,
            n_ctx_train=executor.n_ctx_train,
            n_vocab=executor.n_vocab,
            bos_token=self._text(tokenizer.bos_id),
            eos_token=self._text(tokenizer.eos_id),
            add_bos=tokenizer.add_bos,
            control_tokens=tokenizer.control_tokens,
            size=executor.size,
            size_vram=executor.size_vram,
            placement=executor.placement,
            load_ns=load_ns,
            pinned=executor.pinned if isinstance(executor, OnCard) else None,
            gpu=executor.gpu if isinstance(executor, OnCard) else None,
        )

    def _text(self, token: int | None) -> str:
        return "" if token is None else self.tokenizer.token_text(token)


def open_model(request: Load, progress: Progress) -> Model:
    """Read a GGUF file. Raises LoadError or MemoryError."""
    request = _with_usable_threads(request)
    try:
        with open_gguf(request.path) as file:
            architecture = str(file.metadata.get("general.architecture", ""))
            tokenizer = Tokenizer.from_gguf(translated(file))
            rank_template = str(file.metadata.get("tokenizer.chat_template.rerank", ""))
            makes_vectors = f"{architecture}.pooling_type" in file.metadata
            mapped = not makes_vectors and stays_in_file(request, file.size)
        if makes_vectors:
            return Model(architecture, _encoder(request, progress), tokenizer, rank_template=rank_template)
        executor, num_ctx = _executor(request, progress, mapped)
        return Model(architecture, executor, tokenizer, num_ctx)
    except (GGUFError, ModelError, OSError) as error:
        raise LoadError("bad_model", str(error)) from error
    except CardTaken as error:
        raise LoadError("out_of_memory", f"the card is held by other models: {error}") from error
    except IsaError as error:
        raise LoadError("unsupported", str(error)) from error


def _with_usable_threads(request: Load) -> Load:
    threads = cores.usable(request.num_thread)
    if threads < request.num_thread:
        _LOG.info("num_thread is %d, and %d threads can run at the same time: so many are taken", request.num_thread, threads)
    return dataclasses.replace(request, num_thread=threads)


def stays_in_file(request: Load, nbytes: int) -> bool:
    """Whether the weights are more than the memory that is free: then the system reads them from the file as they are used, which
    is slow but does not swap. With `use_mmap` false this is refused (LoadError)."""
    if not request.memory or nbytes <= MEMORY_SHARE * request.memory:
        return False
    needed, free = (f"{n / 2**30:.1f} GiB" for n in (nbytes, request.memory))
    if request.use_mmap is False:
        missing = f"{nbytes - int(MEMORY_SHARE * request.memory)} bytes are missing"
        raise LoadError("out_of_memory", f"model requires more system memory ({needed}) than is available ({free}): {missing}")
    _LOG.warning("the weights (%s) are more than the memory that is free (%s): they are read from the file as they are used, "
                 "which is as slow as the disk", needed, free)  # fmt: skip
    return True


def _executor(request: Load, progress: Progress, mapped: bool) -> tuple[Executor, int]:
    """The executor, and the tokens of a sequence. On a card where there is one that the model fits, else on the CPU. numba takes
    half a second to import and torch more, so a file that is no model has been refused before, and torch is left alone where
    there is no card."""
    from runtime.execute import cards, cpu, placement

    if not request.adapters and placement.wants_gpu(request.num_gpu, request.embedding, Path(request.path).stat().st_size):
        card = cards.keep_to(request.main_gpu)
        from runtime.execute import hybrid

        executor = hybrid.load(dataclasses.replace(request, main_gpu=card.number), progress, mapped=mapped, card=card)
        if executor is not None:
            return executor, executor.num_ctx
    on_cpu = cpu.load(
        request.path,
        num_ctx=request.num_ctx,
        num_parallel=request.num_parallel,
        num_batch=request.num_batch,
        num_thread=request.num_thread,
        kv_cache_type=request.kv_cache_type,
        adapters=request.adapters,
        memory=request.memory,
        mapped=mapped,
        progress=progress,
    )
    return on_cpu, on_cpu.num_ctx


def _encoder(request: Load, progress: Progress) -> Encoder:
    from runtime.execute import encoder

    return encoder.load(
        request.path,
        num_ctx=request.num_ctx,
        num_batch=request.num_batch,
        num_thread=request.num_thread,
        adapters=request.adapters,
        progress=progress,
    )
