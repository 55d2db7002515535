"""What a forward pass may ask of an executor. `Value` is the executor's own: rows of float32 (tokens, width)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from runtime.config import SOFTMAX
from runtime.core import FloatArray
from runtime.weights import Tensor

Value = Any
Of = Literal["tokens", "positions", "types"]
Activation = Literal["silu", "gelu", "swiglu_oai", "sigmoid"]  # see runtime/kernels/activations.py


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
    window: int = 0  # so many tokens are seen, the own one included; 0: all of them
    value_eps: float = 0.0  # values are normed by head, with this epsilon; 0: they stay
    softcap: float = 0.0  # scores s become softcap * tanh(s / softcap); 0: they stay


@dataclasses.dataclass(frozen=True, slots=True)
class Recurrence:
    """Shapes of a layer that keeps a state of the text so far in place of keys and values: see `Ops.delta`."""

    key_heads: int
    value_heads: int
    size: int  # of a head's keys, and of its values
    kernel: int  # tokens that the convolution sees
    grouped: bool  # value heads with the same key head stand together; else every `key_heads`-th has the same
    eps: float  # of the norms

    @property
    def channels(self) -> int:
        """Queries, keys and values of a token."""
        return (2 * self.key_heads + self.value_heads) * self.size

    @property
    def state_bytes(self) -> int:
        """Of one text: the inputs that the convolution still sees, and a matrix for each value head, float32."""
        return 4 * ((self.kernel - 1) * self.channels + self.value_heads * self.size * self.size)


@dataclasses.dataclass(frozen=True, slots=True)
class DeltaWeights:
    """What `Ops.delta` multiplies and adds."""

    conv: FloatArray  # (channels, kernel)
    decay: FloatArray  # (value heads,), below 0
    bias: FloatArray  # (value heads,), of the decay's input
    norm: FloatArray  # (size,)


@dataclasses.dataclass(frozen=True, slots=True)
class Rotation:
    """Rotary frequencies in radians a token, (half,) float64, and the factor on cos and sin."""

    frequencies: npt.NDArray[np.float64]
    magnitude: float


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Attending:
    """What one layer's attention does with q, k and v."""

    layer: int
    heads: Heads
    rotation: Rotation | None
    norms: tuple[FloatArray, FloatArray, float] | None = None  # of q and of k by head: weights and epsilon
    sinks: FloatArray | None = None  # of each head a score that takes its share of the softmax and gives nothing


@dataclasses.dataclass(frozen=True, slots=True)
class Routing:
    """How a router's logits become experts and weights: a probability each, the k best, normalised to 1 or not, times scale.

    `gating` as GGUF numbers it (runtime/config.py). `bias`, (experts,), counts in the choice and not in the weights.
    With several groups only the experts of the `group_used_count` best count: those whose two best have the largest sum.
    """

    expert_used_count: int
    normalize: bool
    scale: float
    gating: int = SOFTMAX
    bias: FloatArray | None = None
    group_count: int = 1
    group_used_count: int = 1
    expert_scale: FloatArray | None = None  # (experts,), factors of the weights


@dataclasses.dataclass(frozen=True, slots=True)
class Experts:
    """The stacked matrices of a layer's experts, their biases (experts, rows) where they have some, and what lies between."""

    gate: Tensor
    up: Tensor
    down: Tensor
    biases: tuple[FloatArray, FloatArray, FloatArray] | None = None
    activation: Activation = "silu"


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """Of each row of a Value and for each head h the values from `first + h * stride` on, `size` of them."""

    value: Value
    first: int
    size: int
    stride: int = 0


class Ops(Protocol):
    """One method a kind of work. All take and return Values; the recorder appends rows, a GPU executor computes."""

    def embed(self, table: Tensor, of: Of = "tokens") -> Value:
        """The table's rows of this step's tokens, of their positions, or of their types (0 for every token)."""

    def linear(self, x: Value, *weights: tuple[Tensor, FloatArray | None]) -> list[Value]:
        """x times each matrix, plus its bias; several at once share one pass over x."""

    def by_head(self, x: Value, weight: Tensor) -> Value:
        """Each head's part of x times a matrix of its own, (inputs, outputs, heads); (tokens, heads * outputs)."""

    def join(self, heads: int, *parts: Part) -> Value:
        """For each head the parts one after the other, (tokens, heads * the sum of their sizes)."""

    def rms_norm(self, x: Value, weight: FloatArray, eps: float) -> Value: ...

    def layer_norm(self, x: Value, weight: FloatArray, bias: FloatArray, eps: float) -> Value: ...

    def attention(self, q: Value, k: Value, v: Value, how: Attending) -> Value:
        """Norm q and k by head, turn them, store k and v, attend; (tokens, heads * value)."""

    def delta(
        self, layer: int, qkv: Value, z: Value, alpha: Value, beta: Value, shape: Recurrence, weights: DeltaWeights
    ) -> Value:
        """The gated delta rule (arXiv 2412.06464), (tokens, value heads * size).

        `qkv` passes silu(a causal convolution by channel); queries and keys are brought to length 1. With a value head's state S,
        (size, size), and for each token: S *= exp(decay * softplus(alpha + bias)); S += outer(k, sigmoid(beta) * (v - S^T k));
        out = norm(S^T q / sqrt(size)) * silu(z). A text begins with S = 0; what it leaves is kept for its next tokens.
        """

    def gated(self, gate: Value, up: Value, activation: Activation) -> Value:
        """activation(gate) * up; may reuse gate's memory."""

    def gelu(self, x: Value) -> Value:
        """gelu(x) by its approximation with tanh; may reuse x's memory."""

    def experts(
        self, x: Value, logits: Value, experts: Experts, routing: Routing, beside: Callable[[], Value] | None = None
    ) -> Value:
        """The routed experts' weighted sum: down(activation(gate x) * up x). `beside`: what is to be added, and does not wait
        for the experts."""

    def add(self, x: Value, y: Value) -> Value: ...

    def scale(self, x: Value, factor: float) -> Value:
        """factor * x; may reuse x's memory."""

    def gate_rows(self, x: Value, logits: Value) -> Value:
        """Each row of x times the sigmoid of its logit, (tokens, 1); may reuse x's memory."""

    def softcap(self, x: Value, cap: float) -> Value:
        """cap * tanh(x / cap); may reuse x's memory."""

    def outputs(self, x: Value) -> Value:
        """The rows whose logits are wanted."""
