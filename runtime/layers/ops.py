"""What a forward pass may ask of an executor. `Value` is the executor's own: rows of float32 (tokens, width)."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from runtime.core import FloatArray
from runtime.weights import Tensor

Value = Any
Of = Literal["tokens", "positions", "types"]


@dataclasses.dataclass(frozen=True, slots=True)
class Heads:
    """Shapes of one attention layer, and how its heads turn."""

    head_count: int
    head_count_kv: int
    key_length: int
    value_length: int
    rope_interleaved: bool  # pairs (2 i, 2 i + 1) turn together; else (i, i + half)
    scale: float  # of the scores
    causal: bool = True  # a token sees those before it; else the whole text


@dataclasses.dataclass(frozen=True, slots=True)
class Rotation:
    """Rotary frequencies in radians a token, (half,) float64, and the factor on cos and sin."""

    frequencies: npt.NDArray[np.float64]
    magnitude: float


@dataclasses.dataclass(frozen=True, slots=True)
class Routing:
    """How a router's logits become experts and weights: softmax, the k best, normalised to 1 or not, times scale."""

    expert_used_count: int
    normalize: bool
    scale: float


class Ops(Protocol):
    """One method a kind of work. All take and return Values; the recorder appends rows, a GPU executor computes."""

    def embed(self, table: Tensor, of: Of = "tokens") -> Value:
        """The table's rows of this step's tokens, of their positions, or of their types (0 for every token)."""

    def linear(self, x: Value, *weights: tuple[Tensor, FloatArray | None]) -> list[Value]:
        """x times each matrix, plus its bias; several at once share one pass over x."""

    def rms_norm(self, x: Value, weight: FloatArray, eps: float) -> Value: ...

    def layer_norm(self, x: Value, weight: FloatArray, bias: FloatArray, eps: float) -> Value: ...

    def attention(
        self,
        layer: int,
        q: Value,
        k: Value,
        v: Value,
        heads: Heads,
        rotation: Rotation | None,
        norms: tuple[FloatArray, FloatArray, float] | None,
    ) -> Value:
        """Norm q and k by head (norms: q weight, k weight, eps), turn them, store k and v, attend; (tokens, heads * value)."""

    def silu_mul(self, gate: Value, up: Value) -> Value:
        """silu(gate) * up; may reuse gate's memory."""

    def gelu(self, x: Value) -> Value:
        """gelu(x) by its approximation with tanh; may reuse x's memory."""

    def experts(self, x: Value, logits: Value, gate: Tensor, up: Tensor, down: Tensor, routing: Routing) -> Value:
        """The routed experts' weighted sum: down(silu(gate x) * up x)."""

    def add(self, x: Value, y: Value) -> Value: ...

    def outputs(self, x: Value) -> Value:
        """The rows whose logits are wanted."""
