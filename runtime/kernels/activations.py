"""What becomes of the gates of a gated feed-forward layer before they are multiplied."""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.kernels.driver import exp, inline, sigmoid, silu
from runtime.kernels.memory import f32

SILU, GELU, SWIGLU_OAI, SIGMOID = 0, 1, 2, 3
CODES = {"silu": SILU, "gelu": GELU, "swiglu_oai": SWIGLU_OAI, "sigmoid": SIGMOID}
ALPHA, LIMIT = np.float32(1.702), np.float32(7)  # of gpt-oss, as in llama.cpp


@inline
def gelu(x: Any) -> Any:
    """gelu(x) of a float32 by its usual approximation with tanh."""
    # (1 + tanh(u)) / 2 = 1 / (1 + e**(-2 u)), u = sqrt(2 / pi) (x + 0.044715 x**3)
    u = np.float32(-1.5957691216) * x * (np.float32(1) + np.float32(0.044715) * x * x)
    return x / (np.float32(1) + exp(min(u, np.float32(80))))


@inline
def tanh(x: Any) -> Any:
    """tanh(x) of a float32."""
    return np.float32(1) - np.float32(2) / (exp(min(x + x, np.float32(80))) + np.float32(1))


@inline
def activate(code: int, gate: int, up: int, count: int) -> None:
    """gate[i] = activation(gate[i]) * up[i] for `count` float32 at two addresses."""
    g, u = f32(gate, count), f32(up, count)
    if code == SILU:
        for i in range(count):
            g[i] = np.float32(silu(g[i]) * u[i])
    elif code == GELU:
        for i in range(count):
            g[i] = np.float32(gelu(g[i]) * u[i])
    elif code == SIGMOID:
        for i in range(count):
            g[i] = np.float32(sigmoid(g[i]) * u[i])
    else:  # both are clamped, and the factor is one more
        for i in range(count):
            x, y = min(g[i], LIMIT), min(max(u[i], -LIMIT), LIMIT)
            g[i] = np.float32(x / (np.float32(1) + exp(min(-ALPHA * x, np.float32(80)))) * (y + np.float32(1)))
