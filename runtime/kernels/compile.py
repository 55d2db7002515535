"""Compile ahead: the kernels that a model needs, in worker processes, into the disk cache that this process then loads from.

`python -m runtime.kernels.compile NAME...` is such a worker: it compiles the named kernels and prints each name when done.
"""

from __future__ import annotations
