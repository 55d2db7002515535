"""ab: its statistics by known answers, its plan, where answers part, the report, and a whole run against a stand-in."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ollama_stand_in
import pytest
from ollama_stand_in import Server, token

from ollama_compat.cli import ab, ab_sides
from ollama_compat.cli.root import main
from ollama_compat.compare import asking, page, report, sameness, sides, turns, workload
from ollama_compat.compare.figures import cosine, ratio, spread
from ollama_compat.compare.processes import Peak, free_port, resident, tree
from ollama_compat.compare.sides import Side
from ollama_compat.compare.workload import ANSWER, SHORT, Cell, Pace
from ollama_compat.settings import Address
from ollama_compat.store import Store
from ollama_compat.store.names import ModelName

# ------------------------------------------------------------ statistics


def test_the_spread_of_some_samples() -> None:
    assert dataclasses.astuple(spread([3.0, 1.0, 2.0, 10.0])) == (2.5, 1.0, 10.0, 4)


def test_the_ratio_of_constants_is_sure() -> None:
    assert dataclasses.astuple(ratio([6.0] * 5, [3.0] * 5)) == (2.0, 2.0, 2.0)
    assert ratio([6.0] * 5, [3.0] * 5).clear


def test_where_less_is_better_the_ratio_turns_round() -> None:
    assert ratio([3.0], [6.0], smaller_is_better=True).value == 2.0


def test_the_interval_of_a_median_of_three() -> None:
    """Of 27 equally likely draws of (1, 2, 3) the median is 1 in 7 and 3 in 7: more than 2.5 % on each side."""
    found = ratio([1.0, 2.0, 3.0], [1.0])
    assert dataclasses.astuple(found) == (2.0, 1.0, 3.0)
    assert not ratio([1.0, 2.0, 3.0], [2.0]).clear


def test_the_same_distribution_on_both_sides_has_1_in_its_interval_nearly_always() -> None:
    draw = random.Random(1)
    inside = 0
    for seed in range(60):
        one, other = ([draw.lognormvariate(0, 0.1) for _ in range(7)] for _ in range(2))
        inside += not ratio(one, other, seed=seed).clear
    assert inside >= 52


def test_a_difference_of_half_is_seen() -> None:
    draw = random.Random(2)
    fast, slow = ([base * draw.lognormvariate(0, 0.05) for _ in range(7)] for base in (1.5, 1.0))
    assert ratio(fast, slow).low > 1.2


def test_cosine() -> None:
    assert cosine([1.0, 0.0], [1.0, 1.0]) == pytest.approx(0.5**0.5)
    assert cosine([2.0, 1.0], [4.0, 2.0]) == pytest.approx(1.0)


# ------------------------------------------------------------ the plan


def test_a_short_context_leaves_long_prompts_out_and_says_so() -> None:
    plan = workload.plan(2048, [Pace(1e5, 1e4, 0.1)] * 2, full=False)
    assert plan.cells == (Cell(SHORT, 1), Cell(SHORT, 4), Cell(SHORT, 16))
    assert [line.split(":")[0] for line in plan.left_out] == ["2048 prompt", "8192 prompt"]
    assert plan.rounds == workload.ROUNDS


def test_a_slow_machine_ends_within_its_time() -> None:
    paces = [Pace(100.0, 10.0, 5.0)] * 2
    plan = workload.plan(40960, paces, full=False)
    assert seconds_of(plan, paces) <= workload.BUDGET
    assert any("8192" in line and "--full" in line for line in plan.left_out)
    assert plan.rounds >= workload.FEWEST


def seconds_of(plan: workload.Plan, paces: list[Pace]) -> float:
    """What a run takes, with the texts that are compared at its end."""
    turns_ = plan.rounds * sum(pace.load + sum(pace.seconds(cell) for cell in plan.cells) for pace in paces)
    return turns_ + workload.TEXTS * sum(pace.seconds(Cell(SHORT, 1)) for pace in paces)


def test_a_very_slow_machine_measures_the_shortest_once() -> None:
    paces = [Pace(4.0, 1.0, 20.0)] * 2
    plan = workload.plan(40960, paces, full=False)
    assert plan.cells == (Cell(SHORT, 1),)
    assert plan.rounds == 1
    assert seconds_of(plan, paces) > workload.BUDGET  # it cannot be helped


def test_rounds_that_would_not_end_in_time_do_not_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes ten seconds: of five, three end within 35."""
    side = Side("a", "ollama", Address(), "m")
    took: list[float] = []

    def turn(record: turns.Record, plan: workload.Plan, prompts: workload.Prompts, end: float) -> None:
        took.append(10.0)
        record.load.append(1.0)
        record.cells[plan.cells[0].name]["decode"].append(1.0)

    monkeypatch.setattr(turns, "_turn", turn)
    monkeypatch.setattr(time, "monotonic", lambda: sum(took))
    plan = workload.Plan((Cell(SHORT, 1),), 5, (), 1024)
    found, ended = turns.measure([side], plan, workload.Prompts(1), lambda _: None, together=True, seconds=35.0)
    assert len(found[0].load) == 3
    assert (ended.rounds, ended.left_out) == (3, ("2 of 5 rounds: they took longer than the first short measurement let expect",))


def test_cells_that_take_too_long_are_left_out_for_the_fewest_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A round takes 1 + 4 + 15 seconds, and there are 30: three of them end without the slowest cell."""
    side = Side("a", "ollama", Address(), "m")
    cells = Cell(SHORT, 1), Cell(2048, 1), Cell(8192, 1)
    cost = dict(zip((cell.name for cell in cells), (1.0, 4.0, 15.0), strict=True))
    took: list[float] = []

    def turn(record: turns.Record, plan: workload.Plan, prompts: workload.Prompts, end: float) -> None:
        for cell in plan.cells:
            record.cells[cell.name]["decode"].append(1.0)
            record.seconds[cell.name] = cost[cell.name]
            took.append(cost[cell.name])

    monkeypatch.setattr(turns, "_turn", turn)
    monkeypatch.setattr(time, "monotonic", lambda: sum(took))
    plan = workload.Plan(cells, 4, (), 9216)
    _, ended = turns.measure([side], plan, workload.Prompts(1), lambda _: None, together=True, seconds=30.0)
    assert (ended.rounds, ended.cells, sum(took)) == (3, cells[:2], 30.0)
    assert [line.split(",")[0] for line in ended.left_out] == [
        "8192 prompt: not measured again after round 1",
        "1 of 4 rounds: they took longer than the first short measurement let expect",
    ]


def test_cells_for_which_no_time_is_left_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """One side takes all of it in the first round; the other one measures the shortest."""
    sides_ = [Side(name, "ollama", Address(), "m") for name in ("a", "b")]
    took = [0.0]

    def cell(record: turns.Record, cell: Cell, texts: list[str], asked: Any) -> None:
        record.cells[cell.name]["decode"].append(1.0)
        took.append(20.0)

    for name in ("_cell", "_load", "unload"):
        monkeypatch.setattr(turns, name, cell if name == "_cell" else lambda *_: 1.0)
    monkeypatch.setattr(asking, "chat", lambda *_: None)
    monkeypatch.setattr(time, "monotonic", lambda: sum(took))
    plan = workload.Plan((Cell(SHORT, 1), Cell(2048, 1)), 3, (), 3072)
    records, ended = turns.measure(sides_, plan, workload.Prompts(1), lambda _: None, together=False, seconds=35.0)
    assert [len(record.cells) for record in records] == [2, 1]
    assert (ended.cells, ended.rounds) == (plan.cells[:1], 1)
    assert any(line == "2048 prompt: no time was left for it (--full measures it)" for line in ended.left_out)


def test_a_server_that_fails_later_leaves_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    side = Side("a", "ollama", Address(), "m")

    def turn(record: turns.Record, plan: workload.Plan, prompts: workload.Prompts, end: float) -> None:
        if len(record.load) == 2:
            raise asking.AskError("a: gone")
        record.load.append(1.0)
        record.cells[plan.cells[0].name]["decode"].append(1.0)

    monkeypatch.setattr(turns, "_turn", turn)
    plan = workload.Plan((Cell(SHORT, 1),), 5, (), 1024)
    found, ended = turns.measure([side], plan, workload.Prompts(1), lambda _: None, together=True)
    assert (found[0].load, ended.rounds, ended.left_out) == ([1.0, 1.0], 2, ("3 of 5 rounds: a: gone",))
    monkeypatch.setattr(turns, "_turn", _refusing)
    with pytest.raises(asking.AskError):
        turns.measure([side], plan, workload.Prompts(1), lambda _: None, together=True)


def test_both_sides_of_a_round_get_the_same_prompts() -> None:
    prompts = workload.Prompts(5)
    one, same, other = (prompts.of_round(number).text(SHORT) for number in (0, 0, 1))
    assert one == same != other


def test_rounds_that_somebody_names() -> None:
    assert workload.plan(40960, [Pace(1e5, 1e4, 0.1)] * 2, full=True, rounds=3).rounds == 3
    named = workload.plan(40960, [Pace(1e3, 100.0, 1.0)] * 2, full=False, rounds=40)
    assert named.rounds == 40
    assert named.left_out


def test_full_leaves_nothing_out_that_the_context_holds() -> None:
    plan = workload.plan(40960, [Pace(100.0, 10.0, 5.0)] * 2, full=True)
    assert len(plan.cells) == len(workload.LENGTHS) + len(workload.USERS) - 1
    assert not plan.left_out
    assert plan.num_ctx >= 8192 + ANSWER


def test_prompts_learn_a_tokenizer_and_share_no_beginning() -> None:
    prompts = workload.Prompts()
    prompts.learn(words=100, tokens=130)
    assert len(prompts.text(2048).split()) == int(2048 / 1.3)  # with those of the task
    assert len({" ".join(prompts.text(64).split()[:4]) for _ in range(50)}) == 50


# ------------------------------------------------------------ sameness


def test_equal_answers_part_nowhere() -> None:
    found = parted("ab", [token("a"), token("b")], "ab", [token("a"), token("b")])
    assert found.equal
    assert found.same == found.tokens == 2


def test_a_near_tie_is_told_by_both_sides() -> None:
    mine = [token("a"), token("b", ("b", -0.60), ("c", -0.80))]
    theirs = [token("a"), token("c", ("c", -0.65), ("b", -0.70))]
    found = parted("ab", mine, "ac", theirs)
    assert (found.same, found.near_tie) == (1, True)
    assert found.gaps == pytest.approx((0.2, 0.05))


def test_a_clear_difference_is_no_near_tie() -> None:
    mine = [token("b", ("b", 0), ("c", -3.0))]
    theirs = [token("c", ("c", -0.1), ("b", -0.2))]
    found = parted("b", mine, "c", theirs)
    assert not found.near_tie
    assert found.gaps == pytest.approx((3.0, 0.1))


def test_letters_in_pieces_that_one_side_reports_together() -> None:
    mine = [token("�"), token("�"), token("b", ("b", -0.6), ("c", -0.7))]
    theirs = [token("��"), token("c", ("c", -0.5), ("b", -0.7))]
    found = parted("��b", mine, "��c", theirs)
    assert (found.same, found.near_tie) == (1, True)
    assert found.gaps == pytest.approx((0.1, 0.2))


def test_an_answer_that_ends_earlier_has_no_near_tie() -> None:
    found = parted("a", [token("a")], "ab", [token("a"), token("b")])
    assert (found.same, found.tokens, found.told) == (1, 1, False)


def test_answers_without_tokens_are_compared_by_words() -> None:
    found = parted("one two three", [], "one two four", [token("one")])
    assert (found.same, found.tokens, found.told) == (2, 3, False)


def parted(mine: str, my_tokens: list[dict[str, Any]], theirs: str, their_tokens: list[dict[str, Any]]) -> sameness.Text:
    return sameness.parted(sameness.Greedy(mine, my_tokens), sameness.Greedy(theirs, their_tokens))


def test_white_space_and_tags_that_one_side_does_not_report() -> None:
    mine = [token("<think>"), token("a"), token("\n"), token("</think>"), token("b")]
    found = parted("a\nb", mine, "ab", [token("<think>"), token("a"), token("b")])
    assert found.same == 2


# ------------------------------------------------------------ the report


def record(name: str, speed: float, *, dialect: str = "ollama") -> turns.Record:
    made = turns.Record(Side(name, dialect, Address(), "m"))
    made.load = [1.0, 1.1, 0.9]
    made.cells["short prompt"]["decode"] = [speed, speed * 1.01, speed * 0.99]
    made.cells["short prompt"]["first"] = [1 / speed] * 3
    made.ram = 100_000_000
    return made


SAME = sameness.Sameness([True, True], [], True, [], [])


def make_report(*comparisons: report.Comparison) -> report.Report:
    plan = workload.Plan((Cell(SHORT, 1),), 3, ("8192 prompt: no room",), 1024)
    names = ["Moellama", *(each.name for each in comparisons)]
    return report.Report("m", "a CPU", dict.fromkeys(names, "1"), dict.fromkeys(names, ""), plan, list(comparisons), ["a note"])


def test_better_and_worse_are_said_as_plainly() -> None:
    better = report.compare(record("Moellama", 20.0), record("Ollama", 10.0), SAME)
    verdicts = {(line.metric, line.verdict) for line in better.lines if line.cell}
    assert verdicts == {("decode", "better"), ("time to first token", "better")}
    assert report.losses(better) == []
    worse = report.compare(record("Moellama", 10.0), record("Ollama", 20.0), SAME)
    assert report.losses(worse) == [
        "time to first token (short prompt): 0.50x of Ollama",
        "decode (short prompt): 0.50x of Ollama",
    ]


def test_one_round_does_not_say_how_sure_a_ratio_is() -> None:
    mine, theirs = record("Moellama", 10.0), record("Ollama", 20.0)
    mine.cells["short prompt"]["decode"] = theirs.load = [1.0]
    found = report.compare(mine, theirs, SAME)
    verdicts = {line.metric: line.verdict for line in found.lines if line.once and not line.peak}
    assert verdicts == dict.fromkeys(("load", "decode"), "measured once")
    assert report.losses(found) == ["time to first token (short prompt): 0.50x of Ollama"]
    assert ">0.05x</strong></td><td class=\"soft\"></td>" in page.render(make_report(found))


def test_differences_are_losses_unless_rounding_explains_them() -> None:
    tie = sameness.Text(5, 2, "a", "b", (0.1, 0.1))
    clear = sameness.Text(5, 2, "a", "b", (0.1, 2.0))
    untold = sameness.Text(5, 2, "a", "b")
    assert "no log probabilities tell whether" in report.sentences(sameness.Sameness([], [untold], None, [], []))[1]
    lost_of = {tie: [], clear: ["greedy texts part where rounding does not explain it"]}
    for text, lost in (lost_of | {untold: ["greedy texts part where no log probabilities tell why"]}).items():
        found = report.compare(record("a", 1.0), record("b", 1.0), sameness.Sameness([True], [text], None, [], []))
        assert report.losses(found) == lost
    found = report.compare(record("a", 1.0), record("b", 1.0), sameness.Sameness([False], [], False, [0.5], []))
    assert report.losses(found) == ["prompts are rendered differently", "tool calls differ", "embeddings differ"]


def test_a_server_of_the_other_dialect_has_no_load() -> None:
    found = report.compare(record("a", 1.0), record("b", 1.0, dialect="openai"), SAME)
    assert "load" not in {line.metric for line in found.lines}


def test_the_page_needs_nothing_else_and_escapes_names() -> None:
    comparison = report.compare(record("Moellama", 20.0), record("<script>Ollama", 10.0), SAME)
    text = page.render(make_report(comparison))
    assert "<script" not in text
    assert "&lt;script&gt;Ollama" in text
    assert not [word for word in ("http://", "https://", "src=", "@import", "url(") if word in text]
    assert "2.00x" in text
    assert "8192 prompt: no room" in text


def test_where_no_speed_was_measured_there_is_no_table_of_speeds() -> None:
    comparison = dataclasses.replace(report.compare(record("Moellama", 20.0), record("Ollama", 10.0), SAME), lines=[])
    found = make_report(comparison)
    found = dataclasses.replace(found, plan=dataclasses.replace(found.plan, rounds=0))
    html, text = page.render(found), ab._text(found)
    assert "<table>" not in html
    assert "0 alternating" not in html
    assert "WHAT" not in text
    assert "0 rounds" not in text
    assert "prompts rendered alike" in text


def test_answers_end_before_a_short_context_does(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def answer(_side: Side, _body: object, told: dict[str, int]) -> sameness.Greedy:
        asked.append(told["num_predict"])
        return sameness.Greedy("", [])

    monkeypatch.setattr(sameness, "_answer", answer)
    for context in (128, 2048):
        sameness.ask(Side("s", "openai", Address(), "m"), ["completion"], context)
    assert set(asked[:3]) == {32}
    assert set(asked[3:]) == {sameness.TOKENS}


@pytest.mark.parametrize("layout", page.LAYOUTS, ids=lambda layout: layout.name)
def test_a_plot_places_its_points_in_order(layout: page.Layout) -> None:
    plot = page.plot(report.compare(record("Moellama", 20.0), record("Ollama", 10.0), SAME), layout)
    for row in plot["rows"]:
        assert layout.label <= row["low"] <= row["x"] <= row["high"] <= plot["width"] - layout.number
        assert (row["label_y"] < row["y"] - 8) == (layout.name == "narrow")
    assert "1x" in [mark["text"] for mark in plot["marks"]]
    assert len(plot["marks"]) <= page.MOST_MARKS
    faster = next(row for row in plot["rows"] if row["label"].startswith("decode"))
    assert faster["x"] > plot["one"]


def test_the_document_is_json() -> None:
    comparison = report.compare(record("Moellama", 20.0), record("Ollama", 10.0), SAME)
    data = json.loads(json.dumps(report.document(make_report(comparison))))
    assert data["comparisons"][0]["lines"][1]["verdict"] == "better"
    assert data["plan"]["left_out"] == ["8192 prompt: no room"]


@pytest.mark.parametrize(("value", "text"), [(0.01234, "0.0123"), (1.5, "1.50"), (123.4, "123"), (98765.0, "98765"), (0.0, "0")])
def test_figures(value: float, text: str) -> None:
    assert page.figure(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.142, "0.14"), (0.999, "1.00"), (1.234, "1.23"), (17.81, "17.8"), (168.08, "168")])
def test_times(value: float, text: str) -> None:
    assert page.times(value) == text


# ------------------------------------------------------------ servers


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", Address("http", "127.0.0.1", 8080)),
        ("http://host/base/", Address("http", "host", 80, "base")),
        ("https://host", Address("https", "host", 443)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert sides.address(text) == address


@pytest.mark.parametrize("text", ["ftp://host", "http://", "http://host:notaport"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(sides.SideError, match="is no address"):
        sides.address(text)


def test_a_server_that_ends_at_once_is_named_with_its_last_words(tmp_path: Path) -> None:
    side = Side("Ollama", "ollama", Address(port=free_port()), "m")
    with (
        pytest.raises(sides.SideError, match="Ollama ended with status 3: no luck"),
        sides.started(["/bin/sh", "-c", "echo no luck >&2; exit 3"], side, tmp_path, {}),
    ):
        pass


def test_stores_share_the_files(tmp_path: Path, demo_model: Path) -> None:
    name = ModelName.parse("linked")
    sides.link_file(demo_model, name, tmp_path / "one")
    stored = Store(tmp_path / "one").get(name)
    assert stored.model_path is not None
    assert stored.model_path.samefile(demo_model) or stored.model_path.is_symlink()
    assert stored.config.model_family == "qwen3moe"
    sides.link_stored(Store(tmp_path / "one"), name, tmp_path / "two")
    again = Store(tmp_path / "two").get(name)
    assert again.digest == stored.digest
    assert again.model_path is not None
    assert again.model_path.samefile(stored.model_path)


def test_memory_of_a_tree_of_processes() -> None:
    assert os.getpid() in tree(os.getppid())
    peak = Peak(os.getpid())
    with peak.watching():
        pass
    assert peak.ram >= resident(os.getpid()) // 2 > 0
    assert Peak(None).ram == 0


@contextlib.contextmanager
def serving(most: int = 1000, **told: Any) -> Iterator[Address]:
    """`told`: attributes of the Server."""
    server = Server(("127.0.0.1", 0))
    server.most = most
    for name, value in told.items():
        setattr(server, name, value)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield Address(port=server.server_port)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def stand_in() -> Iterator[Address]:
    with serving() as address:
        yield address


def test_an_answer_on_both_clocks(stand_in: Address) -> None:
    answer = asking.chat(Side("s", "ollama", stand_in, "m"), "one two three four", {})
    assert answer.text == "a b"
    assert answer.prefill == pytest.approx(10_000)
    assert answer.decode == pytest.approx(1000)
    assert 0 < answer.first <= answer.last <= answer.whole
    assert answer.decode_here == pytest.approx(7 / (answer.last - answer.first))


def test_an_answer_of_the_other_dialect(stand_in: Address) -> None:
    answer = asking.chat(Side("s", "openai", stand_in, "m"), "one two", {"num_predict": 8})
    assert (answer.text, answer.tokens, answer.prompt_tokens, answer.prompt_length) == ("a b", 8, 64, 80)
    assert answer.prefill == pytest.approx(10_000)
    assert answer.decode == 0 < answer.decode_here  # it told no time


def test_a_refusal_is_told_in_the_servers_words() -> None:
    with serving(most=0) as busy:
        for dialect in ("ollama", "openai"):
            with pytest.raises(asking.AskError, match=r"s: status 503 from .*: server busy, please try again"):
                asking.chat(Side("s", dialect, busy, "m"), "x", {})


def test_a_server_that_does_not_tell_how_it_renders_is_not_called_different(stand_in: Address) -> None:
    side = Side("s", "ollama", stand_in, "m")
    mine = sameness.ask(side, ["completion"], 1024)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sameness, "_rendered", _refusing)
        found = sameness.compare(mine, sameness.ask(side, ["completion"], 1024), same_api=True)
    assert (found.prompts, len(found.texts)) == ([], 3)
    assert found.notes == ["prompts as rendered could not be compared: no"]


@pytest.mark.parametrize("dialect", ["ollama", "openai"])
def test_a_server_that_refuses_log_probabilities_is_asked_without_them(dialect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def call(side: Side, path: str, body: Any = None) -> dict[str, Any]:
        if "logprobs" in body:
            raise asking.AskError("no such field")
        return {"message": {"content": "a"}, "choices": [{"message": {"content": "a"}}]}

    monkeypatch.setattr(asking, "call", call)
    found = sameness.ask(Side("s", dialect, Address(), "m"), ["completion"], 1024)
    assert [(text.text, text.tokens) for text in found.texts] == 3 * [("a", [])]


def _refusing(*_: Any) -> str:
    raise asking.AskError("no")


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(asking.AskError, match="refused"):
        asking.chat(Side("s", "ollama", Address(port=free_port()), "m"), "x", {})


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch, stand_in: Address, tmp_path: Path) -> Address:
    """The stand-in takes the place of our server too, and measuring takes no time to speak of."""
    side = Side(ab_sides.OURS, "ollama", stand_in, "demo-moe")
    monkeypatch.setattr(ab_sides, "ours", lambda file, folder: contextlib.nullcontext(side))
    monkeypatch.setattr(workload, "ROUNDS", 3)
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "models"))
    return stand_in


def test_a_server_against_itself(ours: Address, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command as a whole; what the server counts is the same, so the ratio is 1 and its interval holds it."""
    html = tmp_path / "r.html"
    assert main(["ab", "demo-moe", "--against", ours.url, "--json", "--html", str(html)]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    lines = found["comparisons"][0]["lines"]
    assert {line["metric"] for line in lines} >= {"load", "prefill", "decode", "time to first token", "all users together"}
    for line in lines:
        if line["metric"] in ("prefill", "decode"):
            assert line["ratio"]["low"] <= 1 <= line["ratio"]["high"]
            assert line["ratio"]["value"] == pytest.approx(1, rel=0.01)
    assert found["comparisons"][0]["sentences"][:2] == ["prompts rendered alike: 3 of 3", "greedy texts alike: 3 of 3"]
    assert "round 1 of 3: Moellama" in err
    assert html.read_text().startswith("<!doctype html>")


def test_a_request_that_fails_costs_its_cell_alone(ours: Address, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(most=3) as busy:
        assert main(["ab", "demo-moe", "--against", busy.url, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    cells = {line["cell"] for line in found["comparisons"][0]["lines"]}
    assert cells == {"", "short prompt"}
    assert [note for note in found["notes"] if "short prompt, 4 users: not compared" in note and "server busy" in note]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--against", "localhost:1", "--ollama", "/bin/true"], "--against and --ollama name one other side each"),
        (["--rounds", "-1"], "--rounds takes a number of 0 or more, not -1"),
        (["--html", "/nowhere/at/all.html"], "/nowhere/at/all.html cannot be written: no such file or directory"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_measured(
    words: list[str], said: str, ours: Address, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ab", "demo-moe", *words]) == 1
    out, err = capsys.readouterr()
    assert said in err
    assert "measurement" not in err + out


@pytest.mark.parametrize("flag", ["--against", "--against-openai"])
def test_a_server_that_is_not_there_is_named_before_anything_starts(
    flag: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr(ab_sides, "ours", _refusing)
    port = free_port()
    assert main(["ab", "demo-moe", flag, f"127.0.0.1:{port}", "--html", str(tmp_path / "r.html")]) == 1
    assert f" at http://127.0.0.1:{port}: connection refused" in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()


def test_a_file_needs_the_name_of_a_running_servers_model(
    ours: Address, demo_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ab", str(demo_model), "--against", ours.url]) == 1
    assert "--against-model has to say which of its models" in capsys.readouterr().err


def test_a_running_server_is_asked_for_the_model_that_is_named_and_shown_a_key(
    ours: Address, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OLLAMA_API_KEY", "sesame")
    keys: set[str | None] = set()
    with serving(keys=keys, modelfile=f"FROM /somewhere/sha256-{64 * '0'}\n") as other:
        words = ["ab", "demo-moe", "--against", other.url, "--against-model", "b", "--rounds", "1"]
        assert main(words) == 0
    assert keys == {"Bearer sesame"}
    assert "note: Ollama has ANOTHER FILE under the name b:latest" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("models", "words", "said"),
    [
        (["a", "b"], [], "has no model demo-moe:latest; name one with --against-model: a, b"),
        (["only"], ["--against-model", "c"], "has no model c; name one with --against-model: only"),
        ([], [], "name one with --against-model: none"),
    ],
)
def test_a_server_of_openais_api_with_other_models(
    models: list[str], words: list[str], said: str, ours: Address, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(models=models) as other:
        assert main(["ab", "demo-moe", "--against-openai", other.url, *words]) == 1
    assert said in capsys.readouterr().err


def test_of_several_models_the_one_of_the_same_name_is_asked(ours: Address, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(models=["a", "demo-moe"]) as other:
        assert main(["ab", "demo-moe", "--against-openai", other.url, "--rounds", "1"]) == 0
    out = capsys.readouterr().out
    assert "note: the other server has demo-moe: whether that is the same file is its word" in out
    assert "note: the other server tells no times of decode: both sides' are by the clock here" in out


def test_reasoning_has_several_names() -> None:
    for name in asking.REASONING:
        assert asking.whole_text({name: "so ", "content": "a"}) == "so a"
    assert asking.whole_text(None) == ""


def test_against_a_server_of_openais_api(ours: Address, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ab", "demo-moe", "--against-openai", f"{ours.url}/v1"]) == 0
    out, _ = capsys.readouterr()
    assert "Against the other server" in out
    assert "compared only between servers of Ollama's API" in out
    assert "text 1 parts after 1 of 2 tokens: the two tokens lie 0.10 and 0.10 nats apart there; a near-tie" in out
    assert "2048 prompt: the model's context of 2048 tokens has no room for it and an answer" in out


def test_without_another_side_the_way_out_is_named(
    monkeypatch: pytest.MonkeyPatch, ours: Address, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["ab", "demo-moe"]) == 1
    assert "there is no `ollama` on the PATH; name one with --ollama" in capsys.readouterr().err


def test_with_a_card_ollama_is_measured_as_experts_tune_it_too(
    ours: Address, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A program in the place of Ollama's is started twice, each time with its own store; a card is what `nvidia-smi` says."""
    folder, notes = tmp_path / "bin", tmp_path / "notes"
    folder.mkdir()
    notes.mkdir()
    for name, line in (("ollama", f"exec {sys.executable} {ollama_stand_in.__file__} $@"), ("nvidia-smi", "exit 1")):
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("STAND_IN_NOTES", str(notes))
    assert main(["ab", "demo-moe", "--rounds", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in found["comparisons"]] == ["Ollama", "Ollama, tuned"]
    assert found["settings"]["Ollama, tuned"] == "LLAMA_ARG_CPU_MOE=1, num_gpu=99"
    plain, tuned = sorted((json.loads(file.read_text()) for file in notes.glob("*.json")), key=lambda note: len(note["environ"]))
    assert plain["environ"].keys() == {"OLLAMA_MODELS"}
    assert tuned["environ"]["LLAMA_ARG_CPU_MOE"] == "1"
    assert tuned["environ"]["OLLAMA_MODELS"] != plain["environ"]["OLLAMA_MODELS"]
    assert all(options["num_gpu"] == 99 for options in tuned["asked"] if options)
    assert all("num_gpu" not in options for options in plain["asked"] if options)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (signal.SIGTERM, 128 + signal.SIGTERM),
        (signal.SIGHUP, 128 + signal.SIGHUP),
        (signal.SIGINT, -signal.SIGINT),
        (signal.SIGKILL, -signal.SIGKILL),
    ],
)
def test_whoever_ends_it_ends_the_servers_too(sent: signal.Signals, status: int, tmp_path: Path) -> None:
    """The far side never listens, so they wait for it."""
    other = tmp_path / "other"
    other.write_text("#!/bin/sh\nexec sleep 60\n")
    other.chmod(0o755)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environ = os.environ | {"OLLAMA_MODELS": str(tmp_path / "models"), "HOME": str(tmp_path), "TMPDIR": str(temporary)}
    command = [sys.executable, "-m", "ollama_compat", "ab", "demo-moe", "--ollama", str(other)]
    with _heard():
        started = subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL)
    with started as process:
        try:
            mine = _until(lambda: tree(process.pid) - {process.pid})
            process.send_signal(sent)
            assert process.wait(30) == status
        finally:
            process.kill()
    assert mine
    assert _until(lambda: not any(resident(pid) for pid in mine))
    assert sent == signal.SIGKILL or not list(temporary.iterdir())


@contextlib.contextmanager
def _heard() -> Iterator[None]:
    """Programs started here hear signals that these tests may have been told to ignore, as by nohup."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGHUP, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """What it says at last."""
    deadline = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found
