"""The tables behind the mixes: what each mix is, and which type it gives a tensor by its role, its place and the model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from runtime.quantize.names import Role


@dataclasses.dataclass(frozen=True, slots=True)
class Model:
    """What mixes depend on."""

    architecture: str
    n_layers: int
    n_experts: int = 0
    group: int = 1  # query heads that share a key and value head
    is_70b: bool = False  # Llama with 80 layers and grouped heads
    has_matrix: bool = False  # an importance matrix is given

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


def _without_matrix(model: Model, i: int, n: int) -> bool:
    return not model.has_matrix


def _first_eighth_without_matrix(model: Model, i: int, n: int) -> bool:
    return not model.has_matrix and i < n // 8


def _first_eighth_with_matrix(model: Model, i: int, n: int) -> bool:
    return model.has_matrix and i < n // 8


def _below(count: int) -> When:
    return lambda model, i, n: i < count


def _eight_experts_more_bits(model: Model, i: int, n: int) -> bool:
    return model.n_experts == 8 and _more_bits(model, i, n)


# ---------------------------------------------------------------- rules

Rule = tuple[str, When, str]
"""Mixes, condition, type. The first rule that holds counts."""

LOWEST = "IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ2_M"

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
        (LOWEST, _grouped_or_experts, "Q4_K"),
        ("IQ2_S IQ2_M", _always, "IQ3_S"),
        (LOWEST, _always, "Q2_K"),
        ("Q2_K Q2_K_S IQ3_XXS IQ3_XS IQ3_S", _grouped, "Q4_K"),
        ("Q2_K", _always, "Q3_K"),
        ("IQ3_XXS", _without_matrix, "IQ3_S"),
        ("IQ3_M", _always, "Q4_K"),
        ("Q3_K_M", _below(2), "Q5_K"),
        ("Q3_K_M", _always, "Q4_K"),
        ("Q3_K_L", _always, "Q5_K"),
        ("IQ4_NL IQ4_XS", _grouped, "Q5_K"),
        ("Q4_K_M Q5_K_M", _more_bits, "Q6_K"),
        ("Q4_K_S", _below(4), "Q5_K"),
    ),
    Role.KEY: (
        (LOWEST, _eight_experts, "Q4_K"),
        (LOWEST, _always, ""),
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
        (LOWEST, _first_eighth, "Q2_K"),
        ("Q2_K", _always, "Q3_K"),
        ("Q2_K_S IQ3_M", _first_eighth, "Q4_K"),
        ("IQ3_XXS", _first_eighth_without_matrix, "Q4_K"),
        ("IQ3_XXS", _without_matrix, "Q3_K"),
        ("IQ3_M", _eight_experts_more_bits, "Q4_K"),
        ("Q3_K_M", _first_sixteenth, "Q5_K"),
        ("Q3_K_M", _always, "Q4_K"),
        ("Q3_K_L", _always, "Q5_K"),
        ("Q4_K_M Q5_K_M", _more_bits, "Q6_K"),
        ("IQ4_NL IQ4_XS", _first_eighth_without_matrix, "Q5_K"),
        ("Q4_K_S", _first_eighth, "Q5_K"),
        ("Q4_0", _first_eighth_with_matrix, "Q4_1"),
        ("Q5_0", _first_eighth_with_matrix, "Q5_1"),
    ),
    Role.ATTENTION_OUTPUT: (
        (
            f"Q2_K IQ3_XS IQ3_XXS Q3_K_S Q3_K_M IQ4_NL Q4_K_S Q4_K_M IQ3_S IQ3_M IQ4_XS {LOWEST}",
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

FALLBACK = {
    **dict.fromkeys(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS"), "IQ4_NL"),
    **dict.fromkeys(("Q2_K", "Q3_K", "TQ1_0", "TQ2_0"), "Q4_0"),
    **{"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"},
}
"""Types with blocks of 32 for rows that are no multiple of 256."""

AT_LEAST_Q8_0 = {"glm5-next": ("attn_q_a", "attn_q_b", "nextn.eh_proj")}


def by_rules(mix: Mix, model: Model, role: Role, i: int, n: int) -> str:
    """The type of the i-th of n tensors with that role; rows may still be too short for it."""
    rules = _RULES.get(role, ())
    if model.is_falcon and mix.name not in LOWEST.split():
        rules = _FALCON.get(role, ()) + (rules if role is not Role.ATTENTION_OUTPUT else ())
    holding = (kind for mixes, when, kind in rules if mix.name in mixes.split() and when(model, i, n))
    return next(holding, "") or mix.plain
