"""A request for text that has passed its checks: which model, with what options, and whether it may."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence

from ollama_compat import duration, lookup, options
from ollama_compat.errors import ApiError, BadRequest, InternalError, ModelNotFound, UnsupportedCapability
from ollama_compat.failures import PromptTooLong, SchemaRefused
from ollama_compat.options import Options
from ollama_compat.replies import Metrics
from ollama_compat.resident import Wanted
from ollama_compat.schema import ChatRequest, GenerateRequest
from ollama_compat.services import Services
from ollama_compat.store import StoredModel
from ollama_compat.structured import Constraint
from runtime.frames import Done, Generate, Loaded

TOO_LONG = (
    "the prompt is longer than the context length currently available to the model; shorten the prompt, adjust the context "
    "length in settings, or use a model with a longer context length"
)
_INT32 = (1 << 31) - 1


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """One request for text. `request` is what the client sent; the other fields are what became of it."""

    request: ChatRequest | GenerateRequest
    stored: StoredModel
    options: Options
    think: bool | str | None  # of a model that can reason, never None; of another, False or None
    started_ns: int
    tells_tools: bool = False  # in the text of the messages: the model's template has no place for them

    @property
    def shift(self) -> bool:
        """Whether a full context slides on; by default everywhere but in one family that cannot."""
        if self.request.shift is not None:
            return self.request.shift
        return self.stored.config.model_family != "deepseek2"

    def num_ctx(self, loaded: Loaded) -> int:
        """Tokens of context: what was asked for, as far as the runner has it."""
        return min(max(self.options.num_ctx, 4), loaded.num_ctx) if self.options.num_ctx else loaded.num_ctx

    def wanted(self) -> Wanted:
        """What has to be in memory."""
        return wanted(self.stored, self.options)

    def framer(
        self,
        prompt: str,
        loaded: Loaded,
        constraint: Constraint,
        *,
        context: Sequence[int] = (),
        preserved: Sequence[str] = (),
        cut: bool,
        chats: bool,
        repeat_limit: int,
    ) -> Callable[[int], Generate]:
        """Makes the Generate frame of an id. `cut`: a prompt that is too long loses its middle, where the context slides.

        `chats`: Ollama would hand the conversation to its engine, and then never breaks an answer off that repeats itself.
        """
        opts, request = self.options, self.request
        return functools.partial(
            Generate,
            prompt=prompt,
            tokens=list(context),
            sampling=opts.sampling(),
            num_ctx=self.num_ctx(loaded) if cut else 0,
            num_predict=opts.predict_limit(self.num_ctx(loaded), chats=chats),
            num_keep=min(max(opts.num_keep, -1), _INT32),
            stop=[text for text in opts.stop if text],
            repeat_limit=0 if chats else repeat_limit,
            shift=self.shift,
            truncate=cut and self.shift,
            logprobs=request.top_logprobs if request.logprobs else -1,
            preserved=list(preserved),
            grammar=constraint.grammar,
            calls=constraint.calls,
            grammar_start=constraint.start,
            grammar_opening=constraint.opening,
        )

    def failure(self, error: ApiError, *, cut: bool, native: bool) -> ApiError:
        """What the client is told when the runner refuses. `native`: Ollama would let its engine make the prompt."""
        if isinstance(error, PromptTooLong) and cut and not self.shift:
            return BadRequest(TOO_LONG)
        if isinstance(error, SchemaRefused) and native:
            return SchemaRefused(error.reason, native=True)
        return error

    def metrics(self, done: Done, loaded_ns: int) -> Metrics:
        """The numbers of the last part. `loaded_ns`: when the model was there."""
        return Metrics(
            total_duration=time.perf_counter_ns() - self.started_ns,
            load_duration=loaded_ns - self.started_ns,
            prompt_eval_count=done.prompt_tokens,
            prompt_eval_duration=done.prompt_ns,
            eval_count=done.eval_tokens,
            eval_duration=done.eval_ns,
        )


def check_logprobs(request: ChatRequest | GenerateRequest) -> None:
    """BadRequest when more alternatives are asked for than there may be."""
    if not 0 <= request.top_logprobs <= 20:
        raise BadRequest("top_logprobs must be between 0 and 20")


async def find(services: Services, request: ChatRequest | GenerateRequest) -> StoredModel:
    """The model, with the answers that the route has for no name at all."""
    try:
        return await lookup.find(services, request.model)
    except lookup.NoName:
        if isinstance(request, ChatRequest):
            raise
        raise ModelNotFound(request.model) from None


def prepare(
    request: ChatRequest | GenerateRequest, stored: StoredModel, what: str, extra: Sequence[str], started_ns: int
) -> Call:
    """The call, after the checks of what the model can do. `what`: "chat" or "generate"; `extra`: further capabilities."""
    capabilities = stored.capabilities()
    quoted = duration.quote(request.model)
    think = request.think
    if "thinking" in capabilities:
        think = True if think is None else think
    elif think:
        raise UnsupportedCapability(quoted, "thinking")
    if "completion" not in capabilities:
        raise UnsupportedCapability(quoted, what)
    for capability in extra:
        if capability not in capabilities:
            raise UnsupportedCapability(stored.name.full(), capability)
    merged = options.merge(stored.params, request.options)
    return Call(request, stored, merged, think, started_ns)


def wanted(stored: StoredModel, opts: Options) -> Wanted:
    """What has to be in memory for a model with these options."""
    if stored.model_path is None:
        raise InternalError(f"the model {stored.name.short()} has no model file")
    return Wanted(
        name=stored.name.short(),
        digest=stored.digest,
        details=stored.details() | {"parent_model": ""},
        path=str(stored.model_path),
        options=opts,
        adapters=tuple(str(path) for path in stored.adapter_paths),
        embedding="completion" not in stored.capabilities(),
    )
