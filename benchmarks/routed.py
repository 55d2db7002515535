"""A model on the card whose experts are chosen by a trace: where weights are random, its routers choose evenly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from driven import ROUNDS, TOKENS, Decoded, Model, in_turns
from routing_trace import Trace

SEEN = 300  # tokens that a cache of experts sees before it is measured


class Routed:
    """Decodes one text along a trace; see routing_trace.Trace. `tokens`: that are measured, at the most."""

    def __init__(self, model: Model, exponent: float, overlap: float, tokens: int = ROUNDS * TOKENS) -> None:
        self._model, executor = model, model.executor
        ops = executor._ops
        layers = [residence.layer for residence in ops.residences.values()]
        experts, used = layers[0].experts, executor._model.config.expert_used_count
        trace = Trace(len(layers), experts, used, exponent=exponent, overlap=overlap)
        ids = torch.from_numpy(np.stack([trace.step(1) for _ in range(SEEN + tokens)]))
        self._logits = torch.zeros((*ids.shape[:3], experts)).scatter_(3, ids, 1.0).cuda()
        self._now, self._at = torch.zeros_like(self._logits[0]), 0
        index, route = {layer.gate.name: i for i, layer in enumerate(layers)}, ops.experts

        def experts_of(x: Any, logits: Any, stacks: Any, *others: Any) -> Any:
            if logits.rows == 1:
                logits.data.copy_(self._now[index[stacks.gate.name]])
            return route(x, logits, stacks, *others)

        ops.experts = experts_of  # type: ignore[method-assign]
        executor._graphs.clear()
        self.decode(SEEN)
        self._before = executor.expert_hits, executor.expert_lookups

    def decode(self, tokens: int = TOKENS) -> float:
        """Tokens a second."""
        return self.decoded(tokens).tokens_a_second

    def decoded(self, tokens: int = TOKENS) -> Decoded:
        """The trace's next tokens."""
        return self._model.decoded(tokens, before=self._choose)

    def _choose(self) -> None:
        self._now.copy_(self._logits[self._at])
        torch.cuda.synchronize()
        self._at += 1

    def hit_rate(self) -> float:
        """Of the tokens after those that the cache has seen first."""
        executor = self._model.executor
        return round((executor.expert_hits - self._before[0]) / (executor.expert_lookups - self._before[1]), 3)


def decoding(name: str, exponent: float, overlap: float) -> Callable[[Model], dict[str, float]]:
    """Measures tokens a second along such a trace, and the cache's hit rate."""

    def measure(model: Model) -> dict[str, float]:
        trace = Routed(model, exponent, overlap)
        return in_turns({name: trace.decode}) | {f"{name}_hit_rate": trace.hit_rate()}

    return measure
