"""The engine of embedding models: requests for vectors in, many texts a step, Embeddings frames out."""

from __future__ import annotations

import dataclasses
import functools
from collections import deque

import numpy as np
import orjson

from runtime.core import Encoder, FloatArray
from runtime.frames import Embed, Embeddings, Failed, Generate, Grow, Reply, Stats
from runtime.room import NO_ROOM, TOO_LONG, NoFit, fitted
from runtime.tokenizer import Tokenizer

EMPTY = "Input content cannot be empty"
ONLY_RANKS = "this model ranks texts and makes no vectors of them: use /api/rerank"
CANNOT_RANK = "this model does not rank texts: it has no classifier head"
NOT_FINITE = "embedding contains NaN or Inf values"


@dataclasses.dataclass(eq=False, slots=True)
class EmbedJob:
    """A request and what has become of it. Made by `Embedder.prepare`; afterwards only the embedder writes it."""

    request: Embed
    texts: list[list[int]]
    vectors: list[list[float]] = dataclasses.field(default_factory=list)  # of the first texts
    failed: bool = False

    def done(self) -> Embeddings:
        """The frame that ends it."""
        return Embeddings(self.request.id, self.vectors, sum(map(len, self.texts)))


class Embedder:
    """Runs jobs on an encoder. All methods but `prepare` and `stats` belong to one thread."""

    def __init__(self, executor: Encoder, tokenizer: Tokenizer, num_ctx: int, rank_template: str = "") -> None:
        """`rank_template`: how a model that ranks is asked, with `{query}` and `{document}`; "": both texts with separators."""
        self.num_ctx = min(num_ctx, executor.n_ctx_train)
        self._executor = executor
        self._tokenizer = tokenizer
        self._rank_template = rank_template
        self._jobs: dict[int, EmbedJob] = {}
        self._steps = 0

    @property
    def busy(self) -> bool:
        """Whether there is a step to do."""
        return bool(self._jobs)

    def is_quick(self, request: Generate) -> bool:
        """Whether `prepare` takes no time to speak of. Any thread may call this."""
        return True

    def prepare(self, request: Embed | Generate) -> EmbedJob | Failed:
        """Everything that can be done for a request without the model. Any thread may call this."""
        if isinstance(request, Generate):
            return Failed(request.id, "unsupported", "this model makes vectors, not text")
        if self._executor.ranks != (request.query is not None):
            return Failed(request.id, "unsupported", ONLY_RANKS if self._executor.ranks else CANNOT_RANK)
        if request.query is not None:
            return self._prepare_ranking(request, request.query)
        texts = []
        for text in request.inputs:
            try:
                tokens = self._fit(self._tokenizer.encode(text, add_special=False), request)
            except NoFit as error:
                return Failed(request.id, "context_length", str(error))
            if not tokens:
                return Failed(request.id, "bad_request", EMPTY)
            texts.append(tokens)
        return EmbedJob(request, texts)

    def _prepare_ranking(self, request: Embed, query: str) -> EmbedJob | Failed:
        """Long documents lose their ends; a query that leaves no room for any is refused."""
        limit = min(self._executor.longest, request.num_ctx or self.num_ctx)
        front, back = self._around(query)
        room = limit - len(front) - len(back)
        if room <= 0:
            return Failed(request.id, "context_length", NO_ROOM)
        return EmbedJob(request, [front + self._plain(document)[:room] + back for document in request.inputs])

    def _plain(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, parse_special=False, add_special=False)

    def _around(self, query: str) -> tuple[list[int], list[int]]:
        """The tokens before a document and those behind it."""
        plain = self._plain
        if self._rank_template:
            before, _, after = self._rank_template.partition("{document}")
            begin, _, rest = before.partition("{query}")
            special = functools.partial(self._tokenizer.encode, add_special=False)
            return [*special(begin), *plain(query), *special(rest)], special(after)
        first, between, last = self._tokenizer.between()
        return [*first, *plain(query), *between], last

    def submit(self, job: EmbedJob) -> list[Reply]:
        """Let a job wait for its turn. One without any text ends at once."""
        number = job.request.id
        if number in self._jobs:
            return [Failed(number, "bad_request", f"request {number} is there already")]
        if not job.texts:
            return [job.done()]
        self._jobs[number] = job
        return []

    def grow(self, request: Grow) -> Failed:
        """Texts are read whole, in buffers made for the longest."""
        return Failed(request.id, "unsupported", "the buffers of a model that makes vectors cannot grow")

    def cancel(self, number: int) -> list[Reply]:
        """Forget a request; whoever asked no longer listens."""
        self._jobs.pop(number, None)
        return []

    def fail(self, kind: str, message: str) -> list[Reply]:
        """End all requests with an error."""
        failures: list[Reply] = [Failed(number, kind, message) for number in self._jobs]
        self._jobs.clear()
        return failures

    def stats(self, number: int) -> Stats:
        """Counters, for the request `number`. Any thread may call this. There is no cache, so there are no blocks."""
        executor, running = self._executor, len(self._jobs)
        return Stats(number, running, 0, 0, 0, 0, self._steps, executor.size, executor.size_vram)

    def step(self) -> list[Reply]:
        """As many texts as fit, whoever asked for them, and the requests that are complete with them."""
        batch = self._batch()
        if not batch:
            return []
        vectors = self._executor.encode([job.texts[place] for job, place in batch])
        self._steps += 1
        for (job, _), vector in zip(batch, vectors, strict=True):
            job.failed = job.failed or not np.isfinite(vector).all()
            job.vectors.append(decimals(vector if job.request.query is not None else _shaped(vector, job.request)))
        served = {job.request.id: job for job, _ in batch}
        return [reply for number, job in served.items() if (reply := self._end(number, job)) is not None]

    def _batch(self) -> list[tuple[EmbedJob, int]]:
        """Jobs and the numbers of their texts: a text of each job in turn, so that a question does not wait for a library."""
        batch, rows = [], 0
        turns = deque((job, len(job.vectors)) for job in self._jobs.values())
        while turns:
            job, place = turns.popleft()
            rows += len(job.texts[place])
            if rows > self._executor.max_rows:
                break
            batch.append((job, place))
            if place + 1 < len(job.texts):
                turns.append((job, place + 1))
        return batch

    def _end(self, number: int, job: EmbedJob) -> Reply | None:
        """What a job that was served has to say; one that goes on is behind the others for the next step."""
        del self._jobs[number]
        if job.failed:
            return Failed(number, "bad_request", NOT_FINITE)
        if len(job.vectors) == len(job.texts):
            return job.done()
        self._jobs[number] = job
        return None

    # ------------------------------------------------------------ how long a text may be

    def _fit(self, tokens: list[int], request: Embed) -> list[int]:
        """The tokens that the model gets. Raises NoFit. The context counts first, then what one pass of the model can take."""
        num_ctx = min(request.num_ctx, self._executor.n_ctx_train) if request.num_ctx > 0 else self.num_ctx
        tokens = fitted(tokens, num_ctx, self._tokenizer, truncate=request.truncate)
        framed = self._tokenizer.framed(tokens)
        if len(framed) > self._executor.longest and request.truncate:
            framed = self._tokenizer.framed(fitted(tokens, self._executor.longest, self._tokenizer, truncate=True))
        if len(framed) > self._executor.longest:  # also a text that brings BOS or EOS, and gets another one
            raise NoFit(TOO_LONG)
        return framed


def _shaped(vector: FloatArray, request: Embed) -> FloatArray:
    vector = unit(vector) if request.normalize else vector
    return unit(vector[: request.dimensions]) if 0 < request.dimensions < len(vector) else vector


def unit(vector: FloatArray) -> FloatArray:
    """The vector at length 1; zeros stay zeros."""
    length = float(np.sqrt(np.square(vector, dtype=np.float64).sum()))
    return np.asarray(vector / max(length, 1e-12), np.float32)


def decimals(vector: FloatArray) -> list[float]:
    """The numbers as Ollama prints them: each the shortest decimal that means the same float32."""
    numbers: list[float] = orjson.loads(orjson.dumps(np.ascontiguousarray(vector), option=orjson.OPT_SERIALIZE_NUMPY))
    return numbers
