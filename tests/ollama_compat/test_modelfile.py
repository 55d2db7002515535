"""Modelfiles: what test_cli_recorded.py does not see of them."""

from __future__ import annotations

import pytest

from ollama_compat import modelfile
from ollama_compat.modelfile import Command, Modelfile, ModelfileError, parse

LONG = '''FROM ./model.gguf
ADAPTER ./lora.gguf
TEMPLATE """{{ if .System }}"s": {{ .System }}{{ end }}
{{ .Prompt }}"""
SYSTEM "You are brief.
 Always."
PARAMETER temperature 0.5
PARAMETER stop "<end> "
PARAMETER stop <stop>
MESSAGE user hello: there
MESSAGE assistant """hi
"you\""""
LICENSE MIT
RENDERER r
PARSER p
REQUIRES 0.14.0
'''


def test_commands() -> None:
    commands = parse(LONG).commands
    assert commands[0] == Command("model", "./model.gguf")
    assert commands[2].args == '{{ if .System }}"s": {{ .System }}{{ end }}\n{{ .Prompt }}'
    assert [c.args for c in commands if c.name == "stop"] == ["<end> ", "<stop>"]
    assert [c.args for c in commands if c.name == "message"] == ["user: hello: there", 'assistant: hi\n"you"']


def test_written_as_it_was_read() -> None:
    assert str(parse(LONG)) == LONG
    assert parse(str(parse(LONG))) == parse(LONG)


@pytest.mark.parametrize("text", ["plain", "two\nlines", " led by a blank", 'has "quotes"', 'quotes "and\nlines"', "", "é 日本"])
def test_values_survive(text: str) -> None:
    once = Modelfile((Command("model", "x"), Command("system", text)))
    assert parse(str(once)).commands[1].args == text


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("FROM x\nBAD y", 2),
        ("FROM x\n\n# c\nMESSAGE tool hi", 4),
        ('FROM x\nSYSTEM """a\nb\n"""\nBAD y', 5),
        ("FROM x\nBAD\n", 3),
    ],
)
def test_where_an_error_is(text: str, line: int) -> None:
    with pytest.raises(ModelfileError, match=rf"^\(line {line}\): ") as error:
        parse(text)
    assert error.value.line == line


@pytest.mark.parametrize("text", ["", "# only\n", "SYSTEM x\n", "FROM x\nSYSTEM", 'FROM x\nSYSTEM "a', "FROM x\nPARAMETER a-b 1"])
def test_errors_of_the_whole(text: str) -> None:
    with pytest.raises(ModelfileError) as error:
        parse(text)
    assert error.value.line == 0


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings(encoding: str) -> None:
    assert parse("FROM x\nSYSTEM é€😀\n".encode(encoding)).commands[1].args == "é€😀"


def test_a_long_file_is_read_in_one_pass() -> None:
    text = "FROM x\n" + 'SYSTEM """' + 'line "quoted"\n' * 20_000 + '"""\n'
    assert len(parse(text).commands[1].args) == 14 * 20_000


def test_parameters_of_every_option() -> None:
    kinds = modelfile.parameter_kinds()
    assert {kinds[name] for name in ("top_k", "main_gpu", "num_ctx")} == {"int"}
    assert {kinds[name] for name in ("temperature", "top_p")} == {"float"}
    assert (kinds["use_mmap"], kinds["stop"]) == ("bool", "tuple")
    assert modelfile.parameter("stop", ["a", "b"]) == ["a", "b"]
    with pytest.raises(ValueError, match=r"invalid int value \[a b\]"):
        modelfile.parameter("top_k", ["a", "b"])
