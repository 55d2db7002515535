"""The head of a model that ranks: from the vector of a question with a document to one number."""

from __future__ import annotations

import numpy as np

from runtime.config import ModelConfig
from runtime.core import FloatArray, ModelError
from runtime.weights import Weights

_HIDDEN, _NORM, _OUT = "cls", "cls.norm", "cls.output"
_SOFTMAX = ("qwen3",)  # architectures whose labels exclude each other, as in llama.cpp


class Classifier:
    """A dense layer with tanh (and a norm), then the labels; each part only where the file has it. The first label counts.

    Plain NumPy: a few vectors a step are not worth kernels.
    """

    def __init__(self, weights: Weights, config: ModelConfig) -> None:
        width = config.embedding_length
        if f"{_HIDDEN}.weight" not in weights and f"{_OUT}.weight" not in weights:
            raise ModelError("the file says that the model ranks texts, but it has no classifier head")
        self._hidden = _linear(weights, _HIDDEN, width, width)
        self._norm = weights.vector(f"{_NORM}.weight", width) if f"{_NORM}.weight" in weights else None
        labels = next((tensor.rows for tensor in weights if tensor.name == f"{_OUT}.weight"), 0)
        self._out = _linear(weights, _OUT, width, labels)
        self._eps = config.layer_norm_epsilon
        self._softmax = config.architecture in _SOFTMAX

    def __call__(self, vectors: FloatArray) -> FloatArray:
        """Numbers (texts, 1) for vectors (texts, width)."""
        x = vectors
        if self._hidden is not None:
            x = np.tanh(_apply(x, self._hidden))
            x = x if self._norm is None else _normed(x, self._norm, self._eps)
        if self._out is not None:
            x = _apply(x, self._out)
        if self._softmax:
            x = np.exp(x - x.max(1, keepdims=True))
            x = x / x.sum(1, keepdims=True)
        return np.ascontiguousarray(x[:, :1], np.float32)


_Linear = tuple[FloatArray, FloatArray]


def _linear(weights: Weights, name: str, n_in: int, n_out: int) -> _Linear | None:
    if f"{name}.weight" not in weights:
        return None
    matrix = weights.dequantize(weights.matrix(f"{name}.weight", n_in, n_out)).reshape(n_out, n_in)
    bias = weights.vector(f"{name}.bias", n_out) if f"{name}.bias" in weights else np.zeros(n_out, np.float32)
    return matrix, bias


def _apply(x: FloatArray, linear: _Linear) -> FloatArray:
    return x @ linear[0].T + linear[1]


def _normed(x: FloatArray, scale: FloatArray, eps: float) -> FloatArray:
    centred = x - x.mean(1, keepdims=True)
    normed: FloatArray = centred / np.sqrt((centred * centred).mean(1, keepdims=True) + np.float32(eps)) * scale
    return normed
