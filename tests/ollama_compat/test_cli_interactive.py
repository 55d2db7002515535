"""The interactive session on a real terminal, against a scripted server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_ollama import NDJSON, SHOW, FakeOllama, Reply, lines, stream
from terminal import Terminal

HINT = "Send a message (/? for help)"
MORE_HINT = "Press Enter to send"
DOWN, UP, LEFT, HOME, END, CLEAR = "\x1b[B", "\x1b[A", "\x1b[D", "\x01", "\x05", "\x15"
CTRL_C, CTRL_D, CTRL_G, CTRL_J, ENTER = "\x03", "\x04", "\x07", "\n", "\r"

Start = Callable[..., Terminal]


@pytest.fixture
def server() -> Iterator[FakeOllama]:
    with FakeOllama() as running:
        yield running


@pytest.fixture
def start(server: FakeOllama, tmp_path: Path) -> Iterator[Start]:
    """Starts sessions: `start("--flag", VARIABLE="x")`."""
    begun: list[Terminal] = []

    def begin(*flags: str, columns: int = 80, **environ: str) -> Terminal:
        environ = {"OLLAMA_HOST": server.host, "HOME": str(tmp_path)} | environ
        begun.append(Terminal(["run", "m", *flags], columns=columns, **environ))
        begun[-1].expect(HINT)
        return begun[-1]

    yield begin
    for terminal in begun:
        terminal.close()


def chats(server: FakeOllama) -> list[Any]:
    return [body for _, path, body in server.requests if path == "/api/chat"]


def say(terminal: Terminal, line: str) -> str:
    """Type a line; what is shown before the next prompt."""
    terminal.send(line + ENTER)
    return terminal.expect(HINT).split("\n", 1)[-1].removesuffix(">>> ")


def ask(terminal: Terminal, keys: str) -> None:
    """Press keys and Enter, and wait for the answer."""
    terminal.send(keys + ENTER)
    terminal.expect("\nHi\n")
    terminal.expect(HINT)


def test_messages_go_back_and_forth(server: FakeOllama, start: Start) -> None:
    terminal = start()
    assert say(terminal, "hello") == "Hi\n\n"
    say(terminal, "again")
    terminal.send(CTRL_D)
    assert terminal.end() == 0
    messages = chats(server)[1]["messages"]
    assert [(m["role"], m["content"]) for m in messages] == [("user", "hello"), ("assistant", "Hi"), ("user", "again")]


def test_the_model_is_loaded_first_and_shows_its_messages(server: FakeOllama, start: Start) -> None:
    own = [{"role": "user", "content": "who?"}, {"role": "assistant", "content": "me"}]
    server.script({"POST /api/show": Reply({**SHOW, "messages": own, "capabilities": ["completion", "thinking"]})})
    terminal = start("--keepalive", "1h")
    assert ">>> who?\nme\n\n>>> " in terminal.text
    loads = [body for _, path, body in server.requests if path == "/api/generate"]
    assert loads == [{"model": "m", "prompt": "", "keep_alive": "1h0m0s", "think": True}]
    assert not chats(server)


def test_leaving(start: Start) -> None:
    for words in ("/bye", "/exit", "/bye now"):
        terminal = start()
        terminal.send(words + ENTER)
        assert terminal.end() == 0
        assert terminal.raw.endswith("\x1b[?2004l")


def test_ctrl_c_at_the_prompt_explains_how_to_leave(server: FakeOllama, start: Start) -> None:
    terminal = start()
    terminal.send("half a line" + CTRL_C)
    assert "Use Ctrl + d or /bye to exit." in terminal.expect(HINT)
    terminal.send('"""first' + ENTER)
    terminal.expect(MORE_HINT)
    terminal.send(CTRL_C)
    terminal.expect(HINT)
    say(terminal, "whole")
    assert chats(server)[0]["messages"] == [{"role": "user", "content": "whole"}]


@pytest.mark.parametrize("by_key", [True, False])
def test_ctrl_c_stops_the_answer(server: FakeOllama, start: Start, by_key: bool) -> None:
    gone = threading.Event()
    server.endless["POST /api/chat"] = (lines({"message": {"role": "assistant", "content": "word "}}), gone)
    terminal = start()
    terminal.send("talk" + ENTER)
    terminal.expect("word word word")
    if by_key:
        terminal.send(CTRL_C)
    else:
        terminal.interrupt()
    terminal.expect(HINT)
    assert gone.wait(10), "the server still streams"
    server.endless.clear()
    say(terminal, "more")
    assert [m["content"] for m in chats(server)[-1]["messages"]] == ["talk", "more"]


def test_thinking_is_shown_apart(server: FakeOllama, start: Start) -> None:
    piece = {"role": "assistant", "content": ""}
    answer = [
        {"message": {**piece, "thinking": "hm"}},
        {"message": {**piece, "content": "yes"}},
        {"message": piece, "done": True},
    ]
    server.script({"POST /api/chat": stream(*answer)})
    terminal = start("--think")
    assert say(terminal, "well?") == "Thinking...\nhm\n...done thinking.\n\nyes\n\n"
    say(terminal, "and?")
    assert chats(server)[1]["messages"][1] == {"role": "assistant", "content": "yes", "thinking": "hm"}
    assert chats(server)[0]["think"] is True


def test_words_wrap_at_the_edge(server: FakeOllama, start: Start) -> None:
    text = "one two three four five six seven eight nine"
    server.script({"POST /api/chat": stream(*({"message": {"content": char}} for char in text), {"done": True})})
    terminal = start(columns=40)
    terminal.send("count" + ENTER)
    terminal.expect("nine")
    assert "\x1b[1D\x1b[K\r\neight" in terminal.raw
    wide = start("--nowordwrap", columns=40)
    wide.send("count" + ENTER)
    wide.expect(text)


def test_statistics(server: FakeOllama, start: Start) -> None:
    last = {"done": True, "total_duration": 1_500_000_000, "eval_count": 10, "eval_duration": 500_000_000}
    server.script({"POST /api/chat": stream({"message": {"role": "assistant", "content": "Hi"}}, last)})
    terminal = start()
    assert say(terminal, "/set verbose") == "Set 'verbose' mode.\n"
    told = "total duration:       1.5s\neval count:           10 token(s)\n"
    told += "eval duration:        500ms\neval rate:            20.00 tokens/s\n"
    assert say(terminal, "x") == f"Hi\n\n{told}"
    say(terminal, "/set quiet")
    assert say(terminal, "x") == "Hi\n\n"


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("/set", "Available Commands:\n  /set parameter ...     Set a parameter\n"),
        ("/?", "Available Commands:\n  /set            Set session variables\n"),
        ("/help", "Available Commands:\n  /set            Set session variables\n"),
        ("/? shortcuts", "Available keyboard shortcuts:\n"),
        ("/show", "Available Commands:\n  /show info "),
        ("/help show", "Available Commands:\n  /show info "),
        ("/set parameter x", "Available Parameters:\n"),
        ("/set bogus", "Unknown command '/set bogus'. Type /? for help\n"),
        ("/bogus", "Unknown command '/bogus'. Type /? for help\n"),
        ("/set parameter nope 1", "Couldn't set parameter: \"unknown parameter 'nope'\"\n"),
        ("/set parameter top_k x", 'Couldn\'t set parameter: "invalid int value [x]"\n'),
        ("/set format", "Invalid or missing format. For 'json' mode use '/set format json'\n"),
        ("/load", "Usage:\n  /load <modelname>\n"),
        ("/save a b", "Usage:\n  /save <modelname>\n"),
        ("/clear", "Cleared session context\n"),
        ("/list", "NAME    ID    SIZE    MODIFIED \n"),
        ("/set think", "warning: model \"m\" does not support thinking output\nSet 'think' mode.\n"),
        ("/set wordwrap", "Set 'wordwrap' mode.\n"),
        ("/set history", ""),
        ("", ""),
    ],
)
def test_commands_answer(start: Start, line: str, shown: str) -> None:
    terminal = start()
    assert say(terminal, line).startswith(shown)


def test_settings_reach_the_request(server: FakeOllama, start: Start) -> None:
    terminal = start()
    for line in ("/set parameter temperature 0.5", "/set parameter stop a b", "/set format json", "/set think low"):
        say(terminal, line)
    say(terminal, "/set system be brief")
    say(terminal, "/set system be   briefer")
    say(terminal, "x")
    body = chats(server)[0]
    assert body["options"] == {"temperature": 0.5, "stop": ["a", "b"]}
    assert (body["format"], body["think"]) == ("json", "low")
    assert body["messages"] == [{"role": "system", "content": "be briefer"}, {"role": "user", "content": "x"}]
    for line in ("/set noformat", "/set nothink", "/clear"):
        say(terminal, line)
    say(terminal, "y")
    body = chats(server)[1]
    assert "format" not in body
    assert body["think"] is False
    assert [m["content"] for m in body["messages"]] == ["be briefer", "y"]


def test_load_and_save(server: FakeOllama, start: Start) -> None:
    terminal = start()
    say(terminal, "/set parameter seed 3")
    say(terminal, "hello")
    assert say(terminal, "/save copy") == "Created new model 'copy'\n"
    saved = next(body for _, path, body in server.requests if path == "/api/create")
    assert saved["from"] == "m"
    assert saved["parameters"] == {"seed": 3}
    assert [m["content"] for m in saved["messages"]] == ["hello", "Hi"]
    assert say(terminal, "/load copy") == "Loading model 'copy'\n"
    say(terminal, "next")
    assert (chats(server)[-1]["model"], len(chats(server)[-1]["messages"])) == ("copy", 1)
    server.replies["POST /api/show"] = Reply({"error": "model 'none:latest' not found"}, 404)
    assert say(terminal, "/load none") == "Loading model 'none'\nCouldn't find model 'none'\n"
    say(terminal, "still")
    assert (chats(server)[-1]["model"], len(chats(server)[-1]["messages"])) == ("copy", 3)


def test_show(server: FakeOllama, start: Start) -> None:
    model = {**SHOW, "license": "MIT", "parameters": "a    1\nb    2", "template": "T", "modelfile": "FROM m"}
    server.script({"POST /api/show": Reply(model)})
    terminal = start()
    assert say(terminal, "/show license") == "MIT\n"
    assert say(terminal, "/show template") == "T\n"
    assert say(terminal, "/show modelfile") == "FROM m\n"
    assert say(terminal, "/show system") == "No system message was specified for this model.\n"
    say(terminal, "/set parameter top_p 0.7")
    own = "Model defined parameters:\n  a    1\n  b    2\n\n"
    assert say(terminal, "/show parameters") == f"{own}User defined parameters:\n  {'top_p':<30} 0.7\n\n"
    assert say(terminal, "/show info").startswith("  Model\n")
    shows = [body for _, path, body in server.requests if path == "/api/show"]
    assert shows[-1]["options"] == {"top_p": 0.7}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (['"""one', 'two"""'], "one\ntwo"),
        (['"""one"""'], "one"),
        (['"""', "one", "", '"""'], "\none\n\n"),
    ],
)
def test_fenced_messages(server: FakeOllama, start: Start, keys: list[str], message: str) -> None:
    terminal = start()
    for line in keys[:-1]:
        terminal.send(line + ENTER)
        terminal.expect(MORE_HINT)
    say(terminal, keys[-1])
    assert chats(server)[0]["messages"][0]["content"] == message


def test_a_fenced_system_message(server: FakeOllama, start: Start) -> None:
    terminal = start()
    terminal.send('/set system """one' + ENTER)
    terminal.expect(MORE_HINT)
    assert say(terminal, 'two"""') == "Set system message.\n"
    say(terminal, "x")
    assert chats(server)[0]["messages"][0] == {"role": "system", "content": "one\ntwo"}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (f"world{HOME}hello {END}!", "hello world!"),
        (f"abc{LEFT}{LEFT}X\x7fY", "aYbc"),
        ("one two three\x17\x17four", "one four"),
        (f"one two\x1bb\x0b{HOME}\x1bf1", "one1 "),
        (f"gone{CLEAR}here", "here"),
        (f"abc{HOME}\x1b[3~\x04", "c"),
        ("\x1b[1;5Cé日本😀\x7f", "é日本"),
        ("a\tb", f"a{' ' * 8}b"),
        ("x" * 200 + HOME + "y" + END + "z", "y" + "x" * 200 + "z"),
        ("日本" * 60 + HOME + "a" + "\x1b[C" * 40 + "b", "a" + "日本" * 20 + "b" + "日本" * 40),
        (f"never{CLEAR}\x1b[99~\x1bxok", "ok"),
    ],
)
def test_editing(server: FakeOllama, start: Start, keys: str, message: str) -> None:
    terminal = start()
    ask(terminal, keys)
    assert chats(server)[0]["messages"][0]["content"] == message


def test_lines_joined_by_ctrl_j(server: FakeOllama, start: Start) -> None:
    terminal = start()
    terminal.send("one")
    terminal.expect("one")
    terminal.send(CTRL_J)
    terminal.expect(MORE_HINT)
    terminal.send("two")
    terminal.expect("two")
    terminal.send(CTRL_J)
    terminal.expect(MORE_HINT)
    terminal.send("\x7f")  # takes the third line back
    say(terminal, "!")
    assert chats(server)[0]["messages"][0]["content"] == "one\ntwo!"


def test_pastes(server: FakeOllama, start: Start) -> None:
    terminal = start()
    terminal.send("\x1b[200~one\rtwo\rthree\x1b[201~")
    terminal.expect("three")
    ask(terminal, "")
    terminal.send("\x1b[200~/list\r\x1b[201~")
    terminal.expect("... ")
    ask(terminal, "")
    assert [m["content"] for m in chats(server)[1]["messages"]] == ["one\ntwo\nthree", "Hi", "/list\n"]


def test_history(server: FakeOllama, start: Start, tmp_path: Path) -> None:
    (tmp_path / ".ollama").mkdir()
    (tmp_path / ".ollama/history").write_text("old\n\nolder\n")
    terminal = start()
    say(terminal, "new")
    terminal.send(UP)
    terminal.expect("new")
    say(terminal, UP + UP + DOWN + " again")
    say(terminal, UP + UP + UP + UP + UP + UP)
    said = [m["content"] for m in chats(server)[-1]["messages"] if m["role"] == "user"]
    assert said == ["new", "older again", "old"]
    kept = (tmp_path / ".ollama/history").read_text().split("\n")
    assert kept == ["old", "older", "new", "older again", "old", ""]
    say(terminal, "/set nohistory")
    say(terminal, "secret")
    assert "secret" not in (tmp_path / ".ollama/history").read_text()


def test_no_history(start: Start, tmp_path: Path) -> None:
    terminal = start(OLLAMA_NOHISTORY="1")
    say(terminal, "secret")
    assert not (tmp_path / ".ollama/history").exists()


def test_composing_in_an_editor(server: FakeOllama, start: Start, tmp_path: Path) -> None:
    editor = tmp_path / "editor.sh"
    editor.write_text('#!/bin/sh\nprintf \'%s\\nmore\\n\\n\' "$(cat "$1")" >"$1"\n')
    editor.chmod(0o755)
    terminal = start(OLLAMA_EDITOR=str(editor))
    terminal.send("draft" + CTRL_G)
    terminal.expect("more")
    say(terminal, "!")
    assert chats(server)[0]["messages"][0]["content"] == "draft\nmore!"


def test_an_editor_that_is_not_there(start: Start) -> None:
    terminal = start(OLLAMA_EDITOR="/no/such/editor -w")
    terminal.send(CTRL_G)
    assert 'error: editor "/no/such/editor" not found, set OLLAMA_EDITOR' in terminal.expect(HINT)


def test_errors_that_can_be_mended_do_not_end_the_session(server: FakeOllama, start: Start) -> None:
    terminal = start()
    server.replies["POST /api/chat"] = Reply({"error": '"m" does not support thinking'}, 400)
    assert say(terminal, "x") == 'error: 400 Bad Request: "m" does not support thinking\n'
    server.replies["POST /api/chat"] = Reply(lines({"error": "broke"}), kind=NDJSON)
    terminal.send("y" + ENTER)
    assert terminal.end() == 1
    assert terminal.text.endswith("Error: broke\n")


def test_the_terminal_is_left_as_it_was(start: Start) -> None:
    import termios

    terminal = start()
    say(terminal, "hello")
    terminal.send(CTRL_D)
    terminal.end()
    assert termios.tcgetattr(terminal._slave)[3] & termios.ECHO
    assert termios.tcgetattr(terminal._slave)[3] & termios.ICANON
