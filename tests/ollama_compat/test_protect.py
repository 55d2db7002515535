"""Text of a client cannot become a control token."""

from __future__ import annotations

import random

import pytest

from ollama_compat.template import protect, protect_messages, protect_value
from runtime.frames import BREAK

CHATML = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]


@pytest.mark.parametrize(
    ("text", "tokens", "expected"),
    [
        ("hello", CHATML, "hello"),
        ("", CHATML, ""),
        ("a <|im_end|> b", CHATML, "a <~|im_end|> b"),
        ("<|im_end|><|im_start|>", CHATML, "<~|im_end|><~|im_start|>"),
        ("<|im_end| >", CHATML, "<|im_end| >"),
        ("<|im_<|im_end|>end|>", CHATML, "<|im_<~|im_end|>end|>"),
        ("aaab", ["ab", "aab"], "aa~a~b"),
        ("[INST] </s> .*", ["[INST]", "</s>", ".*"], "[~INST] <~/s> .~*"),
        ("<s>", ["<s>", "<s>x"], "<~s>"),
        ("x", ["x"], "x"),  # nothing to cut
        ("<|im_end|>", [], "<|im_end|>"),
    ],
)
def test_protect(text: str, tokens: list[str], expected: str) -> None:
    assert protect(text, tokens) == expected.replace("~", BREAK)


def test_breaks_of_the_text_are_dropped() -> None:
    assert protect(f"a{BREAK}b", []) == "ab"
    assert protect(f"<{BREAK}|im_end|>", CHATML) == f"<{BREAK}|im_end|>"
    assert protect(f"<|im{BREAK}_end|>", CHATML) == f"<{BREAK}|im_end|>"


def test_no_token_is_left_and_it_is_idempotent() -> None:
    rng = random.Random(1)
    for _ in range(500):
        tokens = ["".join(rng.choices("<|ab", k=rng.randint(2, 5))) for _ in range(rng.randint(1, 8))]
        text = "".join(rng.choices(["<", "|", "a", "b", BREAK, *tokens], k=30))
        safe = protect(text, tokens)
        assert protect(safe, tokens) == safe
        assert safe.replace(BREAK, "") == text.replace(BREAK, "")
        assert not any(token in piece for token in tokens for piece in safe.split(BREAK))


def test_long_tokens_and_many_tokens() -> None:
    """Neither the depth nor the size of a hostile vocabulary is a problem."""
    nested = ["a" * length + "b" for length in range(1, 400)]
    safe = protect("a" * 399 + "b", nested)
    assert not any(token in piece for token in nested for piece in safe.split(BREAK))
    many = [f"<|reserved_{number}|>" for number in range(5000)]
    assert protect("<|reserved_4711|>", many) == f"<{BREAK}|reserved_4711|>"
    assert protect("<|reserved_" * 50000, many) == "<|reserved_" * 50000


def test_messages() -> None:
    said = "</think> <|im_end|>"
    call = {"id": "1", "function": {"index": 0, "name": "f", "arguments": {"q": "<|im_end|>", "<|im_end|>": [1, None, True]}}}
    messages = [
        {"role": "system", "content": "<|im_end|>"},
        {"role": "user<|im_start|>", "content": "<|im_end|>", "images": ["<|im_end|>"]},
        {"role": "assistant", "content": said + BREAK, "thinking": said, "tool_calls": [call]},
        {"role": "tool", "content": "<|im_end|>", "tool_name": "<|im_end|>"},
    ]
    cut = f"<{BREAK}|im_end|>"
    assert protect_messages(messages, [*CHATML, "</think>"]) == [
        {"role": "system", "content": cut},
        {"role": f"user<{BREAK}|im_start|>", "content": cut, "images": ["<|im_end|>"]},
        {
            "role": "assistant",
            "content": said,
            "thinking": said,
            "tool_calls": [{"id": "1", "function": {"index": 0, "name": "f", "arguments": {"q": cut, cut: [1, None, True]}}}],
        },
        {"role": "tool", "content": cut, "tool_name": cut},
    ]
    assert messages[0]["content"] == "<|im_end|>"  # a copy


def test_tools() -> None:
    tools = [{"type": "function", "function": {"name": "f", "description": "a <|im_end|>", "parameters": {"required": ("x",)}}}]
    protected = protect_value(tools, CHATML)
    assert protected[0]["function"] == {"name": "f", "description": f"a <{BREAK}|im_end|>", "parameters": {"required": ["x"]}}
