"""Rates of a CPU as doctor's job tells them, all 0 but what a test says."""

from __future__ import annotations

from typing import Any


def vector(line: float = 0.0, near: float = 0.0, far: float | None = None) -> dict[str, float]:
    """Those of a kernel that takes rows one by one."""
    return {"line": line, "near": near, "far": near if far is None else far}


def looks(**seconds: float) -> dict[str, float]:
    """Those of attention."""
    names = "head", "attention", "look", "near", "attention_kept", "kept"
    in_prompts = "turn", "turn_value", "begin", "begin_value", "attention_prompt", "look_prompt"
    return dict.fromkeys((*names, *in_prompts), 0.0) | seconds


def of_steps() -> dict[str, Any]:
    """All but those of weights."""
    names = "step", "row", "row_shared", "output_prompt", "output_least", "state", "state_prompt"
    vectors = {name: vector() for name in ("norm", "pack", "gate", "add", "combine", "choose")}
    return dict.fromkeys(names, 0.0) | {"vectors": vectors, "looks": looks()}
