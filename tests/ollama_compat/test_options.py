from __future__ import annotations

from typing import Any

import pytest

from ollama_compat import options
from ollama_compat.errors import ApiError
from ollama_compat.gojson import Number
from ollama_compat.options import Options
from runtime.frames import Sampling


def test_without_options_there_are_the_defaults() -> None:
    assert options.merge() == Options()
    assert Options().sampling() == Sampling()


def test_the_request_comes_over_the_model() -> None:
    merged = options.merge({"top_k": 5, "stop": ["a", "b"], "seed": 1}, {"top_k": 6, "stop": ["c"]})
    assert (merged.top_k, merged.stop, merged.seed) == (6, ("c",), 1)


def test_no_typical_p_is_none() -> None:
    assert options.merge({"typical_p": 0}).sampling().typical_p == 1.0


def test_null_is_absent_and_unknown_names_are_ignored() -> None:
    assert options.merge({"top_k": 7}, {"top_k": None, "tfs_z": 2, "nope": "x", "Top_K": 9}).top_k == 7


@pytest.mark.parametrize(
    ("name", "value", "needed"),
    [
        ("num_keep", "1", "type integer"),
        ("seed", True, "type integer"),
        ("num_ctx", [1], "type integer"),
        ("main_gpu", "0", "type integer"),
        ("top_p", "0.5", "type float32"),
        ("temperature", [0.5], "type float32"),
        ("temperature", True, "type float32"),
        ("use_mmap", 1, "type boolean"),
        ("stop", "x", "type array"),
        ("stop", [1], "an array of strings"),
        ("mirostat", "2", "type integer"),
        ("xtc_threshold", "0.1", "type float32"),
        ("dry_sequence_breakers", "\n", "type array"),
        ("logit_bias", 5, "type map"),
        ("logit_bias", [[1]], "type map"),
        ("logit_bias", {"1": "x"}, "type float32"),
    ],
)
def test_a_wrong_type_is_a_server_error_as_in_ollama(name: str, value: Any, needed: str) -> None:
    with pytest.raises(ApiError) as caught:
        options.merge({name: value})
    assert (caught.value.status, caught.value.message) == (500, f'option "{name}" must be of {needed}')


@pytest.mark.parametrize(
    ("value", "whole"),
    [(2.9, 2), (-2.9, -2), (Number("7"), 7), (Number("2.9"), 2), (1e30, -(1 << 63)), (Number("1e30"), -(1 << 63))],
)
def test_floats_for_integers_are_cut(value: Any, whole: int) -> None:
    assert options.merge({"top_k": value}).top_k == whole


def test_floats_are_float32() -> None:
    assert options.merge({"top_p": 0.1}).top_p == 0.10000000149011612
    assert options.merge({"temperature": 1e300}).temperature == 3.4028234663852886e38


@pytest.mark.parametrize(
    ("given", "field", "bounded"),
    [
        ({"top_k": 1 << 62}, "top_k", (1 << 31) - 1),
        ({"top_k": -9}, "top_k", -1),
        ({"repeat_last_n": -5}, "repeat_last_n", -1),
        ({"temperature": -1.0}, "temperature", 0.0),
        ({"seed": -1}, "seed", -1),
        ({"seed": 1 << 40}, "seed", 0),
        ({"seed": -2}, "seed", 0xFFFFFFFE),
    ],
)
def test_sampling_is_bounded(given: dict[str, Any], field: str, bounded: Any) -> None:
    assert getattr(options.merge(given).sampling(), field) == bounded


@pytest.mark.parametrize(("num_predict", "limit"), [(-1, 1280), (0, 1280), (-2, 1280), (5, 5), (1280, 1280), (1 << 40, 1280)])
def test_generation_is_bounded_by_ten_contexts(num_predict: int, limit: int) -> None:
    assert options.merge({"num_predict": num_predict}).predict_limit(128, chats=False) == limit
    assert options.merge({"num_predict": num_predict}).predict_limit(128, chats=True) == (limit if num_predict else 1)


def test_samplers_beyond_ollama() -> None:
    given = {"dry_multiplier": 0.5, "dry_sequence_breakers": ["x"], "mirostat": 2, "xtc_probability": 0.25, "dynatemp_range": -1}
    assert options.merge(given).sampling() == Sampling(
        dry_multiplier=0.5, dry_sequence_breakers=["x"], mirostat=2, xtc_probability=0.25, dynatemp_range=-1.0
    )
    assert options.merge({"mirostat": -(1 << 62), "dry_penalty_last_n": -1}).sampling().dry_penalty_last_n == 0


def test_biases() -> None:
    expected = ((17, -2.5), (3, -1e30), (4, -1e30))
    assert options.merge({"logit_bias": {"17": -2.5, "3": False, "4": -1e300}}).logit_bias == expected
    assert options.merge({"logit_bias": [[17, Number("-2.5")], ["3", False], [4, -1e38]]}).logit_bias == expected


@pytest.mark.parametrize("token", ["x", "-1", "1.5", "1" * 12, "\u0664"])
def test_a_bias_belongs_to_a_token(token: str) -> None:
    with pytest.raises(ApiError, match="token ids"):
        options.merge({"logit_bias": {token: 1}})
