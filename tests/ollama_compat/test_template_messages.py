"""Prompts from conversations by Go templates, against Ollama's own.

tests/fixtures/templates holds what Ollama expects of its templates (MIT, its licence beside it);
tests/golden/ollama_template.json what its code answered (made by tests/golden/ollama_template).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ollama_compat.template import detect
from ollama_compat.template.gotemplate import Template, TemplateError
from ollama_compat.template.messages import collate, cut, render

FIXTURES = Path(__file__).parents[1] / "fixtures" / "templates"
GOLDEN = Path(__file__).parents[1] / "golden" / "ollama_template.json"


def says(*pairs: str) -> list[dict[str, Any]]:
    """Messages from "role: content"."""
    return [{"role": role, "content": content} for role, content in (pair.split(": ", 1) for pair in pairs)]


USER = says("user: Hello, how are you?")
TURNS = says(
    "user: Hello, how are you?",
    "assistant: I'm doing great. How can I help you today?",
    "user: I'd like to show off how chat templating works!",
)
SYSTEM = says("system: You are a helpful assistant.")
CONVERSATIONS = {"user": USER, "user-assistant-user": TURNS, "system-user-assistant-user": SYSTEM + TURNS}
ENDS_IN_SPACE = ("chatqa", "llama2-chat", "mistral-instruct", "openchat", "vicuna")  # which the expected files do not


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("name", sorted(path.name.removesuffix(".gotmpl") for path in FIXTURES.glob("*.gotmpl")))
def test_templates_of_ollama(name: str, conversation: str) -> None:
    got = render(Template.parse(detect.template(name)), messages=CONVERSATIONS[conversation])
    expected = (FIXTURES / f"{name}.gotmpl" / conversation).read_text("utf-8")
    assert (got.removesuffix(" ") if name in ENDS_IN_SPACE else got) == expected


def answer(case: dict[str, Any]) -> tuple[str, str]:
    keys = ("messages", "tools", "prompt", "suffix", "think")
    try:
        return render(Template.parse(case["template"]), **{key: case[key] for key in keys if key in case}), ""
    except TemplateError as error:
        return "", error.message


def test_answers_of_ollama() -> None:
    cases = json.loads(GOLDEN.read_text("utf-8"))
    wrong = [
        f"{case}: {got}" for case in cases if (got := answer(case)) != (case["output"], case["error"])
    ]  # fmt: skip
    assert len(cases) > 100
    assert not wrong, f"{len(wrong)} of {len(cases)}:\n" + "\n".join(wrong[:5])


# ---------------------------------------------------------------- messages of one role


@pytest.mark.parametrize(
    ("messages", "system", "expected"),
    [
        (says("user: a", "user: b"), "", says("user: a\n\nb")),
        (says("tool: a", "tool: b"), "", says("tool: a", "tool: b")),
        (says("system: s", "system: t", "user: a", "system: u"), "s\n\nt\n\nu", says("system: s\n\nt", "user: a", "system: u")),
        (says("weird: a", "weird: b"), "", says("weird: a\n\nb")),
        ([], "", []),
    ],
)
def test_collate(messages: list[Any], system: str, expected: list[Any]) -> None:
    before = json.dumps(messages)
    assert collate(messages) == (system, expected)
    assert json.dumps(messages) == before


def test_collate_keeps_the_fields_of_the_first_one() -> None:
    first = {"role": "assistant", "content": "a", "thinking": "t", "tool_calls": [{"id": "1"}]}
    second = {"role": "assistant", "content": "b", "thinking": "lost", "tool_calls": [{"id": "2"}]}
    assert collate([first, second]) == ("", [first | {"content": "a\n\nb"}])


# ---------------------------------------------------------------- rounds

NO_RESPONSE = "[INST] {{ if .System }}{{ .System }}\n\n{{ end }}{{ .Prompt }}[/INST] "
RESPONSE = NO_RESPONSE + "{{ .Response }}"
MESSAGES = """[INST] {{ if .System }}{{ .System }}

{{ end }}
{{- range .Messages }}
{{- if eq .Role "user" }}{{ .Content }}[/INST] {{ else if eq .Role "assistant" }}{{ .Content }}[INST] {{ end }}
{{- end }}"""
FRIENDS = says("user: Hello friend!", "assistant: Hello human!", "user: What is your name?")


@pytest.mark.parametrize("source", [NO_RESPONSE, RESPONSE, MESSAGES])
def test_rounds(source: str) -> None:
    template = Template.parse(source)
    expected = "[INST] Hello friend![/INST] Hello human![INST] What is your name?[/INST] "
    assert render(template, messages=FRIENDS) == expected
    system = says("system: Be nice.")
    assert render(template, messages=system + FRIENDS) == expected.replace(
        "[INST] Hello friend", "[INST] Be nice.\n\nHello friend"
    )


@pytest.mark.parametrize("source", ["[INST] {{ .Prompt }}[/INST] ", "[INST] {{ .Prompt }}[/INST] {{ .Response }}</s>"])
def test_last_answer_goes_on(source: str) -> None:
    end = "</s>" if "</s>" in source else ""
    expected = f"[INST] Hello friend![/INST] Hello human!{end}[INST] What is your name?[/INST] My name is"
    assert render(Template.parse(source), messages=FRIENDS + says("assistant: My name is")) == expected


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        (says("user: a", "user: b"), "(,a\n\nb,"),
        (says("user: a", "system: s", "user: b"), "(,a,)(s,b,"),
        (says("assistant: x", "user: b"), "(,,x)(,b,"),
        (says("tool: t", "user: b"), "(,b,"),
        (says("user: a", "tool: t", "user: b"), "(,b,"),
        (says("system: s"), "(s,,"),
        ([], "(,,"),
    ],
)
def test_order_of_rounds(messages: list[Any], expected: str) -> None:
    assert render(Template.parse("({{ .System }},{{ .Prompt }},{{ .Response }})"), messages=messages) == expected


@pytest.mark.parametrize(
    ("source", "rest"),
    [
        ("a{{ .Response }}b", "a{{.Response}}"),
        ("a{{ if .X }}b{{ .Response }}c{{ else }}d{{ end }}e", "a{{if .X}}b{{.Response}}{{end}}"),
        ("{{ if .Response }}[{{ .X }}]{{ end }}c", "{{if .Response}}[{{.X}}]{{end}}c"),
        ("{{ with .X }}{{ .Y.Response }}{{ end }}c", "{{with .X}}{{.Y.Response}}{{end}}"),
        ('{{ printf "%s%s" .Response .X }}c', '{{printf "%s%s" .Response}}'),
        ("{{ .Response | print }}c", ""),
        ("{{ print (print .Response .X) }}c", "{{print (print .Response)}}"),
        ("{{ $x := .Response }}{{ $x }}", "{{$x := .Response}}"),
        ("{{ range .X }}{{ end }}c", "{{range .X}}{{end}}c{{.Response}}"),
        ("{{ $.Response }}b{{ (.Response).x }}c{{ .Messages }}", "{{$.Response}}b{{(.Response).x}}c{{.Messages}}"),
    ],
)
def test_cut(source: str, rest: str) -> None:
    assert str(cut(Template.parse(source).root)) == rest


# ---------------------------------------------------------------- values


def test_text_to_insert() -> None:
    template = Template.parse("{{ if .Suffix }}<PRE> {{ .Prompt }} <SUF>{{ .Suffix }} <MID>{{ else }}{{ .Prompt }}{{ end }}")
    assert render(template, prompt="def add(", suffix="return x") == "<PRE> def add( <SUF>return x <MID>"
    assert render(template, messages=says("user: hello")) == "hello"


@pytest.mark.parametrize(
    ("think", "expected"),
    [
        (None, "false||false"),
        (False, "false||true"),
        (True, "true|medium|true"),
        ("low", "true|low|true"),
        ("max", "true|max|true"),
    ],
)
def test_think(think: bool | str | None, expected: str) -> None:
    source = "{{ .Think }}|{{ .ThinkLevel }}|{{ .IsThinkSet }}"
    assert render(Template.parse(source + "{{ range .Messages }}{{ end }}"), think=think) == expected
    assert render(Template.parse(source), think=think, messages=says("user: x")) == expected


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of <a city>",
        "parameters": {
            "type": "object",
            "required": ["city"],
            "properties": {
                "unit": {"type": ["string", "null"], "enum": ["C", 1]},
                "city": {"type": "string", "description": "Name"},
                "deep": {"type": "object", "properties": {"z": {"type": "integer"}, "a": {"anyOf": [{"type": "array"}, {}]}}},
            },
        },
    },
}
WEATHER_JSON = (
    '{"type":"function","function":{"name":"get_weather","description":"Weather of \\u003ca city\\u003e","parameters":'
    '{"type":"object","required":["city"],"properties":{"city":{"type":"string","description":"Name"},'
    '"deep":{"type":"object","properties":{"z":{"type":"integer"},"a":{"anyOf":[{"type":"array"},{}]}}},'
    '"unit":{"type":["string","null"],"enum":["C",1]}}}}}'
)  # names of parameters are sorted, those inside of them are not
PROPERTIES = "(index .Tools 0).Function.Parameters.Properties"
WITH_MESSAGES = "{{ range .Messages }}{{ end }}"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ .Tools }}", f"[{WEATHER_JSON}]"),
        ("{{ range .Tools }}{{ . }}{{ end }}", WEATHER_JSON),
        ("{{ json .Tools }}", f"[{WEATHER_JSON}]"),
        ("{{ json (index .Tools 0).Function.Parameters.Required }}", '["city"]'),
        (
            f"{{{{ range $n, $p := {PROPERTIES} }}}}{{{{ $n }}}}={{{{ $p.Type }}}}:{{{{ toTypeScriptType $p }}}};{{{{ end }}}}",
            "city=string:string;deep=object:Record<string, any>;unit=[string null]:string | null;",
        ),
        (f"{{{{ with {PROPERTIES}.city }}}}{{{{ . }}}}{{{{ .Enum }}}}{{{{ end }}}}", "{[] string <nil> Name [] <nil> []}[]"),
        (f"{{{{ {PROPERTIES}.nope.Type }}}}", ""),
        ("{{ toTypeScriptType 1 }}{{ toTypeScriptType nil }}", "anyany"),
    ],
)  # fmt: skip
def test_tools(source: str, expected: str) -> None:
    assert render(Template.parse(source + WITH_MESSAGES), tools=[WEATHER]) == expected


def test_no_tools() -> None:
    template = Template.parse("{{ .Tools }}{{ if .Tools }}yes{{ end }}{{ len .Tools }}" + WITH_MESSAGES)
    assert render(template) == "null0"
    assert render(template, tools=[]) == "[]0"


def test_tool_calls() -> None:
    call = {
        "id": "call_1",
        "function": {"index": 2, "name": "f", "arguments": {"n": 1000000, "b": {"y": None, "a": [True, "<"]}}},
    }
    message = {"role": "assistant", "content": "", "tool_calls": [call]}
    result = {"role": "tool", "content": "3", "tool_name": "f", "tool_call_id": "call_1"}
    source = (
        "{{ range .Messages }}{{ range .ToolCalls }}{{ .ID }} {{ .Function.Index }} {{ .Function.Name }} "
        "{{ .Function.Arguments }}{{ range $k, $v := .Function.Arguments }} {{ $k }}={{ $v }}{{ end }}{{ end }} "
        "{{ .ToolName }} {{ .ToolCallID }}|{{ end }}"
    )
    got = render(Template.parse(source), messages=[message, result])
    arguments = '{"b":{"a":[true,"\\u003c"],"y":null},"n":1000000}'
    assert got == f"call_1 2 f {arguments} b=map[a:[true <] y:<nil>] n=1e+06  | f call_1|"


def test_images() -> None:
    message = {"role": "user", "content": "look", "images": ["aGk=", "AA=="]}
    source = "{{ range .Messages }}{{ len .Images }}{{ range .Images }}[{{ len . }}{{ . }}]{{ end }}{{ json .Images }}{{ end }}"
    assert render(Template.parse(source), messages=[message]) == '2[2[104 105]][1[0]]["aGk=","AA=="]'


def test_errors_name_the_types_of_ollama() -> None:
    with pytest.raises(TemplateError) as caught:
        render(Template.parse("{{ range .Messages }}{{ .Nope }}{{ end }}"), messages=USER)
    message = "can't evaluate field Nope in type *template.templateMessage"
    assert caught.value.message == f'template: :1:24: executing "" at <.Nope>: {message}'


@pytest.mark.parametrize("depth", [300, 600, 5000])
def test_deep_arguments_are_an_error_or_text(depth: int) -> None:
    arguments: dict[str, Any] = {}
    for _ in range(depth):
        arguments = {"a": arguments}
    message = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}
    template = Template.parse("{{ range .Messages }}{{ range .ToolCalls }}{{ .Function.Arguments }}{{ end }}{{ end }}")
    try:
        got = render(template, messages=[message])
    except TemplateError as error:
        got = error.message
    assert got == '{"a":' * depth + "{}" + "}" * depth or "depth" in got
