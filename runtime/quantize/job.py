"""The job `quantize`: what its arguments mean."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from runtime.core import ModelError
from runtime.quantize import file
from runtime.quantize.mixes import MIXES
from runtime.weights import Progress


def quantize(arguments: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Write the model `source`, a GGUF file, to `target`, a file that is there, in the types of `mix`.

    `overrides`: pairs of a pattern of tensor names and their type instead; "" keeps the tensors as they are.
    """
    mix = MIXES.get(arguments["mix"])
    if mix is None:
        raise ModelError(f"there is no mix {arguments['mix']!r}")
    overrides = [(re.compile(pattern), kind) for pattern, kind in arguments["overrides"]]
    with open(arguments["target"], "r+b", buffering=1 << 20) as target:
        file.quantize(Path(arguments["source"]), target, mix, overrides, lambda done, total: progress("quantizing", done, total))
    return {}
