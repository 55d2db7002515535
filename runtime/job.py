"""`python -m runtime.job`: work that is not a loaded model. One frame in says what; out come progress and Finished or Failed.

The process ends with its parent's end of the pipe, in the middle of whatever it does: what it leaves is the parent's to
clean up.
"""

from __future__ import annotations

import faulthandler
import logging
import re
import signal
import sys
import threading
from pathlib import Path
from typing import BinaryIO, NoReturn

from runtime import pipes
from runtime.core import ModelError
from runtime.frames import Failed, Finished, Quantize
from runtime.gguf_file import GGUFError

_LOG = logging.getLogger(__name__)


def main() -> NoReturn:
    """Do the one thing that is asked for. Exit status 0 when it was done."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    requests, writer = pipes.take_pipes()
    request = pipes.read(requests)
    if not isinstance(request, Quantize):
        _LOG.error("the first frame is %s, no job", type(request).__name__)
        pipes.leave(1)
    threading.Thread(target=_end_with_parent, args=(requests,), daemon=True, name="parent").start()
    reply = run(request, pipes.Throttled(writer))
    writer.send([reply])
    pipes.leave(0 if isinstance(reply, Finished) else 1)


def run(request: Quantize, progress: pipes.Throttled) -> Finished | Failed:
    """The job, whose every error becomes a frame."""
    try:
        _quantize(request, progress)
    except (GGUFError, ModelError) as error:
        return Failed(None, "bad_model", str(error))
    except MemoryError as error:
        return Failed(None, "out_of_memory", str(error) or "memory ran out")
    except OSError as error:
        return Failed(None, "internal", f"{error.strerror or error}")
    except Exception as error:  # whatever it is, the server must hear of it
        _LOG.exception("%s failed", type(request).__name__)
        return Failed(None, "internal", f"the job failed: {error!r}")
    return Finished()


def _quantize(request: Quantize, progress: pipes.Throttled) -> None:
    """Imports numba, which takes half a second and is of no use to other jobs."""
    from runtime.quantize.file import quantize
    from runtime.quantize.mixes import MIXES

    if request.mix not in MIXES:
        raise ModelError(f"there is no mix {request.mix!r}")
    overrides = [(re.compile(pattern), kind) for pattern, kind in request.overrides]
    with open(request.target, "r+b", buffering=1 << 20) as target:
        quantize(
            Path(request.source), target, MIXES[request.mix], overrides, lambda done, total: progress("quantizing", done, total)
        )


def _end_with_parent(requests: BinaryIO) -> NoReturn:
    while requests.read(1):
        pass
    pipes.leave(1)


if __name__ == "__main__":
    main()
