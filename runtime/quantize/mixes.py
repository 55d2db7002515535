"""Which tensor gets which type, by the mix that a user names (llama-quant.cpp, where there is no importance matrix)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

from runtime.core import ModelError
from runtime.quantize import names
from runtime.quantize.names import Role
from runtime.quants import BY_NAME


@dataclasses.dataclass(frozen=True, slots=True)
class Model:
    """What mixes depend on."""

    architecture: str
    n_layers: int
    n_experts: int = 0
    group: int = 1  # query heads that share a key and value head
    is_70b: bool = False  # Llama with 80 layers and grouped heads

    @property
    def is_falcon(self) -> bool:
        """Falcon has rules of its own."""
        return self.architecture == "falcon"


@dataclasses.dataclass(frozen=True, slots=True)
class Mix:
    """`file_type`: llama.cpp's number, metadata general.file_type. `plain`: the type of tensors that no rule names."""

    name: str
    file_type: int
    plain: str


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """A tensor by name and shape in ggml's order: shape[0] is the length of a row."""

    name: str
    shape: Sequence[int]
    type_name: str  # what it has now


MIXES: Mapping[str, Mix] = {
    name: Mix(name, number, plain or name)
    for name, number, plain in (
        ("F32", 0, ""),
        ("F16", 1, ""),
        ("Q4_0", 2, ""),
        ("Q4_1", 3, ""),
        ("Q8_0", 7, ""),
        ("Q5_0", 8, ""),
        ("Q5_1", 9, ""),
        ("Q2_K", 10, ""),
        ("Q3_K_S", 11, "Q3_K"),
        ("Q3_K_M", 12, "Q3_K"),
        ("Q3_K_L", 13, "Q3_K"),
        ("Q4_K_S", 14, "Q4_K"),
        ("Q4_K_M", 15, "Q4_K"),
        ("Q5_K_S", 16, "Q5_K"),
        ("Q5_K_M", 17, "Q5_K"),
        ("Q6_K", 18, ""),
        ("IQ2_XXS", 19, ""),
        ("IQ2_XS", 20, ""),
        ("Q2_K_S", 21, "Q2_K"),
        ("IQ3_XS", 22, "IQ3_S"),
        ("IQ3_XXS", 23, ""),
        ("IQ1_S", 24, ""),
        ("IQ4_NL", 25, ""),
        ("IQ3_S", 26, ""),
        ("IQ3_M", 27, "IQ3_S"),
        ("IQ2_S", 28, "IQ2_XS"),
        ("IQ2_M", 29, "IQ2_S"),
        ("IQ4_XS", 30, ""),
        ("IQ1_M", 31, ""),
        ("BF16", 32, ""),
        ("TQ1_0", 36, ""),
        ("TQ2_0", 37, ""),
        ("MXFP4_MOE", 38, "MXFP4"),
    )
}

# ---------------------------------------------------------------- conditions

When = Callable[[Model, int, int], bool]
"""Whether a rule holds for the i-th of n tensors of its kind."""


def _always(model: Model, i: int, n: int) -> bool:
    return True


def _more_bits(model: Model, i: int, n: int) -> bool:
    """The first and the last eighth, and every third between."""
    return i < n // 8 or i >= 7 * n // 8 or (i - n // 8) % 3 == 2


def _first_eighth(model: Model, i: int, n: int) -> bool:
    return i < n // 8


def _first_sixteenth(model: Model, i: int, n: int) -> bool:
    return i < n // 16


def _inner(model: Model, i: int, n: int) -> bool:
    return n // 8 <= i < 7 * n // 8


def _grouped(model: Model, i: int, n: int) -> bool:
    return model.group >= 4


def _grouped_or_experts(model: Model, i: int, n: int) -> bool:
    return model.group >= 4 or model.n_experts >= 4


def _eight_experts(model: Model, i: int, n: int) -> bool:
    return model.n_experts == 8


def _below(count: int) -> When:
    return lambda model, i, n: i < count


def _eight_experts_more_bits(model: Model, i: int, n: int) -> bool:
    return model.n_experts == 8 and _more_bits(model, i, n)


# ---------------------------------------------------------------- rules

Rule = tuple[str, When, str]
"""Mixes, condition, type. The first rule that holds counts."""

_LOWEST = "IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ2_M"

_FALCON: Mapping[Role, tuple[Rule, ...]] = {
    Role.DOWN: (
        ("Q3_K_M", _first_sixteenth, "Q5_K"),
        ("Q3_K_M", _more_bits, "Q4_K"),
        ("Q3_K_M", _always, "Q3_K"),
        ("Q3_K_L", _always, "Q4_K"),
        ("Q4_K_M", _first_sixteenth, "Q6_K"),
        ("Q4_K_M", _more_bits, "Q5_K"),
        ("Q4_K_M Q4_K_S", _always, "Q4_K"),
    ),
    Role.ATTENTION_OUTPUT: (("Q3_K_L", _always, "Q4_K"),),
}

_RULES: Mapping[Role, tuple[Rule, ...]] = {
    Role.EMBEDDING: (
        ("IQ2_XXS IQ2_XS IQ1_S IQ1_M", _always, "Q2_K"),
        ("IQ2_S IQ2_M IQ3_XXS", _always, "IQ3_S"),
        ("TQ1_0 TQ2_0", _always, "Q4_K"),
    ),
    Role.VALUE: (
        (_LOWEST, _grouped_or_experts, "Q4_K"),
        ("IQ2_S IQ2_M", _always, "IQ3_S"),
        (_LOWEST, _always, "Q2_K"),
        ("Q2_K Q2_K_S IQ3_XXS IQ3_XS IQ3_S", _grouped, "Q4_K"),
        ("Q2_K", _always, "Q3_K"),
        ("IQ3_XXS", _always, "IQ3_S"),
        ("IQ3_M", _always, "Q4_K"),
        ("Q3_K_M", _below(2), "Q5_K"),
        ("Q3_K_M", _always, "Q4_K"),
        ("Q3_K_L", _always, "Q5_K"),
        ("IQ4_NL IQ4_XS", _grouped, "Q5_K"),
        ("Q4_K_M Q5_K_M", _more_bits, "Q6_K"),
        ("Q4_K_S", _below(4), "Q5_K"),
    ),
    Role.KEY: (
        (_LOWEST, _eight_experts, "Q4_K"),
        (_LOWEST, _always, ""),
        (" ".join(MIXES), _eight_experts, "Q8_0"),
        ("IQ3_XS", _always, "IQ3_XXS"),
        ("IQ3_XXS", _always, "IQ2_S"),
    ),
    Role.QUERY: (
        ("IQ3_XS", _always, "IQ3_XXS"),
        ("IQ3_XXS", _always, "IQ2_S"),
    ),
    Role.DOWN: (
        ("IQ2_S IQ2_M", _first_eighth, "IQ3_S"),
        (_LOWEST, _first_eighth, "Q2_K"),
        ("Q2_K", _always, "Q3_K"),
        ("Q2_K_S IQ3_XXS IQ3_M", _first_eighth, "Q4_K"),
        ("IQ3_XXS", _always, "Q3_K"),
        ("IQ3_M", _eight_experts_more_bits, "Q4_K"),
        ("Q3_K_M", _first_sixteenth, "Q5_K"),
        ("Q3_K_M", _always, "Q4_K"),
        ("Q3_K_L", _always, "Q5_K"),
        ("Q4_K_M Q5_K_M", _more_bits, "Q6_K"),
        ("IQ4_NL IQ4_XS Q4_K_S", _first_eighth, "Q5_K"),
    ),
    Role.ATTENTION_OUTPUT: (
        (
            f"Q2_K IQ3_XS IQ3_XXS Q3_K_S Q3_K_M IQ4_NL Q4_K_S Q4_K_M IQ3_S IQ3_M IQ4_XS {_LOWEST}",
            _eight_experts,
            "Q5_K",
        ),
        (" ".join(MIXES), _eight_experts, ""),
        ("IQ1_S IQ1_M", _always, "IQ2_XXS"),
        ("IQ2_S IQ2_M IQ3_XXS", _always, "IQ3_S"),
        ("Q2_K", _always, "Q3_K"),
        ("Q3_K_M IQ3_M", _always, "Q4_K"),
        ("Q3_K_L", _always, "Q5_K"),
    ),
    Role.GATE: (("IQ3_XS", _inner, "IQ3_XXS"),),
    Role.UP: (("IQ3_XS", _inner, "IQ3_XXS"),),
}

_FALLBACK = {
    **dict.fromkeys(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS"), "IQ4_NL"),
    **dict.fromkeys(("Q2_K", "Q3_K", "TQ1_0", "TQ2_0"), "Q4_0"),
    **{"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"},
}
"""Types with blocks of 32 for rows that are no multiple of 256."""

_AT_LEAST_Q8_0 = {"glm5-next": ("attn_q_a", "attn_q_b", "nextn.eh_proj")}


def by_rules(mix: Mix, model: Model, role: Role, i: int, n: int) -> str:
    """The type of the i-th of n tensors with that role; rows may still be too short for it."""
    rules = _RULES.get(role, ())
    if model.is_falcon and mix.name not in _LOWEST.split():
        rules = _FALCON.get(role, ()) + (rules if role is not Role.ATTENTION_OUTPUT else ())
    holding = (kind for mixes, when, kind in rules if mix.name in mixes.split() and when(model, i, n))
    return next(holding, "") or mix.plain


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
        if any(part in tensor.name for part in _AT_LEAST_Q8_0.get(model.architecture, ())):
            return "Q8_0"
        if role is Role.OUTPUT or (role is Role.EMBEDDING and self._is_tied):
            return self._output(tensor)
        if mix.name == "MXFP4_MOE":
            return "MXFP4" if self._is_experts(tensor, role) else "Q8_0"
        i, n = self._place(tensor, role)
        kind = by_rules(mix, model, role, i, n)
        if role is Role.VALUE and mix.name not in _LOWEST.split():
            if model.is_70b and kind in ("Q3_K", "Q4_K"):  # eight heads share it, so it is small
                kind = "Q5_K"
            kind = "Q8_0" if model.n_experts == 8 else kind
        return kind

    def _output(self, tensor: Shape) -> str:
        name, plain = self._mix.name, self._mix.plain
        if name == "MXFP4_MOE" or self._model.is_falcon or tensor.shape[0] % BY_NAME[plain].block_size:
            return "Q8_0"
        if name in _LOWEST.split() or name == "IQ3_XXS":
            return "Q5_K"
        return plain if plain == "Q8_0" else "Q6_K"

    def _is_experts(self, tensor: Shape, role: Role) -> bool:
        is_stack = len(tensor.shape) > 2 and tensor.shape[2] > 1
        return is_stack and (self._model.architecture != "bailingmoe3" or role in (Role.UP, Role.GATE, Role.DOWN))

    def _place(self, tensor: Shape, role: Role) -> tuple[int, int]:
        """Which of how many: by count, but feed-forward parts of a model with experts by their layer."""
        i, n = self._seen[role], self._count.get(role, self._model.n_layers)
        self._seen[role] += 1
        lowest = self._mix.name in _LOWEST.split()
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
    smaller = _FALLBACK.get(kind, kind)
    return "F16" if row % BY_NAME[smaller].block_size else smaller


def ordered(tensors: Iterable[Shape]) -> list[Shape]:
    """By layer, those of no layer first, then by name: the order in which llama.cpp goes through a model."""
    return sorted(tensors, key=lambda tensor: (names.layer(tensor.name), tensor.name))
