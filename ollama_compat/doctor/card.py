"""What a model will do with a card, from what layers of a known shape took on it (see runtime.measure.card_rates).

A token's time is the sum over layers: attention and all else that lies in VRAM costs what it cost the known layers, wide and
narrow ones, by the bytes that it reads; experts cost their bytes where they lie, the card's and the CPU's side by side, and the
hand-off. A step of a prompt costs its operations, or what launching its kernels or the way of the missing experts over the bus
takes, where that is longer.

Where the card may read a part of the experts from RAM itself, it does if a token gains by it what the executor asks for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from ollama_compat.doctor.shape import Shape

DENSE_LAUNCHES = 0.7  # of a layer with experts, the kernels that one without has
VOCABULARY = 65536  # of the slices that were measured
MOST_OVER_PCIE = 3  # experts of a token that the card may read from RAM itself; one less than runtime.execute.hybrid.MOST_PARTS
PCIE_GAIN = 1.15  # that a token has to gain by it: runtime.execute.shares.GAIN


class CardPredictor:
    """`machine`: the result of the job `machine`, with a card whose layers were timed."""

    def __init__(self, machine: Mapping[str, Any]) -> None:
        self._types: Mapping[str, Mapping[str, float]] = machine["rates"]["types"]
        self._card = cast("Mapping[str, Any]", machine["gpu"])
        self._ram = float(machine["read_all"])
        self._known = self._card["rates"]
        output = self._known["output"]
        self._vram: float = self._known["output_bytes"] / output if output else self._card["memory_read"]
        self._pace = self._paced()

    def knows(self, shape: Shape) -> bool:
        """Whether the CPU multiplies all types of the experts."""
        return all(part.type_name in self._types for part in shape.weights if part.share < 1)

    # ------------------------------------------------------------ decode

    def decode_seconds(self, shape: Shape, resident: Sequence[float], context: int, bandwidth: float = 1.0) -> float:
        """Of one token. `resident`: the part of each layer's experts that lies in VRAM; `bandwidth`: see Predictor.predict."""
        always = sum(part.bytes_a_token for part in shape.weights if part.share == 1 and not part.last_only)
        layer = self._layer(always / max(1, shape.layers))
        attention = shape.query_width * shape.attended(context) * self._known["position"]
        others = self._head(shape) + shape.layers * layer + attention
        used = shape.expert_used_count
        shares = [count / used for count in range(min(used, MOST_OVER_PCIE + 1))] if used and self._card["pcie"] else [0.0]
        alone, *shared = (others + sum(self._experts(shape, part, bandwidth, share) for part in resident) for share in shares)
        best = min(shared, default=alone)
        return float(best if alone >= PCIE_GAIN * best else alone)

    def _layer(self, nbytes: float) -> float:
        """Seconds of a layer that reads so many bytes beside experts: on the line through the two that are known, no less than
        the narrow one, and with more bytes than the wide one at the speed of VRAM."""
        narrow, known = self._known["narrow"], self._known
        more = nbytes - known["layer_bytes"]
        if more >= 0:
            return float(known["layer"] + more / self._vram)
        slope = (known["layer"] - narrow["layer"]) / (known["layer_bytes"] - narrow["layer_bytes"])
        return float(max(narrow["layer"], known["layer"] + more * max(0.0, slope)))

    def limit_seconds(self, shape: Shape, resident: Sequence[float]) -> float:
        """Of one token, if reading were all."""
        absent = self._absent(shape, resident)
        return float(absent / self._ram + (shape.bytes_a_token - absent) / self._card["memory_read"])

    def _head(self, shape: Shape) -> float:
        """What is spent beside the layers: the output, and its way to the CPU."""
        outputs = [part for part in shape.weights if part.last_only]
        reading = sum(part.nbytes for part in outputs) / self._vram
        logits = 4 * (sum(part.rows for part in outputs) - VOCABULARY) / self._card["from_card"]
        return float(max(0.0, self._known["head"] - self._known["output"] + logits) + reading)

    def _experts(self, shape: Shape, resident: float, bandwidth: float, over_pcie: float = 0.0) -> float:
        """Of one layer, with that part of its experts in VRAM; of the others the card reads the part `over_pcie` itself."""
        parts = [(part.type_name, part.bytes_a_token / shape.expert_layers) for part in shape.weights if part.share < 1]
        known: Mapping[str, int] = self._known["expert_bytes"]
        start = max(0.0, self._known["experts"] - sum(known.values()) / self._vram)
        nbytes = sum(nbytes for _, nbytes in parts)
        own = start + resident * nbytes / self._vram
        if resident >= 1:
            return float(own)
        handoff = self._known["handed"] - self._known["layer"] - sum(self._byte(kind, 1.0) * known[kind] for kind in known)
        computing = (1 - resident) * (1 - over_pcie) * sum(self._byte(kind, bandwidth) * nbytes for kind, nbytes in parts)
        if over_pcie:
            reading = (1 - resident) * over_pcie * nbytes / self._card["to_card_beside_reads"]
            computing = max(computing * max(1.0, self._ram / self._card["read_beside_copies"]), reading)
        return float(max(max(0.0, handoff) + computing, own if resident else 0.0))

    def _byte(self, kind: str, bandwidth: float) -> float:
        """Seconds that the CPU needs for a byte of experts."""
        return self._pace * self._timed(kind, bandwidth)

    def _timed(self, kind: str, bandwidth: float) -> float:
        """The same by the products that were timed."""
        rate = self._types[kind]
        return max(rate["cache"], rate["scattered"] / bandwidth)

    def _paced(self) -> float:
        """By how much the CPU was faster, when it was handed experts, than when its products were timed: somebody else had a part
        of its cores or its memory then. At most 1."""
        handed, known = self._known["handed"] - self._known["layer"], self._known["expert_bytes"]
        timed = sum(self._timed(kind, 1.0) * known[kind] for kind in known)
        return float(min(1.0, handed / timed)) if handed > 0 else 1.0

    @staticmethod
    def _absent(shape: Shape, resident: Sequence[float]) -> float:
        """Bytes of experts that a token reads from RAM."""
        experts = sum(part.bytes_a_token for part in shape.weights if part.share < 1)
        return experts * (1 - sum(resident) / len(resident)) if resident else 0.0

    # ------------------------------------------------------------ prompts

    def prompt_seconds(self, shape: Shape, resident: Sequence[float], tokens: int, rows: int) -> float:
        """Of a prompt from an empty cache, in steps of up to `rows`."""
        steps = [min(rows, tokens - first) for first in range(0, tokens, rows)]
        return sum(self._step(shape, resident, size) for size in steps)

    def _step(self, shape: Shape, resident: Sequence[float], rows: int) -> float:
        few, _, many = self._known["steps"]
        computing = self._computing(shape, rows)
        copies = [(1 - part) * shape.expert_bytes / shape.expert_layers / self._bus() for part in resident]
        computing = max(computing, few["layer"] * (1.0 if copies else DENSE_LAUNCHES))
        layers = [max(copy, computing) for copy in copies]
        beside = min(max(copies, default=0.0), computing)  # the first copy, or the last layer
        others = (shape.layers - len(copies)) * computing
        return float(beside + sum(layers) + others + max(0.0, few["head"], many["head"]))

    def _computing(self, shape: Shape, rows: int) -> float:
        """Seconds of the card in a layer, by its operations: on the line through those of the two known ones, no less than of the
        narrow one, and more than of the wide one as they are more."""
        products = sum(2 * part.values * part.share for part in shape.weights if not part.last_only) / max(1, shape.layers)
        both = self._known["narrow"], self._known
        (few, least), (many, most) = ((sum(kind["operations"]), _at(kind["steps"], rows)) for kind in both)
        if products >= many:
            return float(most * products / many)
        return float(max(least, most - max(0.0, most - least) * (many - products) / (many - few)))

    def _bus(self) -> float:
        """Bytes a second of experts on their way to the card, as the known layers streamed them where the bus was their limit."""
        step = self._known["steps"][1]
        alone = float(self._card["to_card"])
        streamed = self._known["stack_bytes"] / step["streamed"]
        return min(alone, streamed) if step["streamed"] > 1.5 * step["layer"] else alone


def _at(steps: Sequence[Mapping[str, float]], rows: int) -> float:
    """Seconds of a known layer in a step of so many rows: on the line through its two larger steps, where the card was the limit;
    a smaller step takes its part of them."""
    _, some, many = steps
    slope = (many["layer"] - some["layer"]) / (many["rows"] - some["rows"])
    return some["layer"] + slope * (rows - some["rows"]) if rows > some["rows"] else some["layer"] * rows / some["rows"]
