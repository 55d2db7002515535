"""What a model will do on a machine, from its shape and the machine's measured rates.

A step's time is the sum over the model's weights of what the CPU needs to multiply them by the step's rows (see `products`), the
rows of the Program times what a row costs, attention over the context, and what a step costs that has no rows at all. All
of it was measured with the kernels and the thread pool that run models, so it holds for machines whose memory is the limit and
for those whose cores are.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any, cast

from ollama_compat.doctor.products import Product
from ollama_compat.doctor.shape import Shape, Weights

ROWS_DENSE, ROWS_EXPERTS, ROWS_ENDS = 12, 17, 5  # of the Program: a layer of either kind; before and after the layers
PASSES = {"norm": 2, "pack": 2, "add": 2}  # over a token's state in a layer
COMBINED = 512  # values of a piece of work that combines experts' answers
NEAR, FAR = 64 * 2048, 512 * 2048  # values of the rows that rates of vectors are of
STEP = 512  # rows of a step of a prompt, where no card asks for more
# int8 operations a cycle and core, by how tiers' names begin
PEAK = {"amx": 2048, "avx512": 256, "avxvnni": 128, "avx2": 64, "portable": 8}


@dataclasses.dataclass(frozen=True, slots=True)
class Prediction:
    """Tokens a second; None where the CPU cannot multiply one of the model's types."""

    decode: float | None
    decode_limit: float | None  # what the measured bandwidth allows; None for models that make no text
    prompt: float | None
    prompt_limit: float  # what the cores' integer units allow
    bound: str  # what holds decode back: "memory" or "cores"


class Predictor:
    """`machine` is the result of the job `machine`; `cache_bytes` those of the last cache; `quota`: CPUs that control groups
    grant, None: all."""

    def __init__(self, machine: Mapping[str, Any], cache_bytes: int, quota: float | None = None) -> None:
        self._machine = machine
        self._cache_bytes = cache_bytes
        self._quota = quota

    def predict(self, shape: Shape, context: int = 0, prompt: int = 512, bandwidth: float = 1.0) -> Prediction:
        """Decode at `context` tokens, and a prompt. `bandwidth`: by how much the memory is faster than it was measured."""
        known = all(part.type_name in self.rates(shape)["types"] for part in shape.weights)
        decode = self.decode_seconds(shape, context, bandwidth) if known else None
        reading = self.prompt_seconds(shape, prompt) if known else None
        limit = self._limit_seconds(shape, bandwidth)
        return Prediction(
            decode=1 / decode if decode else None,
            decode_limit=1 / limit if limit else None,
            prompt=prompt / reading if reading else None,
            prompt_limit=self._peak(shape) * prompt / max(1.0, self._operations(shape, prompt)),
            bound=self._bound(shape) if known else "",
        )

    def rates(self, shape: Shape, threads: int = 0) -> Mapping[str, Any]:
        """Those of one thread or of all; `threads` 0: as many as a server gives the model, and a small one gets only one."""
        useful = threads or max(1, int(shape.bytes_a_token) // self._machine["thread_bytes"])
        return cast("Mapping[str, Any]", self._machine["rates" if useful > 1 else "rates_one"])

    # ------------------------------------------------------------ steps

    def decode_seconds(self, shape: Shape, context: int, bandwidth: float = 1.0, *, texts: int = 1, threads: int = 0) -> float:
        """Of a step with the next token of each of so many texts."""
        rates = self.rates(shape, threads)
        weights = sum(self._product(part, shape, rates, texts, texts, bandwidth) for part in shape.weights)
        looking, vectors = texts * self._looking(shape, rates, context, texts), self._vectors(shape, rates, texts)
        return self._held(rates) * float(weights + looking + vectors + self._fixed(shape, rates, texts))

    def _held(self, rates: Mapping[str, Any]) -> float:
        """How many times as long all takes, because a quota stops the threads: what was measured is how fast they run between."""
        return max(1.0, rates["threads"] / self._quota) if self._quota else 1.0

    def _looking(self, shape: Shape, rates: Mapping[str, Any], context: int, texts: int) -> float:
        """Of one token of so many texts: attention to so many before it, and what layers with a state do."""
        seen = shape.attended(context + 1)
        kept = shape.cache_bytes / max(1, shape.attention_layers)  # bytes of a layer and position
        looks = rates["looks"]
        near = kept * looks["near"] + shape.query_width * looks["attention"] + shape.head_count * looks["look"]
        far = kept * looks["kept"] + shape.query_width * looks["attention_kept"]
        held = texts * shape.cache_bytes * context * self._machine["kept_share"]
        spilled = self._spilled(shape.nbytes + held)
        heads = shape.attention_layers * shape.head_count * looks["head"]
        position = (1 - spilled) * near + spilled * max(near, far)
        return float(heads + seen * position + shape.state_values * rates["state"])

    def _spilled(self, nbytes: float) -> float:
        """The part of so many bytes that comes from memory each time that all of them are read: the last cache was seen to hold
        two thirds of its size, and none of what is read in turn where that fills it."""
        return min(1.0, max(0.0, 3 * nbytes / self._cache_bytes - 2)) if self._cache_bytes else 1.0

    def prompt_seconds(self, shape: Shape, tokens: int, threads: int = 0, most: int = STEP) -> float:
        """Of a prompt from an empty cache, in steps of up to `most` rows."""
        rates, seen = self.rates(shape, threads), sum(map(shape.attended, range(1, tokens + 1)))
        steps = sum(self._step(shape, rates, min(most, tokens - first)) for first in range(0, tokens, most))
        looks = rates["looks"]
        each = shape.query_width * looks["attention_prompt"] + shape.head_count * looks["look_prompt"]
        return self._held(rates) * float(steps + seen * each)

    def _step(self, shape: Shape, rates: Mapping[str, Any], rows: int) -> float:
        """Of a prompt, but for what its rows look at; the last one's logits are wanted."""
        products = sum(self._product(part, shape, rates, rows, 1, 1.0) for part in shape.weights)
        looks, size = rates["looks"], shape.query_width / max(1, shape.head_count)
        asked = shape.attention_layers * shape.head_count
        turned = asked + shape.cache_bytes / max(1, size)  # and heads of keys and values, kept in f16
        heads = turned * (looks["turn"] + size * looks["turn_value"]) + asked * (looks["begin"] + size * looks["begin_value"])
        states = shape.state_values * rates["state_prompt"]
        return float(products + rows * (states + heads) + self._vectors(shape, rates, rows) + self._fixed(shape, rates, rows))

    @staticmethod
    def _fixed(shape: Shape, rates: Mapping[str, Any], rows: int) -> float:
        """Of a step: what it costs without any rows of activations, and those of the Program."""
        count = ROWS_ENDS + ROWS_DENSE * (shape.layers - shape.expert_layers) + ROWS_EXPERTS * shape.expert_layers
        return float(rates["step"] + count * rates["row" if rows == 1 else "row_shared"])

    def _vectors(self, shape: Shape, rates: Mapping[str, Any], rows: int) -> float:
        """Of kernels that take a step's rows one by one, and of the activation function in those of experts."""
        by_kernel = (rates if rows > 1 else self._machine["rates_one"])["vectors"]  # a single row is one thread's work
        inside = rows * shape.expert_layers * shape.hidden_width * by_kernel["gate"]["near"]
        kernels = _kernels(shape)
        return float(inside + sum(times * _vector(by_kernel[name], rows, *sizes) for name, times, sizes in kernels))

    # ------------------------------------------------------------ products

    def _product(self, part: Weights, shape: Shape, rates: Mapping[str, Any], rows: int, outputs: int, bandwidth: float) -> float:
        """Seconds of a step with so many rows, and as many of them whose logits are wanted."""
        rows = outputs if part.last_only else rows
        return float(part.nbytes * self._of(part, shape, rates, bandwidth).expected(rows, part.share))

    def _of(self, part: Weights, shape: Shape, rates: Mapping[str, Any], bandwidth: float) -> Product:
        spilled = self._spilled(shape.bytes_a_token if part.share == 1.0 else shape.nbytes)  # what is read between two uses
        nbytes, short = max(1, part.nbytes), part.rows * rates["output_prompt"]
        rate, width = rates["types"][part.type_name], part.values / max(1, part.rows)
        least = part.rows * rates["output_least"]
        return Product(rate, part.values / nbytes, spilled, part.share < 1, bandwidth, short / nbytes, least / nbytes, width)

    # ------------------------------------------------------------ limits

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

    def _operations(self, shape: Shape, tokens: int) -> float:
        return sum(2 * part.values * part.share * (1 if part.last_only else tokens) for part in shape.weights)

    def _peak(self, shape: Shape) -> float:
        """Operations a second of the integer units of the cores that it runs on."""
        tier = next(name for name in PEAK if self._machine["isa"].startswith(name) or name == "portable")
        return float(PEAK[tier] * self._machine["clock"] * self.rates(shape)["threads"])


def cycles_per_byte(machine: Mapping[str, Any], type_name: str) -> float:
    """Of one core, weights in its cache; not a number where the CPU does not multiply the type."""
    rate = machine["rates_one"]["types"].get(type_name)
    return rate["cache"] * machine["clock"] if rate else math.nan


def _kernels(shape: Shape) -> Iterator[tuple[str, int, tuple[float, int]]]:
    """Kernels that take rows one by one: name, how often they run, and what they take of a token: values, and pieces."""
    width, used, experts = shape.embedding_length, shape.expert_used_count, shape.expert_layers
    dense = shape.layers - experts
    yield from ((name, times * shape.layers, (width, 1)) for name, times in PASSES.items())
    yield "pack", shape.layers, (shape.query_width / 2, 1)  # what attention answers
    yield from ((name, dense, (shape.hidden_width, 1)) for name in ("gate", "pack"))
    yield "pack", experts, (shape.hidden_width, used)
    yield "choose", experts, (shape.expert_count * used, 1)
    yield "combine", experts, (used * width, math.ceil(width / COMBINED))


def _vector(rate: Mapping[str, float], rows: int, values: float, pieces: int) -> float:
    """Seconds of a kernel: rates in between go by the logarithm of what a step's rows take. Of a single row there are no
    pieces."""
    size = math.log(max(1.0, rows * values) / NEAR) / math.log(FAR / NEAR)
    value = rate["near"] + min(max(size, 0.0), 1.0) * (rate["far"] - rate["near"])
    return rows * (values * value + (pieces * rate["line"] if rows > 1 else 0.0))
