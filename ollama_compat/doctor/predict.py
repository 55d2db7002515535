"""What a model will do on a machine, from its shape and the machine's measured rates.

A token's time is the sum over types of bytes times the seconds a byte of that type costs on this CPU (measured with the kernels
that run models, weights from memory: so it holds for machines whose memory is the limit and for those whose cores are), the
rows of the Program times what a row costs, and attention over the context. A prompt's time is the same with operations in
the place of bytes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, cast

from ollama_compat.doctor.shape import Shape, Weights

ROWS_DENSE, ROWS_EXPERTS, ROWS_ENDS = 15, 19, 5  # of the Program: a layer of either kind; before and after the layers
STATE_PASSES, HIDDEN_PASSES = 2.0, 1.5  # over a token's state and hidden values in a layer, in units of a norm and a sum
LEFTOVER = 1.5  # columns whose work is lost on an expert's last rows, which fill no whole leaf
FEW_COLUMNS = 8  # rows of a prompt that share an expert's weights; with fewer the product is no faster than reading them
PEAK = {"avx512": 256, "avxvnni": 128, "avx2": 64, "portable": 8}  # int8 operations a cycle and core, at the most


@dataclasses.dataclass(frozen=True, slots=True)
class Prediction:
    """Tokens a second; None where the CPU cannot multiply one of the model's types."""

    decode: float | None
    decode_limit: float  # what the measured bandwidth allows
    prompt: float | None
    prompt_limit: float  # what the cores' integer units allow
    bound: str  # what holds decode back: "memory" or "cores"


class Predictor:
    """`machine` is the result of the job `machine`; `cache_bytes` those of the last cache."""

    def __init__(self, machine: Mapping[str, Any], cache_bytes: int) -> None:
        self._machine = machine
        self._cache_bytes = cache_bytes

    def predict(self, shape: Shape, context: int = 0, prompt: int = 512, bandwidth: float = 1.0) -> Prediction:
        """Decode at `context` tokens, and a prompt. `bandwidth`: by how much the memory is faster than it was measured."""
        known = all(part.type_name in self.rates(shape)["types"] for part in shape.weights)
        decode = self.decode_seconds(shape, context, bandwidth) if known else None
        reading = self.prompt_seconds(shape, prompt) if known else None
        return Prediction(
            decode=1 / decode if decode else None,
            decode_limit=1 / self._limit_seconds(shape, bandwidth),
            prompt=prompt / reading if reading else None,
            prompt_limit=self._peak(shape) * prompt / self._operations(shape, prompt),
            bound=self._bound(shape) if known else "",
        )

    def rates(self, shape: Shape) -> Mapping[str, Any]:
        """Those of the threads that the model runs on: a small one has only one."""
        useful = max(1, int(shape.bytes_a_token) // self._machine["thread_bytes"])
        return cast("Mapping[str, Any]", self._machine["rates" if useful > 1 else "rates_one"])

    # ------------------------------------------------------------ decode

    def decode_seconds(self, shape: Shape, context: int, bandwidth: float = 1.0) -> float:
        """Of one token."""
        rates = self.rates(shape)
        weights = sum(part.bytes_a_token * self._byte(part, shape, bandwidth) for part in shape.weights)
        rows = ROWS_ENDS + ROWS_DENSE * (shape.layers - shape.expert_layers) + ROWS_EXPERTS * shape.expert_layers
        attention = shape.layers * (shape.head_count * rates["head"] + shape.query_width * (context + 1) * rates["attention"])
        choices = shape.expert_layers * shape.expert_count * shape.expert_used_count
        fixed = rows * rates["row"] + choices * rates["router"]
        return float(weights + fixed + attention + self._elements(shape) * self._machine["rates_one"]["element"])

    def _byte(self, part: Weights, shape: Shape, bandwidth: float) -> float:
        """Seconds that a byte costs: what the cores need, or what the memory takes where that is longer."""
        rate = self.rates(shape)["types"][part.type_name]
        stays = part.share == 1.0 and shape.bytes_a_token <= self._cache_bytes  # no token pushes it out
        if stays or shape.nbytes <= self._cache_bytes:
            return float(rate["last_cache"])
        return float(max(rate["cache"], rate["memory"] / bandwidth))

    def _limit_seconds(self, shape: Shape, bandwidth: float) -> float:
        """Of one token, if reading were all: from memory, or for a model that the last cache holds from the cores' own caches."""
        rates = self.rates(shape)["types"]
        if shape.nbytes <= self._cache_bytes and all(part.type_name in rates for part in shape.weights):
            return float(sum(part.bytes_a_token * rates[part.type_name]["cache"] for part in shape.weights))
        return float(shape.bytes_a_token / (bandwidth * self._machine["read_all"]))

    def _bound(self, shape: Shape) -> str:
        """Whether the cores would be as slow without any wait for memory, for more than 80 % of the time."""
        times = [(part.bytes_a_token, self.rates(shape)["types"][part.type_name]) for part in shape.weights]
        cores = sum(nbytes * rate["cache"] for nbytes, rate in times)
        memory = sum(nbytes * rate["memory"] for nbytes, rate in times)
        return "cores" if shape.nbytes <= self._cache_bytes or cores > 0.8 * memory else "memory"

    def _elements(self, shape: Shape) -> float:
        """Of norms, sums, activation functions and packing of one token; with experts also of the sum of their answers."""
        dense = STATE_PASSES * shape.embedding_length + HIDDEN_PASSES * shape.hidden_width
        answers = shape.expert_layers * shape.expert_used_count * shape.embedding_length
        return shape.layers * dense + answers

    # ------------------------------------------------------------ prompts

    def prompt_seconds(self, shape: Shape, tokens: int) -> float:
        """Of a prompt from an empty cache."""
        products = sum(self._product(part, shape, tokens) for part in shape.weights)
        rates, seen = self.rates(shape), tokens * (tokens + 1) / 2
        stored = shape.cache_bytes * shape.head_count / max(1, shape.query_width)  # heads of keys and values, kept in f16
        turned = shape.layers * shape.head_count + stored
        attention = shape.layers * shape.query_width * seen * rates["attention_prompt"] + tokens * turned * rates["turn"]
        return float(products + attention + tokens * self._elements(shape) * rates["element"])

    def _product(self, part: Weights, shape: Shape, tokens: int) -> float:
        rate = self.rates(shape)["types"][part.type_name]
        if part.last_only:
            return float(part.nbytes * self._byte(part, shape, 1.0))
        work = tokens * part.share * (2 * part.values * rate["prompt"] + part.rows * self.rates(shape)["output_prompt"])
        if part.share == 1.0:
            return float(work)
        touched = 1 - (1 - part.share) ** tokens  # of the experts, when all are as likely
        columns = tokens * part.share / touched
        reading = part.nbytes * touched * self._byte(part, shape, 1.0)
        if columns < FEW_COLUMNS:
            return float(reading * max(1.0, columns / 2))
        return float(max(work * (1 + LEFTOVER / columns), reading))

    def _operations(self, shape: Shape, tokens: int) -> float:
        return sum(2 * part.values * part.share * (1 if part.last_only else tokens) for part in shape.weights)

    def _peak(self, shape: Shape) -> float:
        """Operations a second of the integer units of the cores that it runs on."""
        return float(PEAK.get(self._machine["isa"], 8) * self._machine["clock"] * self.rates(shape)["threads"])


def cycles_per_byte(machine: Mapping[str, Any], type_name: str) -> float:
    """Of one core, weights in its cache; not a number where the CPU does not multiply the type."""
    rate = machine["rates_one"]["types"].get(type_name)
    return rate["cache"] * machine["clock"] if rate else math.nan
