"""Go templates against what Go's text/template answered (tests/golden/gotemplate.json, made by tests/golden/gotemplate)."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest

from ollama_compat.template.gotemplate import Template, TemplateError, functions, nodes, values
from ollama_compat.template.gotemplate.executor import MAX_DEPTH
from ollama_compat.template.gotemplate.floats import format_float, format_json
from ollama_compat.template.gotemplate.marshal import marshal
from ollama_compat.template.gotemplate.parser import MAX_LENGTH, parse
from ollama_compat.template.gotemplate.values import Field, Kind, Type, Value

GOLDEN = Path(__file__).parents[1] / "golden" / "gotemplate.json"

# ---------------------------------------------------------------- Go's answers

ITEM = Type(Kind.STRUCT, "main.Item", methods={"Shout": lambda value: value.data["Name"].upper()})
POINTER = values.pointer_to(ITEM)
ITEM.fields = (
    Field("Name", values.STRING, "name"),
    Field("Count", values.INT, "count", omitempty=True),
    Field("Price", values.FLOAT64, "price"),
    Field("Tags", values.STRINGS, "tags", omitempty=True),
    Field("Any", values.ANY),
    Field("Inner", POINTER, "inner", omitempty=True),
    Field("hidden", values.STRING),
)
ARGS = Type(Kind.MAP, "main.Args", values.ANY, methods={"String": lambda value: marshal(Value(values.MAP, value.data))})
NAMES = Type(Kind.SLICE, "main.Names", values.STRING, methods={"String": lambda value: "+".join(values.elements(value))})
EMPTY_ITEM = {"Count": 0, "Price": 0.0, "Tags": None, "Any": None, "hidden": "h"}


def item(data: Any) -> Any:
    return None if data is None else EMPTY_ITEM | data | {"Inner": item(data.get("Inner"))}


def typed(kind: str, data: Any) -> Any:
    match kind:
        case "bytes":
            return data.encode()
        case "item":
            return Value(ITEM, item(data))
        case "pointer":
            return Value(POINTER, item(data))
        case "items":
            return Value(values.slice_of(POINTER), [item(entry) for entry in data])
    types = {
        "strings": values.STRINGS, "names": NAMES, "ints": values.slice_of(values.INT), "texts": values.map_of(values.STRING),
        "args": ARGS, "nilmap": values.MAP, "nilslice": values.SLICE,
    }  # fmt: skip
    return Value(types[kind], data)


def read_golden() -> dict[str, Any]:
    golden: dict[str, Any] = json.loads(
        GOLDEN.read_text("utf-8"), object_hook=lambda data: typed(data["$"], data["v"]) if "$" in data else data
    )
    return golden


def answer(source: str, data: Any) -> tuple[str, str]:
    """Output and error, without what Ollama does to a template after it is parsed."""
    try:
        return Template(source, parse(source, functions.names())).execute(data), ""
    except TemplateError as error:
        return "", error.message


def test_answers_of_go() -> None:
    golden = read_golden()
    wrong = [
        f"{source!r}: {got}, Go: {(output, error)}"
        for source, data, output, error in golden["cases"]
        if (got := answer(source, golden["data"][data])) != (output, error)
    ]
    assert len(golden["cases"]) > 3000
    assert not wrong, f"{len(wrong)} of {len(golden['cases'])}:\n" + "\n".join(wrong[:20])


# ---------------------------------------------------------------- what Ollama makes of it


@pytest.mark.parametrize(
    ("source", "variables"),
    [
        ("{{ .Prompt }}", {"prompt", "response"}),
        ("{{ .System }} {{ .Prompt }}", {"prompt", "response", "system"}),
        ("{{ .System }} {{ .Prompt }} {{ .Response }}", {"prompt", "response", "system"}),
        ("{{ with .Tools }}{{ . }}{{ end }} {{ .System }}", {"response", "system", "tools"}),
        ("{{ range .Messages }}{{ .Role }} {{ .Content }}{{ end }}", {"content", "messages", "role"}),
        ('{{ range $i, $m := .Messages }}{{ if eq $m.Role "x" }}{{ $i }}{{ end }}{{ end }}', {"messages", "$m", "role", "$i"}),
        ("{{ if (index .Messages 0).Role }}{{ end }}", {"response"}),  # what chains are taken from is not seen
        ('{{ if and (not .Think) (gt (len .Messages) 1) }}{{ end }}{{ print .Thinking }}', {"think", "messages", "thinking"}),
        ('{{ define "x" }}{{ .Messages }}{{ end }}', {"messages"}),
        ('{{ template "x" .Suffix }}', {"suffix", "response"}),
        ("", {"response"}),
    ],
)  # fmt: skip
def test_variables(source: str, variables: set[str]) -> None:
    assert Template.parse(source).variables() == variables


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("a", "aR"),
        ("{{ .Response }}a", "Ra"),
        ("{{ range .Messages }}m{{ end }}", "mm"),
        ("{{ .response }}", "<no value>"),  # counts, because names are compared in lower case
        ("{{ if .Messages }}a{{ end }}", "a"),
    ],
)
def test_response_is_appended(source: str, output: str) -> None:
    template = Template.parse(source)
    assert template.execute({"Response": "R", "Messages": [1, 2]}) == output
    assert str(template) == source


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ .Prompt ", "template: :1: unclosed action"),
        ('{{define "x"}}{{template "x"}}{{end}}{{template "x"}}', "undefined template specified"),
        ("a\n{{ nope }}", 'template: :2: function "nope" not defined'),
        ("{{ if .x }}", "template: :1: unexpected EOF"),
        ("{{ end }}", "template: :1: unexpected {{end}}"),
    ],
)
def test_parse_errors(source: str, message: str) -> None:
    with pytest.raises(TemplateError) as caught:
        Template.parse(source)
    assert caught.value.message == message
    assert caught.value.status == 400


def test_dates() -> None:
    template = Template.parse('{{ currentDate }} {{ currentDate "%Y" "x" }} {{ yesterdayDate }}{{ .Response }}')
    day = datetime.date(2024, 3, 1)
    assert template.execute({"Response": ""}, today=day) == "2024-03-01 2024-03-01 2024-02-29"
    assert template.execute({"Response": ""}).startswith(str(datetime.date.today())[:4])


def test_missing_keys_without_the_option() -> None:
    template = Template.parse("{{ .Response }}[{{ .a.b.c }}]")
    assert template.execute({}, missing_is_zero=False) == "<no value>[<no value>]"
    with pytest.raises(TemplateError, match=r"nil pointer evaluating interface \{\}\.b"):
        template.execute({})


def test_nodes_give_the_source_back() -> None:
    source = '{{if and .A (eq $.B "x")}}a{{else}}{{range $i, $m := .C}}{{$m.D | printf "%s" 1}}{{end}}{{template "t" .}}{{end}}'
    template = Template.parse(source + "{{.Response}}")
    assert str(template.root) == source + "{{.Response}}"
    assert {str(node) for node in nodes.walk(template.root) if isinstance(node, nodes.Field)} == {".A", ".C", ".Response"}


def test_output_is_always_text() -> None:
    template = Template.parse('{{ "\\xff" }}{{ slice .Response 1 2 }}{{ .Lone }}')
    assert template.execute({"Response": "é", "Lone": "\ud800x"}) == "\ufffd\ufffd\ufffdx"


# ---------------------------------------------------------------- budget


@pytest.mark.parametrize(
    "source",
    [
        "{{ range 1000000000 }}{{ end }}",
        "{{ range 30000 }}{{ range 30000 }}{{ end }}{{ end }}",
        '{{ $s := "0123456789" }}{{ range 60 }}{{ $s = print $s $s }}{{ end }}',
        '{{ $s := printf "%100000d" 1 }}{{ range 100000 }}{{ if eq $s "x" }}{{ end }}{{ end }}',
        '{{ $s := printf "%100000d" 1 }}{{ range 100000 }}{{ json $s }}{{ end }}',
        '{{ $s := printf "%100000d" 1 }}{{ range 100000 }}{{ $s }}{{ end }}',
        '{{ define "a" }}{{ range 9 }}{{ template "b" $ }}{{ end }}{{ end }}{{ define "b" }}{{ range 9999 }}{{ end }}{{ end }}'
        '{{ range 999 }}{{ template "a" . }}{{ end }}',
    ],
)
def test_work_is_bounded(source: str) -> None:
    with pytest.raises(TemplateError, match=r"takes too long|output is longer"):
        Template.parse(source + "{{ .Response }}").execute({}, max_steps=100_000, max_output=1 << 20)


@pytest.mark.parametrize(
    "source",
    [
        '{{ define "a" }}{{ template "a" . }}{{ end }}{{ template "a" . }}',
        '{{ define "a" }}{{ if 1 }}{{ with 1 }}{{ range 1 }}{{ template "b" . }}{{ end }}{{ end }}{{ end }}{{ end }}'
        '{{ define "b" }}{{ if 1 }}{{ if 1 }}{{ if 1 }}{{ template "a" . }}{{ end }}{{ end }}{{ end }}{{ end }}'
        '{{ template "a" . }}',
    ],
)
def test_recursion_is_bounded(source: str) -> None:
    with pytest.raises(TemplateError, match=rf"exceeded maximum template depth \({MAX_DEPTH}\)"):
        Template.parse(source).execute({})


@pytest.mark.parametrize(
    "source", ["{{ print " + "(" * 5000 + "1" + ")" * 5000 + " }}", "{{ if 1 }}" * 5000, "{{ if 1 }}" + "{{ else if 1 }}" * 5000]
)
def test_nesting_is_bounded(source: str) -> None:
    with pytest.raises(TemplateError, match="max expression depth exceeded"):
        Template.parse(source)


def test_deep_templates_run() -> None:
    deep = "{{ if 1 }}" * 99 + "x" + "{{ end }}" * 99
    assert Template.parse(deep + "{{ .Response }}").execute({"Response": ""}) == "x"
    assert Template.parse("{{ " + "(" * 99 + "1" + ")" * 99 + " }}{{ .Response }}").execute({"Response": ""}) == "1"


def test_variables_are_bounded() -> None:
    with pytest.raises(TemplateError, match="too many variables"):
        Template.parse("{{ $x := 1 }}" * 300)
    assert Template.parse("{{ if 1 }}{{ $x := 1 }}{{ end }}" * 300 + "{{ .Response }}").execute({"Response": "r"}) == "r"


def test_length_is_bounded() -> None:
    with pytest.raises(TemplateError, match="longer than"):
        Template.parse("x" * (MAX_LENGTH + 1))


def test_values_nested_in_themselves_cannot_hang_printing() -> None:
    loop: dict[str, Any] = {}
    loop["loop"] = loop
    with pytest.raises(TemplateError, match="exceeded maximum template depth"):
        Template.parse("{{ .Response }}{{ . }}").execute(loop)


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("value", "verb", "precision", "text"),
    [
        (1e6, "g", -1, "1e+06"),
        (123456.0, "g", -1, "123456"),
        (0.0001, "g", -1, "0.0001"),
        (0.00001, "g", -1, "1e-05"),
        (5e-324, "b", -1, "1p-1074"),
        (-0.0, "g", -1, "-0"),
        (5e-324, "x", -1, "0x1p-1074"),
        (1.9999, "x", 1, "0x1.0p+01"),
        (float("inf"), "g", -1, "+Inf"),
        (float("-inf"), "f", 2, "-Inf"),
        (float("nan"), "e", 1, "NaN"),
        (1e22, "f", -1, "10000000000000000000000"),
        (1.25, "f", -1, "1.25"),
        (0.00125, "f", -1, "0.00125"),
    ],
)
def test_floats(value: float, verb: str, precision: int, text: str) -> None:
    assert format_float(value, verb, precision) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e-7, "1e-7"), (1e21, "1e+21"), (1e20, "100000000000000000000"), (1e-6, "0.000001"), (0.0, "0"), (-2.5, "-2.5")],
)
def test_json_floats(value: float, text: str) -> None:
    assert format_json(value) == text


def test_json_of_what_has_none() -> None:
    assert Template.parse("{{ json .a }}{{ .Response }}").execute({"a": float("inf"), "Response": "r"}) == "r"
