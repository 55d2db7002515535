"""The runner process: frames on stdin, the engine, frames on stdout. One model, for as long as the process lives.

The main thread runs the engine. A second thread reads the requests, answers those that need no step, and gets the others
ready, so that neither a long prompt nor a question for the counters waits for, or holds up, the tokens of others. New
grammars are left to further ones (`preparation`). Where steps can hang, another thread watches them.
"""

from __future__ import annotations

import faulthandler
import logging
import queue
import sys
import threading
import time
from collections.abc import Callable
from typing import BinaryIO, NoReturn

from runtime import frames
from runtime.core import Watched
from runtime.embedder import Embedder, EmbedJob
from runtime.engine import Engine, Job
from runtime.frames import Cancel, Failed, Frame, Generate, GiveBack, Grow, Load, Reply
from runtime.loader import LoadError, Model, open_model
from runtime.pipes import Throttled, Writer, die_with_parent, leave, read, take_pipes
from runtime.preparation import Preparation, guarded
from runtime.weights import Progress

_LOG = logging.getLogger(__name__)

_LOOK_SECONDS = 0.25  # between two looks at a step that may hang

Opener = Callable[[Load, Progress], Model]


def main(opener: Opener = open_model) -> NoReturn:
    """Serve one model until stdin closes. Ends the process: 0 when the parent is done with it, else 1."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    faulthandler.enable()  # a crash in a kernel leaves its place in the log
    die_with_parent()
    requests, writer = take_pipes()
    request = read(requests)
    if request is None:
        leave(0)
    if not isinstance(request, Load):
        _LOG.error("the first frame is %s, not Load", type(request).__name__)
        leave(1)
    worker = Worker(requests, writer)
    leave(worker.run(request, opener))


class Worker:
    """The threads and what they share: `_inbox` from the reader to the engine, and the writer."""

    def __init__(self, requests: BinaryIO, writer: Writer) -> None:
        self._requests = requests
        self._writer = writer
        self._inbox: queue.SimpleQueue[Job | EmbedJob | Cancel | Grow | GiveBack] = queue.SimpleQueue()
        self._ready = threading.Event()  # the model is loaded
        self._model: Model
        self._engine: Engine | Embedder
        self._preparation: Preparation[Job | EmbedJob] = Preparation(self._prepare, self._prepared)

    def run(self, request: Load, opener: Opener) -> int:
        """Load the model, then step until the process ends or fails. Returns the exit status."""
        threading.Thread(target=self._receive, daemon=True, name="reader").start()
        begin = time.perf_counter_ns()
        try:
            model = opener(request, Throttled(self._writer))
        except LoadError as error:
            return self._fail(Failed(None, error.kind, str(error)))
        except MemoryError as error:
            return self._fail(Failed(None, "out_of_memory", str(error) or "not enough memory for the model"))
        except Exception as error:  # whatever it is, the server must hear of it
            _LOG.exception("loading %s failed", request.path)
            return self._fail(Failed(None, "internal", f"loading the model failed: {error!r}"))
        self._model = model
        self._engine = model.engine(request.num_ctx)
        self._writer.send([model.loaded(self._engine.num_ctx, time.perf_counter_ns() - begin)])
        self._ready.set()
        if isinstance(model.executor, Watched):
            threading.Thread(target=self._watch, args=(model.executor,), daemon=True, name="watcher").start()
        return self._steps()

    def _fail(self, *failures: Reply) -> int:
        self._writer.send(failures)
        return 1

    # ------------------------------------------------------------ engine thread

    def _steps(self) -> int:
        engine = self._engine
        try:
            while True:
                while not engine.busy or not self._inbox.empty():
                    self._writer.send(self._take(self._inbox.get()))
                self._writer.send(engine.step())
        except Exception as error:  # the state of the model is unknown: no request may go on
            _LOG.exception("a step failed")
            out_of_memory = isinstance(error, MemoryError)
            kind, message = ("out_of_memory", "memory ran out") if out_of_memory else ("internal", f"a step failed: {error!r}")
            return self._fail(*engine.fail(kind, message))

    def _take(self, item: Job | EmbedJob | Cancel | Grow | GiveBack) -> list[Reply]:
        engine = self._engine
        if isinstance(item, Cancel):
            return engine.cancel(item.id)
        if isinstance(item, Grow):
            return [engine.grow(item)]
        if isinstance(engine, Embedder):
            assert isinstance(item, EmbedJob)
            return engine.submit(item)
        if isinstance(item, GiveBack):
            return [engine.give_back(item)]
        assert isinstance(item, Job)
        return engine.submit(item)

    def _watch(self, executor: Watched) -> None:
        """End a process whose step hangs: the thread that steps cannot."""
        while not (reason := executor.stuck()):
            time.sleep(_LOOK_SECONDS)
        _LOG.error("a step hangs: %s", reason)
        leave(self._fail(*self._engine.fail("internal", f"a step hangs: {reason}")))

    # ------------------------------------------------------------ reader thread

    def _receive(self) -> None:
        """Handle requests until the parent closes the pipe; then nothing is worth finishing."""
        while (request := read(self._requests)) is not None:
            self._ready.wait()
            reply = guarded(self._answer, request)
            if reply is not None:
                self._writer.send([reply])
        leave(0)

    def _answer(self, request: Frame) -> Reply | None:
        match request:
            case Generate() if not self._engine.is_quick(request):
                self._preparation.begin(request)
            case Generate() | frames.Embed():
                self._prepared(self._engine.prepare(request))
            case Cancel():
                self._preparation.cancel(request.id)
                self._inbox.put(request)
            case Grow() | GiveBack():
                self._inbox.put(request)
            case frames.Tokenize():
                tokens = self._model.tokenizer.encode(request.text, request.parse_special, request.add_special)
                return frames.Tokens(request.id, tokens)
            case frames.Detokenize():
                return self._text(request)
            case frames.GetStats():
                return self._engine.stats(request.id)
            case _:
                _LOG.error("%s is no request that a loaded runner takes", type(request).__name__)
        return None

    def _prepare(self, request: Generate) -> Job | EmbedJob | Failed:
        return self._engine.prepare(request)

    def _prepared(self, job: Job | EmbedJob | Failed) -> None:
        """Any thread may call this."""
        if isinstance(job, Failed):
            self._writer.send([job])
        else:
            self._inbox.put(job)

    def _text(self, request: frames.Detokenize) -> Reply:
        tokenizer = self._model.tokenizer
        if not all(0 <= token < tokenizer.n_vocab for token in request.tokens):
            return Failed(request.id, "bad_request", "the list holds tokens that this model does not have")
        return frames.Text(request.id, tokenizer.decode(request.tokens))


if __name__ == "__main__":
    main()
