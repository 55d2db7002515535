"""`python -m runtime.job`: a process for one piece of work that is no loaded model. A Work frame in, progress, the result out."""

from __future__ import annotations

import faulthandler
import importlib
import logging
import sys
import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, BinaryIO, NoReturn

from runtime.core import ModelError
from runtime.frames import Failed, Finished, Reply, Work
from runtime.gguf_file import GGUFError
from runtime.kernels.isa import IsaError
from runtime.pipes import Throttled, Writer, die_with_parent, leave, read, take_pipes
from runtime.weights import Progress

_LOG = logging.getLogger(__name__)

Job = Callable[[dict[str, Any], Progress], dict[str, Any]]

JOBS: Mapping[str, str] = MappingProxyType(
    {
        "bench": "runtime.measure.bench:bench",
        "convert": "runtime.convert.job:convert",
        "convert_adapter": "runtime.convert.job:convert_adapter",
        "machine": "runtime.measure.machine:machine",
        "placement": "runtime.explain:placement",
        "quantize": "runtime.quantize.job:quantize",
        "warmup": "runtime.warmup:warmup",
    }
)
"""Where each job's function is, `module:function`. It takes the arguments and is told where to report progress; its result
must be JSON. Imported when it is asked for."""


class JobError(Exception):
    """The work cannot be done. `kind` is one of runtime.frames.FAILURES."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def main() -> NoReturn:
    """Do the work of the frame on stdin; status 0 when it was done."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    faulthandler.enable()
    die_with_parent()
    requests, writer = take_pipes()
    request = read(requests)
    if not isinstance(request, Work):
        leave(0 if request is None else 1)
    threading.Thread(target=_end_with_parent, args=(requests,), daemon=True, name="parent").start()
    reply = _do(request, writer)
    writer.send([reply])
    leave(0 if isinstance(reply, Finished) else 1)


def _do(request: Work, writer: Writer) -> Reply:
    if request.job not in JOBS:
        return Failed(None, "bad_request", f"there is no job {request.job!r}")
    try:
        module, _, function = JOBS[request.job].partition(":")
        job: Job = getattr(importlib.import_module(module), function)
        return Finished(job(request.arguments, Throttled(writer)))
    except JobError as error:
        return Failed(None, error.kind, str(error))
    except (GGUFError, ModelError, OSError) as error:
        return Failed(None, "bad_model", str(error))
    except IsaError as error:
        return Failed(None, "unsupported", str(error))
    except MemoryError as error:
        return Failed(None, "out_of_memory", str(error) or "not enough memory")
    except Exception as error:  # whatever it is, the parent must hear of it
        _LOG.exception("the job %s failed", request.job)
        return Failed(None, "internal", f"{request.job} failed: {error!r}")


def _end_with_parent(requests: BinaryIO) -> NoReturn:
    """Also where the system does not kill it: nobody wants the rest."""
    while requests.read(1):
        pass
    leave(1)


if __name__ == "__main__":
    main()
