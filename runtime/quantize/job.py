"""The job `quantize`: what its arguments mean."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from runtime.core import ModelError
from runtime.quantize import file
from runtime.quantize.importance import read_matrix
from runtime.quantize.mixes import MIXES
from runtime.weights import Progress


def quantize(arguments: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Write the model `source`, a GGUF file, to `target`, a file that is there, in the types of `mix`.

    `overrides`: pairs of a pattern of tensor names and their type instead; "" keeps the tensors as they are. `matrix`, if it is
    there: the file of an importance matrix, and what it is called.
    """
    mix = MIXES.get(arguments["mix"])
    if mix is None:
        raise ModelError(f"there is no mix {arguments['mix']!r}")
    overrides = [(re.compile(pattern), kind) for pattern, kind in arguments["overrides"]]
    matrix = None
    if arguments.get("matrix"):
        path, name = arguments["matrix"]
        matrix = file.Matrix(read_matrix(Path(path)), name)
    with open(arguments["target"], "r+b", buffering=1 << 20) as target:
        source = Path(arguments["source"])
        file.quantize(source, target, mix, overrides, lambda done, total: progress("quantizing", done, total), matrix)
    return {}
