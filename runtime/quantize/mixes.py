"""Which tensor gets which type, by the mix that a user names (llama-quant.cpp)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from runtime.core import ModelError
from runtime.quantize import names
from runtime.quantize.names import Role
from runtime.quantize.rules import AT_LEAST_Q8_0, FALLBACK, LOWEST, MIXES, Mix, Model, by_rules
from runtime.quants import BY_NAME

__all__ = ["MIXES", "Chooser", "Mix", "Model", "Shape", "fitting", "ordered"]


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """A tensor by name and shape in ggml's order: shape[0] is the length of a row."""

    name: str
    shape: Sequence[int]
    type_name: str  # what it has now


class Chooser:
    """Chooses types, for tensors in the order of `ordered`: some rules count the tensors of a role."""

    def __init__(self, mix: Mix, model: Model, tensors: Iterable[Shape]) -> None:
        self._mix = mix
        self._model = model
        roles = [(names.role(tensor.name), tensor.name) for tensor in tensors]
        self._is_tied = all(role is not Role.OUTPUT for role, _ in roles)
        self._count = {Role.VALUE: sum(role is Role.VALUE for role, _ in roles)}
        self._seen = dict.fromkeys(Role, 0)

    def type_of(self, tensor: Shape) -> str:
        """The type that the tensor gets: the one it has where it is not to be quantised."""
        if not names.quantizable(tensor.name, tensor.shape, self._model.architecture):
            return tensor.type_name
        if BY_NAME[self._mix.plain].block_size == 1:
            return self._mix.plain
        return fitting(self._chosen(tensor), tensor.shape[0])

    def _chosen(self, tensor: Shape) -> str:
        role, model, mix = names.role(tensor.name), self._model, self._mix
        if any(part in tensor.name for part in AT_LEAST_Q8_0.get(model.architecture, ())):
            return "Q8_0"
        if role is Role.OUTPUT or (role is Role.EMBEDDING and self._is_tied):
            return self._output(tensor)
        if mix.name == "MXFP4_MOE":
            return "MXFP4" if self._is_experts(tensor, role) else "Q8_0"
        i, n = self._place(tensor, role)
        kind = by_rules(mix, model, role, i, n)
        if role is Role.VALUE and mix.name not in LOWEST.split():
            if model.is_70b and kind in ("Q3_K", "Q4_K"):  # eight heads share it, so it is small
                kind = "Q5_K"
            kind = "Q8_0" if model.n_experts == 8 else kind
        return kind

    def _output(self, tensor: Shape) -> str:
        name, plain = self._mix.name, self._mix.plain
        if name == "MXFP4_MOE" or self._model.is_falcon or tensor.shape[0] % BY_NAME[plain].block_size:
            return "Q8_0"
        if name in LOWEST.split() or name == "IQ3_XXS":
            return "Q5_K"
        return plain if plain == "Q8_0" else "Q6_K"

    def _is_experts(self, tensor: Shape, role: Role) -> bool:
        is_stack = len(tensor.shape) > 2 and tensor.shape[2] > 1
        return is_stack and (self._model.architecture != "bailingmoe3" or role in (Role.UP, Role.GATE, Role.DOWN))

    def _place(self, tensor: Shape, role: Role) -> tuple[int, int]:
        """Which of how many: by count, but feed-forward parts of a model with experts by their layer."""
        i, n = self._seen[role], self._count.get(role, self._model.n_layers)
        self._seen[role] += 1
        lowest = self._mix.name in LOWEST.split()
        if role not in (Role.UP, Role.GATE, Role.DOWN) or self._model.n_experts <= 1 or lowest:
            return i, n
        layer = names.layer(tensor.name)
        if not 0 <= layer < n:
            raise ModelError(f"tensor {tensor.name!r} is of none of the model's {n} layers")
        return layer, n


def fitting(kind: str, row: int) -> str:
    """The type, or for rows that it cannot divide into blocks the one that is used instead."""
    if row % BY_NAME[kind].block_size == 0:
        return kind
    smaller = FALLBACK.get(kind, kind)
    return "F16" if row % BY_NAME[smaller].block_size else smaller


def ordered(tensors: Iterable[Shape]) -> list[Shape]:
    """By layer, those of no layer first, then by name: the order in which llama.cpp goes through a model."""
    return sorted(tensors, key=lambda tensor: (names.layer(tensor.name), tensor.name))
