"""The engine: requests for text in, one step at a time, token frames out."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator

from runtime.answer import Answer
from runtime.core import (
    BLOCK_TOKENS,
    LONGEST,
    Caching,
    CannotGrow,
    ContextLengthError,
    Executor,
    FloatArray,
    Growing,
    IntArray,
    OnCard,
    Recurrent,
    Shortlisting,
)
from runtime.following import GrammarError
from runtime.frames import Cut, Done, Embed, Failed, Generate, GiveBack, GivenBack, Grow, Grown, Reply, Stats
from runtime.grammar import Constraint, Grammars
from runtime.prompt import Prompt, PromptError, kept, make_prompt, shifted
from runtime.room import NoFit, fitted
from runtime.sampling import Breakers, NotANumber, Sampler, SamplingError, masks
from runtime.scheduler import Scheduler, Sequence, Step
from runtime.tokenizer import Tokenizer

_LOG = logging.getLogger(__name__)

NO_VECTORS = "This server does not support embeddings. Start it with `--embeddings`"  # as llama-server says it
SHORTEST_NS = 1000  # Ollama leaves a duration of 0 out


@dataclasses.dataclass(eq=False, slots=True)
class Job:
    """A request and what has become of it. Made by `Engine.prepare`; afterwards only the engine writes it."""

    request: Generate
    prompt: Prompt
    sequence: Sequence
    sampler: Sampler
    answer: Answer
    constraint: Constraint | None = None  # keeps the answer to a grammar
    may_force: bool = False  # a token without an alternative needs no logits
    steered: bool = False  # the last token was not what the model would have said
    forced: deque[int] = dataclasses.field(default_factory=deque)  # what the grammar lets follow, and nothing else
    generated: int = 0
    cached: int = 0  # prompt tokens that were in the cache
    started_ns: int = 0  # when its first step began
    first_ns: int = 0  # when its first token was there
    last_ns: int = 0

    def start(self, now: int) -> None:
        """Note the first step; a job that was suspended has had it."""
        if not self.started_ns:
            self.started_ns, self.cached = now, self.sequence.cached

    def short(self, length: int) -> bool:
        """Whether the next token can be chosen from so many of the likeliest. More than decide, for a list as long as that would
        go through other filters."""
        return self.constraint is None and not self.answer.tells_logprobs and 0 < self.sampler.depends_on < length

    def next_tokens(self, logits: FloatArray, ids: IntArray | None, *, several: bool) -> Iterator[int]:
        """The token that follows, and if `several` those that the grammar forces after it. Each has been dealt with when the
        next one is asked for. `ids`: the tokens that the logits belong to, where these are not all. Raises
        NotANumber and GrammarError."""
        if not self.forced:
            yield self._choose(logits, ids)
            if not self.may_force or self.constraint is None or self.constraint.has_choice:
                return
            self.forced.extend(self.constraint.forced())
            if not several:
                return
        assert self.constraint is not None
        while self.forced:
            token = self.forced.popleft()
            self.constraint.accept(token)
            yield token
            if not several:
                return

    def _choose(self, logits: FloatArray, ids: IntArray | None) -> int:
        """The token that would come without a grammar, if that permits it, as in llama.cpp."""
        if self.constraint is None:
            place = self.sampler.sample(logits)
            return place if ids is None else int(ids[place])
        changed = self.sampler.changed(logits)
        if not self.steered:
            token = self.sampler.choose(changed)
            if self.constraint.take(token):
                return token
        mask = self.constraint.mask()
        # where the grammar has just had to step in, a draw among all tokens would probably be refused again
        self.steered = not (self.sampler.greedy or mask is None or masks.permits(mask, int(changed.argmax())))
        token = self.sampler.choose(changed, mask)
        self.constraint.accept(token)
        return token

    def count(self, now: int) -> None:
        """Note a token."""
        self.generated += 1
        self.first_ns = self.first_ns or now
        self.last_ns = now

    def done(self, reason: str) -> Done:
        """The frame that ends it."""
        return Done(
            id=self.request.id,
            reason=reason,
            prompt_tokens=len(self.prompt.tokens),
            cached_tokens=self.cached,
            prompt_ns=max(self.first_ns - self.started_ns, 0),
            eval_tokens=self.generated,
            eval_ns=max(self.last_ns - self.first_ns, SHORTEST_NS) if self.generated else 0,
            context=self.prompt.context + self.answer.context(),
            stop=self.answer.stop,
        )


class Engine:
    """Runs jobs on an executor. All methods but `prepare` and `stats` belong to one thread."""

    def __init__(
        self, executor: Executor, tokenizer: Tokenizer, num_ctx: int, clock: Callable[[], int] = time.perf_counter_ns
    ) -> None:
        self.num_ctx = self._longest(executor, num_ctx)
        self._executor = executor
        self._tokenizer = tokenizer
        self._grammars = Grammars(tokenizer)
        self._breakers = Breakers(tokenizer)
        self._clock = clock
        longest = max(self.num_ctx, min(executor.n_ctx_train, LONGEST)) if isinstance(executor, Growing) else self.num_ctx
        most, checkpoints = executor.max_outputs, 0
        if isinstance(executor, Recurrent):
            most, checkpoints = min(most, executor.lines), executor.checkpoints
        self._scheduler = Scheduler(executor.n_blocks, executor.max_rows, most, longest, checkpoints)
        self._jobs: dict[int, Job] = {}
        self._steps = 0

    @staticmethod
    def _longest(executor: Executor, num_ctx: int) -> int:
        """Tokens that a sequence can have where so many are asked for."""
        return min(num_ctx, executor.n_ctx_train, executor.n_blocks * BLOCK_TOKENS)

    @property
    def busy(self) -> bool:
        """Whether there is a step to do."""
        return bool(self._jobs)

    def prepare(self, request: Generate | Embed) -> Job | Failed:
        """Everything that can be done for a request without the model. Any thread may call this."""
        if isinstance(request, Embed):
            return self._no_vectors(request)
        if request.images:
            return Failed(request.id, "unsupported", "this model does not support images")
        try:
            sampler = Sampler(request.sampling, self.num_ctx, self._breakers)
            prompt = make_prompt(request, self._tokenizer, self.num_ctx)
            constraint = self._constraint(request)
        except ContextLengthError as error:
            return Failed(request.id, "context_length", str(error), error.n_prompt, error.n_ctx)
        except SamplingError as error:
            return Failed(request.id, "bad_request", f"Failed to initialize samplers: {error}")
        except (PromptError, GrammarError) as error:
            return Failed(request.id, "bad_request", str(error))
        sampler.accept(prompt.tokens)
        answer = Answer(request, self._tokenizer)
        # Mirostat learns from every token, and log probabilities are told of every one
        may_force = constraint is not None and request.logprobs < 0 and not request.sampling.mirostat
        return Job(request, prompt, Sequence(request.id, list(prompt.tokens)), sampler, answer, constraint, may_force)

    def _no_vectors(self, request: Embed) -> Failed:
        """Ollama looks at the length of texts before it asks its engine, which refuses them."""
        limit = min(request.num_ctx or self.num_ctx, self._executor.n_ctx_train)
        try:
            for text in request.inputs if request.query is None else ():
                fitted(self._tokenizer.encode(text, add_special=False), limit, self._tokenizer, truncate=request.truncate)
        except NoFit as error:
            return Failed(request.id, "context_length", str(error))
        return Failed(request.id, "unsupported", NO_VECTORS)

    def is_quick(self, request: Generate) -> bool:
        """Whether `prepare` takes no time to speak of: the grammar, if there is one, is known. Any thread may call this."""
        grammar = request.calls or request.grammar
        return not grammar or self._grammars.knows(grammar)

    def _constraint(self, request: Generate) -> Constraint | None:
        grammar = request.calls or request.grammar
        return self._grammars.constraint(grammar, request.grammar_start, request.grammar_opening) if grammar else None

    def submit(self, job: Job) -> list[Reply]:
        """Let a job wait for its turn. One without any token to evaluate ends at once."""
        number = job.request.id
        if number in self._jobs:
            return [Failed(number, "bad_request", f"request {number} is there already")]
        if not job.prompt.tokens:
            return [job.done("stop")]
        self._jobs[number] = job
        self._scheduler.add(job.sequence)
        return self._cut(job)

    def _cut(self, job: Job) -> list[Reply]:
        """What the client is told of a prompt that did not fit."""
        prompt = job.prompt
        if not prompt.dropped:
            return []
        whole, num_ctx = len(prompt.tokens) + prompt.dropped, min(job.request.num_ctx or self.num_ctx, self.num_ctx)
        _LOG.warning("a prompt of %d tokens is cut to %d: the context has %d", whole, len(prompt.tokens), num_ctx)
        return [Cut(job.request.id, whole, num_ctx, prompt.dropped)]

    def grow(self, request: Grow) -> Grown | Failed:
        """Hold longer contexts, as far as there is memory; what runs goes on."""
        executor = self._executor
        if not isinstance(executor, Growing):
            return Failed(request.id, "unsupported", "this model's cache cannot grow")
        if request.num_ctx > self.num_ctx:
            try:
                self._scheduler.pool.extend(executor.grow(min(request.num_ctx, LONGEST), request.memory))
            except CannotGrow as error:
                return Failed(request.id, "unsupported", str(error))
            self.num_ctx = max(self.num_ctx, self._longest(executor, min(request.num_ctx, LONGEST)))
            _LOG.info("the context grows to %d tokens, %d blocks", self.num_ctx, executor.n_blocks)
        return Grown(request.id, self.num_ctx, executor.size, executor.size_vram)

    def give_back(self, request: GiveBack) -> GivenBack:
        """Let another model have a part of the card, if it comes there."""
        executor = self._executor
        if not isinstance(executor, OnCard) or not executor.shares(request.main_gpu):
            return GivenBack(request.id, executor.size_vram, shared=False)
        return GivenBack(request.id, executor.give_back(request.nbytes, request.models), shared=True)

    def cancel(self, number: int) -> list[Reply]:
        """End a request; its blocks are free. It may have ended by itself before."""
        job = self._jobs.get(number)
        return [] if job is None else self._end(job, job.done("cancelled"))

    def fail(self, kind: str, message: str) -> list[Reply]:
        """End all requests with an error."""
        return [reply for job in list(self._jobs.values()) for reply in self._end(job, Failed(job.request.id, kind, message))]

    def stats(self, number: int) -> Stats:
        """Counters, for the request `number`. Any thread may call this."""
        scheduler, pool = self._scheduler, self._scheduler.pool
        caching = self._executor if isinstance(self._executor, Caching) else None
        return Stats(
            id=number,
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            blocks_total=pool.n_blocks,
            blocks_free=pool.n_blank,
            blocks_cached=pool.n_idle,
            steps=self._steps,
            size=self._executor.size,
            size_vram=self._executor.size_vram,
            expert_lookups=caching.expert_lookups if caching else 0,
            expert_hits=caching.expert_hits if caching else 0,
        )

    def step(self) -> list[Reply]:
        """One forward pass and what comes of it."""
        step = self._scheduler.schedule()
        if step is None:
            return []
        begin = self._clock()
        for sequence in step.admitted:
            self._jobs[sequence.id].start(begin)
        if step.copies:
            self._executor.copy_blocks(step.copies)
        if step.states and isinstance(self._executor, Recurrent):
            self._executor.copy_states(step.states)
        rows = self._forward(step)
        now = self._clock()
        self._scheduler.advance(step, (now - begin) / 1e9)
        self._steps += 1
        replies: list[Reply] = []
        for row, sequence in enumerate(step.ready):
            replies += self._next_tokens(self._jobs[sequence.id], *rows[row], now)
        return replies

    def _forward(self, step: Step) -> list[tuple[IntArray | None, FloatArray]]:
        """Of each row that is ready the logits; of the likeliest tokens alone, with these, where the executor can do that and
        all jobs can do with it."""
        executor = self._executor
        if isinstance(executor, Shortlisting):
            length = executor.shortlist
            if all(self._jobs[sequence.id].short(length) for sequence in step.ready):
                return [*executor.likeliest(step.batch)]
        return [(None, row) for row in executor.forward(step.batch)]

    def _next_tokens(self, job: Job, ids: IntArray | None, logits: FloatArray, now: int) -> list[Reply]:
        replies: list[Reply] = []
        try:
            for token in job.next_tokens(logits, ids, several=self._executor.several):
                reason = self._push(job, token, logits, now, replies)
                if reason is not None:
                    _append(replies, job.answer.finish(reason))
                    return replies + self._end(job, job.done("repeated" if job.answer.repeated else reason))
        except NotANumber:
            return self._end(job, Failed(job.request.id, "internal", "the model computed values that are not numbers"))
        except GrammarError as error:
            return self._end(job, Failed(job.request.id, "bad_request", f"the answer cannot follow the grammar: {error}"))
        return replies

    def _push(self, job: Job, token: int, logits: FloatArray, now: int, replies: list[Reply]) -> str | None:
        """Let an answer go on with a token. Returns why it is over, if it is."""
        ends = token in self._tokenizer.eog_ids
        job.count(now)
        if not ends or job.answer.shows(token):
            job.sampler.accept((token,))
            job.sequence.tokens.append(token)
            _append(replies, job.answer.push(token, logits))
        reason = self._reason(job, ends)
        if reason is None and len(job.sequence.tokens) >= self.num_ctx:
            keep = kept(job.request.num_keep, len(job.prompt.tokens), self._tokenizer)
            self._scheduler.restart(job.sequence, shifted(job.sequence.tokens, keep, self.num_ctx))
        return reason

    def _reason(self, job: Job, ends: bool) -> str | None:
        """Why the answer is over, if it is. A limit of 0 tokens lets one through, as llama-server's does."""
        request = job.request
        if job.answer.repeated:
            return "repeated"
        if ends or job.answer.stop or (job.constraint is not None and job.constraint.complete):
            return "stop"
        if 0 <= request.num_predict <= job.generated:
            return "length"
        if not request.shift and len(job.sequence.tokens) >= self.num_ctx:
            return "length"
        return None

    def _end(self, job: Job, reply: Done | Failed) -> list[Reply]:
        del self._jobs[job.request.id]
        self._scheduler.remove(job.sequence)
        return [reply]


def _append(replies: list[Reply], reply: Reply | None) -> None:
    if reply is not None:
        replies.append(reply)
