"""runtime.engine (with runtime.prompt and runtime.answer) on a toy model whose every answer can be computed by hand."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
from toy_model import (
    BOS,
    CALL,
    EOS,
    N_VOCAB,
    REFUSED,
    GrowingExecutor,
    Runs,
    ShortlistingExecutor,
    ToyExecutor,
    alone,
    chaos,
    make_tokenizer,
    saying,
)

from runtime.core import FloatArray
from runtime.frames import BREAK, Cut, Done, Failed, Generate, GiveBack, GivenBack, Grow, Grown, Sampling, Token

GREEDY = Sampling(temperature=0)
TOKENIZER = make_tokenizer()


def ask(number: int = 1, prompt: str = "hello", **fields: object) -> Generate:
    return Generate(number, prompt, **({"sampling": GREEDY, "num_predict": 20} | fields))  # type: ignore[arg-type]


def spoken(text: str | bytes, request: Generate, *, end: bool = True, add_bos: bool = True) -> Runs:
    """A run in which the model answers `text` byte by byte."""
    answer = list(text.encode() if isinstance(text, str) else text)
    return spoken_tokens(answer if end else answer + [ord("?")] * 1000, request, add_bos=add_bos)


def spoken_tokens(answer: Sequence[int], request: Generate, *, add_bos: bool = True) -> Runs:
    n_prompt = len(request.tokens) + len(make_tokenizer(add_bos).encode(request.prompt))
    runs = Runs(ToyExecutor(saying(n_prompt, answer)), add_bos=add_bos)
    runs.run(request)
    return runs


# ---------------------------------------------------------------- one request


def test_greedy_text() -> None:
    runs = Runs(ToyExecutor())
    runs.run(ask(num_predict=150))
    expected = alone(chaos, [BOS, 261, ord("o")], 150)
    assert runs.ids(1) == expected
    assert runs.executor.rows == [3] + [1] * 149
    done = runs.done(1)
    assert (done.reason, done.prompt_tokens, done.cached_tokens, done.eval_tokens) == ("length", 3, 0, 150)
    assert done.context == [261, ord("o"), *expected]
    assert done.prompt_ns > 0
    assert done.eval_ns > done.prompt_ns / 100


def test_the_end_token_is_counted_but_not_told() -> None:
    runs = spoken("Hi!", ask(logprobs=0))
    assert runs.text(1) == "Hi!"
    assert [len(frame.logprobs) for frame in runs.tokens(1)] == [1, 1, 1]
    assert (runs.done(1).reason, runs.done(1).stop, runs.done(1).eval_tokens) == ("stop", "", 4)
    assert EOS not in runs.done(1).context


def test_an_answer_of_nothing() -> None:
    runs = spoken("", ask())
    assert runs.frames[1] == [runs.done(1)]
    assert (runs.done(1).reason, runs.done(1).eval_tokens) == ("stop", 1)


@pytest.mark.parametrize(("limit", "count"), [(0, 1), (1, 1), (5, 5), (-1, 9)])
def test_num_predict(limit: int, count: int) -> None:
    runs = spoken("abcdefgh", ask(num_predict=limit))
    assert runs.text(1) == "abcdefgh"[:count]
    assert runs.done(1).eval_tokens == count
    assert runs.done(1).reason == ("stop" if limit < 0 else "length")
    assert runs.done(1).eval_ns >= 1000


def test_the_end_at_the_limit_is_a_stop() -> None:
    runs = spoken("abc", ask(num_predict=4))
    assert (runs.text(1), runs.done(1).reason) == ("abc", "stop")


# ---------------------------------------------------------------- prompts


def test_bos_is_put_once() -> None:
    for prompt in ("hello", "<bos>hello"):
        runs = Runs(ToyExecutor())
        runs.run(ask(prompt=prompt))
        assert runs.ids(1) == alone(chaos, [BOS, 261, ord("o")], 20)
        assert runs.done(1).prompt_tokens == 3


def test_a_model_without_bos() -> None:
    runs = Runs(ToyExecutor(), add_bos=False)
    runs.run(ask())
    assert runs.ids(1) == alone(chaos, [261, ord("o")], 20)


def test_context_goes_first() -> None:
    runs = Runs(ToyExecutor())
    runs.run(ask(1, num_predict=5))
    context = runs.done(1).context
    runs.run(ask(2, tokens=context, prompt="ab"))
    assert runs.done(2).prompt_tokens == 1 + len(context) + 2
    assert runs.ids(2) == alone(chaos, [BOS, *context, ord("a"), ord("b")], 20)
    assert runs.done(2).context[: len(context) + 2] == [*context, ord("a"), ord("b")]


def test_special_tokens_in_the_prompt() -> None:
    for request, first in ((ask(prompt="<call>"), CALL), (ask(prompt=f"<{BREAK}call>"), ord("<"))):
        runs = Runs(ToyExecutor())
        runs.run(request)
        assert runs.done(1).context[0] == first
    runs = Runs(ToyExecutor())
    runs.run(ask(prompt="<call>", parse_special=False))
    assert runs.done(1).prompt_tokens == 6


def test_an_empty_prompt() -> None:
    runs = Runs(ToyExecutor(), add_bos=False)
    runs.run(ask(prompt=""))
    assert (runs.done(1).reason, runs.done(1).eval_tokens, runs.executor.rows) == ("stop", 0, [])
    runs = Runs(ToyExecutor())
    runs.run(ask(prompt=""))
    assert runs.done(1).prompt_tokens == 1


@pytest.mark.parametrize("fields", [{}, {"truncate": True, "shift": False}])
def test_a_prompt_too_long(fields: dict[str, bool]) -> None:
    runs = Runs(ToyExecutor(), num_ctx=64)
    runs.run(ask(prompt="x" * 63, **fields))
    failed = runs.failed(1)
    assert (failed.kind, failed.n_prompt, failed.n_ctx) == ("context_length", 64, 64)
    assert failed.message == "request (64 tokens) exceeds the available context size (64 tokens), try increasing it"
    runs.run(ask(2, prompt="x" * 62, **fields))
    assert runs.done(2).prompt_tokens == 63


@pytest.mark.parametrize(
    ("num_keep", "count", "front"),
    [(4, 67, 5), (0, 65, 1), (-1, 127, 127), (200, 127, 127), (20, 75, 21)],
)
def test_a_prompt_is_cut_as_ollama_cuts(num_keep: int, count: int, front: int) -> None:
    text = "".join(chr(33 + place % 90) for place in range(300))
    runs = Runs(ToyExecutor(), num_ctx=128)
    runs.run(ask(prompt=text, truncate=True, num_keep=num_keep, num_predict=1))
    whole = TOKENIZER.encode(text)
    assert runs.done(1).prompt_tokens == count
    assert runs.ids(1) == alone(chaos, whole[:front] + whole[len(whole) - (count - front) :], 1)
    assert runs.done(1).context[:-1] == whole[1:]


def test_a_request_for_less_context_is_cut_to_that() -> None:
    runs = Runs(ToyExecutor(), num_ctx=128)
    runs.run(ask(prompt="x" * 100, truncate=True, num_ctx=64, num_predict=1), ask(2, prompt="x" * 100, num_ctx=64, shift=False))
    assert runs.done(1).prompt_tokens == 35
    assert runs.failed(2).n_ctx == 64


def test_context_of_another_model() -> None:
    for tokens in ([N_VOCAB], [-1]):
        runs = Runs(ToyExecutor())
        runs.run(ask(tokens=tokens))
        assert runs.failed(1).kind == "bad_request"


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"images": ["aGk="]}, "unsupported"),
        ({"grammar": "root ::= x"}, "bad_request"),
        ({"sampling": Sampling(repeat_penalty=0)}, "bad_request"),
    ],
)
def test_what_cannot_be_done_fails_alone(fields: dict[str, object], kind: str) -> None:
    runs = Runs(ToyExecutor())
    runs.run(ask(1, **fields), ask(2))
    assert runs.failed(1).kind == kind
    assert runs.ids(2) == alone(chaos, [BOS, 261, ord("o")], 20)


# ---------------------------------------------------------------- text


def test_characters_are_told_whole() -> None:
    runs = spoken("aé€😀b", ask(logprobs=0))
    assert [frame.text for frame in runs.tokens(1)] == ["a", "é", "€", "😀", "b"]
    assert [len(frame.tokens) for frame in runs.tokens(1)] == [1, 2, 3, 4, 1]
    assert [len(frame.logprobs) for frame in runs.tokens(1)] == [1, 2, 3, 4, 1]


def test_a_character_cut_off_by_the_limit_is_lost_but_counted() -> None:
    runs = spoken("a😀", ask(num_predict=3, logprobs=0))
    assert runs.text(1) == "a"
    assert runs.ids(1) == list("a😀".encode())[:3]
    assert sum(len(frame.logprobs) for frame in runs.tokens(1)) == 3


def test_bytes_that_are_no_text() -> None:
    runs = spoken(b"a\xffb", ask())
    assert runs.text(1) == "a\ufffdb"


def test_control_tokens_are_hidden_unless_wanted() -> None:
    answer = [ord("a"), CALL, ord("b")]
    runs = spoken_tokens(answer, ask())
    assert (runs.text(1), runs.ids(1)) == ("ab", answer)
    runs = spoken_tokens(answer, ask(preserved=["<call>", "<nothing>"]))
    assert [frame.text for frame in runs.tokens(1)] == ["a", "<call>", "b"]


def test_an_end_token_that_is_wanted_is_told() -> None:
    runs = spoken("ab", ask(preserved=["<eos>"]))
    assert (runs.text(1), runs.done(1).reason) == ("ab<eos>", "stop")


# ---------------------------------------------------------------- stop strings


@pytest.mark.parametrize(
    ("answer", "stops", "told", "stop"),
    [
        ("abcdef", ["cd"], "ab", "cd"),
        ("abcdef", ["a"], "", "a"),
        ("abcdef", ["f"], "abcde", "f"),
        ("abcdef", ["x", "de", "cde"], "ab", "cde"),  # the one that ends the same, but begins earlier
        ("abcdef", ["d", "def"], "abc", "d"),
        ("ababac", ["abac"], "ab", "abac"),
        ("aab\n\nUser:", ["\n\nUser:"], "aab", "\n\nUser:"),
        ("a\n\nb", ["\n\nUser:"], "a\n\nb", ""),
        ("abc", ["cx"], "abc", ""),  # held back, then told at the end
        ("a😀b", ["😀"], "a", "😀"),
        ("abc", ["", "b"], "a", "b"),
    ],
)
def test_stop_strings(answer: str, stops: list[str], told: str, stop: str) -> None:
    runs = spoken(answer, ask(stop=stops))
    assert runs.text(1) == told
    assert (runs.done(1).stop, runs.done(1).reason) == (stop, "stop")
    assert TOKENIZER.decode(runs.done(1).context) == "hello" + told
    found = answer.encode().find(stop.encode()) + len(stop.encode()) if stop else len(answer.encode()) + 1
    assert runs.done(1).eval_tokens == found


def test_nothing_that_may_become_a_stop_string_is_told_early() -> None:
    runs = spoken("say STOX and STOP", ask(stop=["STOP"]))
    assert runs.text(1) == "say STOX and "
    assert [frame.text for frame in runs.tokens(1)] == [*"say ", "STOX", *" and "]
    assert [len(frame.tokens) for frame in runs.tokens(1)] == [1, 1, 1, 1, 4, 1, 1, 1, 1, 1]


def test_a_stop_string_inside_a_token() -> None:
    answer = [261, ord("o"), 261, ord("!")]  # hell o hell !
    runs = spoken_tokens(answer, ask(stop=["oh"], logprobs=0))
    assert (runs.text(1), runs.ids(1)) == ("hell", [261])
    runs = spoken_tokens(answer, ask(stop=["el"], logprobs=0))
    assert (runs.text(1), runs.ids(1)) == ("h", [261])
    assert runs.done(1).context == [261, ord("o"), ord("h")]
    assert len(runs.tokens(1)[0].logprobs) == 1


def test_held_text_is_told_at_the_limit() -> None:
    runs = spoken("abST", ask(stop=["STOP"], num_predict=4))
    assert (runs.text(1), runs.done(1).reason, runs.done(1).stop) == ("abST", "length", "")


# ---------------------------------------------------------------- repetitions


@pytest.mark.parametrize(
    ("answer", "told", "reason"),
    [
        ("abbbb", "abbbb", "stop"),
        ("abbbbb", "abbbb", "repeated"),
        ("abbbbbc", "abbbb", "repeated"),
        ("bbbbcbbbbcbb", "bbbbcbbbbcbb", "stop"),
        ("a \n\t ", "a \n\t ", "repeated"),  # white space is nothing, and so is the end
        ("a \n", "a \n", "stop"),
        ("a \n\t", "a \n\t", "repeated"),
        ("  ", "  ", "repeated"),  # and so is what was before the first token
        (" ", " ", "stop"),
        ("éééééé", "éééé", "repeated"),  # halves of characters do not count
        ("éßéßéß", "éßéßéß", "stop"),
    ],
)
def test_an_answer_that_repeats_itself_breaks_off(answer: str, told: str, reason: str) -> None:
    runs = spoken(answer, ask(repeat_limit=3))
    assert (runs.text(1), runs.done(1).reason) == (told, reason)
    assert not runs.engine.busy
    stats = runs.engine.stats(0)
    assert (stats.running, stats.blocks_free + stats.blocks_cached) == (0, stats.blocks_total)


def test_without_a_limit_it_goes_on() -> None:
    runs = spoken("a" * 15, ask())
    assert (runs.text(1), runs.done(1).reason) == ("a" * 15, "stop")


@pytest.mark.parametrize(("blanks", "reason"), [(3, "length"), (4, "repeated")])
def test_the_limit_of_tokens_is_an_end_too(blanks: int, reason: str) -> None:
    runs = spoken("a" + " " * 9, ask(repeat_limit=3, num_predict=blanks + 1))
    assert (runs.text(1), runs.done(1).reason) == ("a" + " " * blanks, reason)


def test_tokens_that_show_nothing_repeat_each_other() -> None:
    runs = spoken("aSTOSTOSTO", ask(repeat_limit=3, stop=["STOSTOSTOP"]))
    assert (runs.text(1), runs.done(1).reason, runs.done(1).eval_tokens) == ("a", "repeated", 6)
    runs = spoken_tokens([ord("a"), *[CALL] * 9], ask(repeat_limit=3))
    assert (runs.text(1), runs.done(1).reason, runs.done(1).eval_tokens) == ("a", "repeated", 6)


def test_a_stop_string_counts_once() -> None:
    runs = spoken("abbbbS", ask(repeat_limit=3, stop=["S"]))
    assert (runs.text(1), runs.done(1).reason, runs.done(1).stop) == ("abbbb", "stop", "S")


# ---------------------------------------------------------------- logprobs


def test_logprobs_are_the_models_own() -> None:
    runs = Runs(ToyExecutor())
    runs.run(ask(sampling=Sampling(temperature=0.0, repeat_penalty=1.5, top_k=3), logprobs=4, num_predict=10))
    text = [BOS, 261, ord("o")]
    for frame in runs.tokens(1):
        for token, entry in zip(frame.tokens, frame.logprobs, strict=True):
            logits = chaos(text).astype(np.float64)
            expected = logits - np.log(np.exp(logits).sum())
            assert entry.logprob == pytest.approx(expected[token], abs=1e-5)
            assert [other.logprob for other in entry.top] == pytest.approx(np.sort(expected)[::-1][:4], abs=1e-5)
            text.append(token)
    assert len(text) == 13


def test_the_text_of_logprobs() -> None:
    runs = spoken_tokens([261, 0xC3, 0xA9, CALL, ord("!")], ask(logprobs=1))
    entries = [entry for frame in runs.tokens(1) for entry in frame.logprobs]
    assert [entry.token for entry in entries] == ["hell", "", "\ufffd", "", "!"]
    assert all(bytes(entry.bytes).decode() == entry.token for entry in entries)
    assert all([other.token for other in entry.top] == [entry.token] for entry in entries)


def test_no_logprobs_unless_asked() -> None:
    assert not spoken("a", ask()).tokens(1)[0].logprobs
    assert not spoken("a", ask(logprobs=0)).tokens(1)[0].logprobs[0].top


# ---------------------------------------------------------------- a full context


def test_without_shift_the_text_ends_at_the_context() -> None:
    runs = Runs(ToyExecutor(), num_ctx=64)
    runs.run(ask(num_predict=-1, shift=False))
    assert (runs.done(1).reason, runs.done(1).eval_tokens) == ("length", 61)


def test_a_full_context_slides() -> None:
    for keep, front in ((4, 5), (0, 1), (-1, 12), (1000, 60)):
        runs = Runs(ToyExecutor(), num_ctx=64)
        runs.run(ask(prompt="0123456789", num_predict=200, num_keep=keep))
        text, answer = TOKENIZER.encode("0123456789"), []
        for _ in range(200):
            if len(text) == 64:
                discard = (63 - front) // 2
                text = text[:front] + text[front + discard :]
            answer += alone(chaos, text, 1)
            text.append(answer[-1])
        assert runs.ids(1) == answer
        assert (runs.done(1).eval_tokens, runs.done(1).prompt_tokens) == (200, 11)
        assert runs.done(1).context == TOKENIZER.encode("0123456789")[1:] + answer


@pytest.mark.parametrize("num_ctx", [4, 5, 8])
def test_tiny_contexts(num_ctx: int) -> None:
    runs = Runs(ToyExecutor(), num_ctx=num_ctx)
    runs.run(ask(prompt="ab", num_predict=50, num_keep=-1))
    assert runs.done(1).eval_tokens == 50


def test_the_context_is_no_longer_than_the_model_has() -> None:
    assert Runs(ToyExecutor(n_blocks=8), num_ctx=100_000).engine.num_ctx == 512
    assert Runs(ToyExecutor(n_blocks=800), num_ctx=100_000).engine.num_ctx == 4096


# ---------------------------------------------------------------- seeds and penalties


def test_a_seed_gives_the_same_text() -> None:
    def answer(seed: int) -> list[int]:
        runs = Runs(ToyExecutor())
        runs.run(ask(sampling=Sampling(temperature=1.2, seed=seed), num_predict=50))
        return runs.ids(1)

    assert answer(42) == answer(42) != answer(43)
    assert answer(-1) != answer(-1)


def test_company_does_not_change_a_text() -> None:
    sampling = Sampling(temperature=1.2, seed=42)
    runs = Runs(ToyExecutor())
    runs.run(*(ask(number, f"text {number}", sampling=sampling, num_predict=50) for number in range(1, 12)))
    for number in range(1, 12):
        single = Runs(ToyExecutor())
        single.run(ask(number, f"text {number}", sampling=sampling, num_predict=50))
        assert runs.ids(number) == single.ids(number)


def test_penalties_see_the_prompt_and_the_answer() -> None:
    def formula(tokens: Sequence[int]) -> FloatArray:
        logits = np.zeros(N_VOCAB, np.float32)
        logits[[ord("a"), ord("b"), ord("c")]] = 3, 2, 1
        return logits

    def answer(**options: float) -> str:
        runs = Runs(ToyExecutor(formula))
        runs.run(ask(prompt="a", sampling=Sampling(temperature=0, **options), num_predict=4))  # type: ignore[arg-type]
        return runs.text(1)

    assert answer() == "aaaa"
    assert answer(presence_penalty=1.5, repeat_last_n=2) == "baab"
    assert answer(frequency_penalty=0.8, repeat_last_n=-1) == "abab"
    assert answer(repeat_penalty=4.0, repeat_last_n=-1) == "bcaa"


# ---------------------------------------------------------------- many requests


def test_a_hundred_requests() -> None:
    runs = Runs(ToyExecutor(n_blocks=300, max_outputs=32), num_ctx=256)
    chance = random.Random(0)
    requests = [ask(n, f"request {n} " * chance.randint(1, 9), num_predict=chance.randint(1, 40)) for n in range(100)]
    runs.run(*requests)
    for request in requests:
        assert runs.ids(request.id) == alone(chaos, TOKENIZER.encode(request.prompt), request.num_predict)
    stats = runs.engine.stats(5)
    assert (stats.running, stats.waiting, stats.blocks_free + stats.blocks_cached) == (0, 0, 300)
    assert stats.steps == len(runs.executor.rows)


def test_too_few_blocks_make_it_slower_but_not_different() -> None:
    runs = Runs(ToyExecutor(n_blocks=8), num_ctx=512)
    requests = [ask(number, f"{number}" * 50, num_predict=150, sampling=Sampling(seed=number)) for number in range(6)]
    runs.run(*requests)
    ample = Runs(ToyExecutor(n_blocks=200), num_ctx=512)
    ample.run(*requests)
    for number in range(6):
        assert runs.ids(number) == ample.ids(number)
        assert runs.done(number).prompt_tokens == 51
    assert len(runs.executor.rows) > len(ample.executor.rows)


def test_prefixes_are_reused_and_change_nothing() -> None:
    runs = Runs(ToyExecutor())
    system = "You are a helpful assistant. " * 10
    runs.run(ask(1, system + "Who?", num_predict=30))
    runs.run(ask(2, system + "Where?", num_predict=30))
    runs.run(ask(3, system + "Who?", num_predict=30))
    n_prompt = len(TOKENIZER.encode(system + "Who?"))
    n_common = len(TOKENIZER.encode(system + "W"))
    assert [runs.done(number).cached_tokens for number in (1, 2, 3)] == [0, n_common, n_prompt - 1]
    assert runs.done(3).prompt_tokens == n_prompt
    assert runs.ids(1) == runs.ids(3) == alone(chaos, TOKENIZER.encode(system + "Who?"), 30)
    assert runs.ids(2) == alone(chaos, TOKENIZER.encode(system + "Where?"), 30)
    assert runs.executor.copied == 2


def test_a_conversation_reads_only_what_is_new() -> None:
    runs = Runs(ToyExecutor())
    runs.run(ask(1, "a" * 100, num_predict=40))
    context = runs.done(1).context
    runs.run(ask(2, "b" * 10, tokens=context))
    # the last token of an answer was never evaluated
    assert runs.done(2).cached_tokens == 1 + len(context) - 1


def test_a_long_prompt_does_not_stop_others() -> None:
    runs = Runs(ToyExecutor(saying(6, b"a" * 1000), max_rows=64), num_ctx=2048)
    runs.add(ask(1, "short", num_predict=1000))
    runs.step(3)
    runs.add(ask(2, "x" * 1500))
    for _ in range(10):
        before = len(runs.ids(1))
        runs.step()
        assert len(runs.ids(1)) == before + 1


# ---------------------------------------------------------------- cancel and failures


@pytest.mark.parametrize("steps", [0, 1, 2, 5, 12])
def test_cancel(steps: int) -> None:
    runs = Runs(ToyExecutor(max_rows=64))
    runs.add(ask(1, "x" * 200, num_predict=-1))
    runs.add(ask(2, "y"))
    runs.step(steps)
    runs.cancel(1)
    done = runs.done(1)
    assert done.reason == "cancelled"
    assert len(runs.ids(1)) <= done.eval_tokens <= steps
    runs.cancel(1)
    runs.cancel(99)
    runs.run()
    assert runs.ids(2) == alone(chaos, TOKENIZER.encode("y"), 20)
    stats = runs.engine.stats(0)
    assert stats.blocks_free + stats.blocks_cached == stats.blocks_total


def test_random_cancels_lose_nothing() -> None:
    chance = random.Random(3)
    runs = Runs(ToyExecutor(n_blocks=16, max_rows=32, max_outputs=8), num_ctx=256)
    asked: dict[int, Generate] = {}
    for number in range(300):
        request = ask(number, f"{number % 7}" * chance.randint(1, 150), num_predict=chance.randint(1, 60))
        asked[number] = request
        runs.add(request)
        runs.step(chance.randint(0, 12))
        if chance.random() < 0.5:
            runs.cancel(chance.randint(0, number))
    runs.run()
    for number, request in asked.items():
        expected = alone(chaos, TOKENIZER.encode(request.prompt), request.num_predict)
        if runs.done(number).reason == "cancelled":
            assert runs.ids(number) == expected[: len(runs.ids(number))]
        else:
            assert runs.ids(number) == expected
    stats = runs.engine.stats(0)
    assert stats.blocks_free + stats.blocks_cached == 16


def test_values_that_are_no_numbers_end_only_their_own_request() -> None:
    def formula(tokens: Sequence[int]) -> FloatArray:
        return chaos(tokens) * (np.float32(np.nan) if ord("!") in tokens else np.float32(1))

    runs = Runs(ToyExecutor(formula))
    runs.run(ask(1, "bad!"), ask(2, "good", num_predict=3))
    assert runs.failed(1).kind == "internal"
    assert len(runs.ids(2)) == 3


def test_a_number_is_taken_once() -> None:
    runs = Runs(ToyExecutor())
    runs.add(ask(1))
    job = runs.engine.prepare(ask(1))
    assert not isinstance(job, Failed)
    (reply,) = runs.engine.submit(job)
    assert isinstance(reply, Failed)
    assert reply.kind == "bad_request"


def test_all_can_be_failed() -> None:
    runs = Runs(ToyExecutor(max_outputs=1))
    for number in range(3):
        runs.add(ask(number))
    runs.step(2)
    replies = runs.engine.fail("internal", "broken")
    assert [(reply.id, reply.kind) for reply in replies if isinstance(reply, Failed)] == [(n, "internal") for n in range(3)]
    assert not runs.engine.busy
    assert runs.engine.step() == []


def test_every_request_ends_with_one_last_frame() -> None:
    runs = Runs(ToyExecutor())
    runs.run(*(ask(number, num_predict=number) for number in range(1, 9)))
    for number in range(1, 9):
        *tokens, last = runs.frames[number]
        assert isinstance(last, Done)
        assert all(isinstance(frame, Token) for frame in tokens)


# ---------------------------------------------------------------- longer contexts


def test_a_context_grows_under_a_running_sequence() -> None:
    runs = Runs(GrowingExecutor(n_blocks=4), num_ctx=128)
    long = ask(2, "x" * 600, num_predict=80)
    assert isinstance(runs.engine.prepare(long), Failed)
    runs.add(ask(1, "hello", num_predict=300, shift=False))
    runs.step(50)
    grown = runs.engine.grow(Grow(9, 1000))
    assert isinstance(grown, Grown)
    assert (grown.num_ctx, grown.size) == (1000, runs.executor.size)
    assert runs.executor.size > 1234
    runs.run(long)
    tokens = [BOS, *b"x" * 600]
    assert runs.ids(1) == alone(chaos, [BOS, 261, ord("o")], 300)
    assert runs.ids(2) == alone(chaos, tokens, 80)


def test_a_context_grows_as_far_as_the_training_and_the_memory_reach() -> None:
    runs = Runs(GrowingExecutor(), num_ctx=128)
    grown = runs.engine.grow(Grow(9, 1 << 40))
    assert isinstance(grown, Grown)
    assert grown.num_ctx == runs.executor.n_ctx_train
    short = Runs(GrowingExecutor(n_blocks=4, most=6), num_ctx=128).engine.grow(Grow(9, 1000))
    assert isinstance(short, Grown)
    assert short.num_ctx == 6 * 64


def test_a_context_never_shrinks() -> None:
    runs = Runs(GrowingExecutor(), num_ctx=1024)
    grown = runs.engine.grow(Grow(9, 100))
    assert isinstance(grown, Grown)
    assert (grown.num_ctx, runs.executor.n_blocks) == (1024, 64)


def test_a_cache_that_was_made_once_and_for_all_does_not_grow() -> None:
    failed = Runs(ToyExecutor(), num_ctx=128).engine.grow(Grow(9, 1000))
    assert isinstance(failed, Failed)
    assert failed.kind == "unsupported"


def test_a_cache_that_has_no_room_does_not_grow_and_goes_on() -> None:
    runs = Runs(GrowingExecutor(), num_ctx=128)
    failed = runs.engine.grow(Grow(9, REFUSED))
    assert isinstance(failed, Failed)
    assert (failed.kind, failed.message) == ("unsupported", "the card is full")
    assert runs.engine.num_ctx == 128
    runs.run(ask(1, "hello", num_predict=5))
    assert len(runs.ids(1)) == 5


def test_a_model_that_is_on_no_card_gives_nothing_back() -> None:
    given = Runs(ToyExecutor()).engine.give_back(GiveBack(9, 1 << 30, 2))
    assert given == GivenBack(9, 0, shared=False)


class CardExecutor(ToyExecutor):
    """Stands for one on the first of two cards, the other of which has more room."""

    pinned = None
    gpu = 0

    def __init__(self) -> None:
        super().__init__()
        self.size_vram = 800

    def shares(self, main_gpu: int | None) -> bool:
        return main_gpu == 0

    def give_back(self, nbytes: int, models: int) -> int:
        return 800 // models


@pytest.mark.parametrize(("main_gpu", "left"), [(None, 800), (1, 800), (0, 400)])
def test_a_model_gives_back_for_those_that_come_to_its_card(main_gpu: int | None, left: int) -> None:
    given = Runs(CardExecutor()).engine.give_back(GiveBack(9, 1 << 30, 2, main_gpu))
    assert given == GivenBack(9, left, shared=left != 800)


def test_a_cut_prompt_is_told_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    runs = Runs(ToyExecutor(), num_ctx=128)
    runs.run(ask(1, "x" * 300, truncate=True))
    cut = runs.frames[1][0]
    assert isinstance(cut, Cut)
    assert (cut.n_prompt, cut.n_ctx, cut.n_prompt - cut.dropped) == (301, 128, runs.done(1).prompt_tokens)
    assert "a prompt of 301 tokens is cut" in caplog.text


def test_a_short_chat_is_not_stuck_behind_a_long_task() -> None:
    runs = Runs(ToyExecutor())
    runs.add(ask(1, "make a title", num_predict=400))
    runs.step(3)
    runs.add(ask(2, "hello", num_predict=5))
    runs.step(6)
    assert runs.done(2).eval_tokens == 5
    assert len(runs.ids(1)) < 15


# ---------------------------------------------------------------- lists of the likeliest


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(seed=3), Sampling(seed=3, top_k=0), Sampling(seed=3, top_k=64)])
def test_a_list_of_the_likeliest_tokens_gives_the_same_text(sampling: Sampling) -> None:
    whole, short = Runs(ToyExecutor()), Runs(executor := ShortlistingExecutor())
    for runs in (whole, short):
        runs.run(ask(sampling=sampling, num_predict=50))
    assert whole.ids(1) == short.ids(1)
    assert executor.lists == [0 < sampling.top_k < 64] * 50


@pytest.mark.parametrize("field", [{"logprobs": 2}, {"grammar": 'root ::= "a"+'}, {"sampling": Sampling(repeat_penalty=1.1)}])
def test_all_logits_come_where_one_request_needs_them(field: dict[str, object]) -> None:
    runs = Runs(executor := ShortlistingExecutor())
    runs.add(ask(1, num_predict=10))
    runs.step(3)
    runs.add(ask(2, num_predict=4, **field))
    runs.step(7)
    assert executor.lists == [True] * 3 + [False] * 4 + [True] * 3
