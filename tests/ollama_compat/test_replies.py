from __future__ import annotations

from ollama_compat import replies


def test_replies_have_ollamas_fields_in_its_order() -> None:
    metrics = replies.Metrics(6, 5, 4, 3, 0, 1)
    chat = replies.chat_reply("m", replies.message("hi", "hm"), done_reason="stop", logprobs=[{}], metrics=metrics)
    durations = ["total_duration", "load_duration", "prompt_eval_count", "prompt_eval_duration", "eval_count", "eval_duration"]
    assert list(chat) == ["model", "created_at", "message", "done", "done_reason", "logprobs", *durations]
    assert list(chat["message"]) == ["role", "content", "thinking"]
    generate = replies.generate_reply("m", "r", thinking="t", done_reason="stop", context=[1], metrics=metrics, logprobs=[{}])
    assert list(generate) == [
        "model",
        "created_at",
        "response",
        "thinking",
        "done",
        "done_reason",
        "context",
        *durations,
        "logprobs",
    ]


def test_a_part_has_no_more_than_it_needs() -> None:
    assert list(replies.generate_reply("m", "x")) == ["model", "created_at", "response", "done"]
    assert list(replies.chat_reply("m", replies.message("x"))) == ["model", "created_at", "message", "done"]
