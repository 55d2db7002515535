"""The tags of Go templates, and the parser that they make."""

from __future__ import annotations

import pytest

from ollama_compat import output
from ollama_compat.output import go_tags
from ollama_compat.template.gotemplate import Template

QWEN3 = """{{- if or .System .Tools }}<|im_start|>system
{{- if .Tools }}
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>
{{- end }}{{- if .Think }}/think{{- end }}<|im_end|>
{{ end }}
{{- range $i, $_ := .Messages }}
{{- $last := eq (len (slice $.Messages $i)) 1 -}}
{{- if eq .Role "user" }}<|im_start|>user
{{ .Content }}<|im_end|>
{{ else if eq .Role "assistant" }}<|im_start|>assistant
{{ if and $last .Thinking }}
<think>{{ .Thinking }}</think>
{{ end }}
{{- if .Content }}{{ .Content }}
{{- else if .ToolCalls }}<tool_call>
{{ range .ToolCalls }}{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}
{{ end }}</tool_call>
{{- end }}{{ if not $last }}<|im_end|>
{{ end }}
{{- end }}
{{- end }}"""


@pytest.mark.parametrize(
    ("source", "tags"),
    [
        (QWEN3, ("<think>", "</think>")),
        ("{{ range .Messages }}{{ if .Thinking }}  Some text  {{ .Thinking }} after {{ end }}{{ end }}", ("Some text", "after")),
        ("{{ if .Thinking }}/think{{ end }}", ("", "")),
        ("{{ range .Messages }}{{ range .Parts }}<think>{{ .Thinking }}</think>{{ end }}{{ end }}", ("", "")),
        ("{{ range .Messages }}{{ .Thinking }}{{ end }}", ("", "")),
        ("{{ range .Messages }}<a>{{ .Thinking }}{{ end }}", ("<a>", "")),
        (
            "{{ range .Messages }}<a>{{ .Thinking }}</a>{{ end }}{{ range .Messages }}<b>{{ .Thinking }}</b>{{ end }}",
            ("<b>", "</b>"),
        ),
        ("{{ range .Messages }}{{ with .X }}{{ else }}<c>{{ .Thinking }}</c>{{ end }}{{ end }}", ("<c>", "</c>")),
        ("{{ range $.Messages }}<a>{{ .Thinking }}</a>{{ end }}", ("", "")),
        ("{{ .Prompt }}", ("", "")),
    ],
)
def test_thinking_tags(source: str, tags: tuple[str, str]) -> None:
    assert go_tags.thinking_tags(Template.parse(source).root) == tags


@pytest.mark.parametrize(
    ("source", "tag"),
    [
        (QWEN3, "<tool_call>"),
        ("", "{"),
        ("{{ .Content }}", "{"),
        ("{{if .ToolCalls}}{{end}}", "{"),
        ("{{if .ToolCalls}}{{range .ToolCalls}}{{ . }}{{end}}{{end}}", "{"),
        ("{{if .ToolCalls}}```json\n{{end}}", "```json"),
        ("{{if .ToolCalls}}[{{range .ToolCalls}}{{ . }}{{end}}]{{end}}", "["),
        ("{{if .ToolCalls}}\n [ {{range .ToolCalls}}{{ . }}{{end}}]{{end}}", "["),
        ("{{if .ToolCalls}}{{range .ToolCalls}}{{ . }}{{end}}]{{end}}", "{"),
        ('{{if .ToolCalls}}{{range .ToolCalls}}\r\n{"name": "{{ .Function.Name }}"}{{end}}{{end}}', "{"),
        ('{{if .ToolCalls}}\n{{range .ToolCalls}}<tool_call>{"name": 1}</tool_call>{{end}}{{end}}', "<tool_call>"),
        ("{{if .ToolCalls}}<calls>\r\n<call>{{range .ToolCalls}}x{{end}}{{end}}", "<calls>\n<call>"),
        ("{{if .ToolCalls}}First text{{if .Something}}inner{{end}}Second text{{end}}", "First text"),
        ("{{if .X}}a{{else}}{{if and .Y .ToolCalls}}[TOOL_CALLS] [{{end}}{{end}}", "[TOOL_CALLS] ["),
        ("{{range .Messages}}{{with .X}}{{else}}{{if .Message.ToolCalls}}functools[{{end}}{{end}}{{end}}", "functools["),
        ("{{if .ToolCalls}}{{if .X}}{{else}}<a>{{end}}<b>{{end}}", "<a>"),
        ("{{if .ToolCalls}}{{if .X}}{{end}}<b>{{end}}", "{"),
        ("{{if $.ToolCalls}}<a>{{end}}", "{"),
    ],
)
def test_call_tag(source: str, tag: str) -> None:
    assert go_tags.call_tag(Template.parse(source).root) == tag


TOOLS = [{"type": "function", "function": {"name": "f"}}]
ANSWER = '<think>\nwhy\n</think>\n\nok<tool_call>{"name": "f", "arguments": {}}</tool_call>'


def kinds(parser: output.OutputParser, text: str) -> list[object]:
    events = parser.feed(text) + parser.finish()
    return [(event.name, event.arguments) if isinstance(event, output.ToolCall) else event for event in events]


def test_generic() -> None:
    template = Template.parse(QWEN3)
    both = output.generic(template, tools=TOOLS, think=True, prompt_tail="<|im_start|>assistant\n")
    assert both.preserved == ("<think>", "</think>", "<tool_call>")
    assert kinds(both, ANSWER) == [output.Thinking("why\n"), output.Content("ok"), ("f", {})]
    plain = output.generic(template, tools=None, think=False)
    assert kinds(plain, ANSWER) == [output.Content(ANSWER)]
    inside = output.generic(template, tools=[], think=True, prompt_tail="<|im_start|>assistant\n<think>\n")
    assert kinds(inside, "\n\nwhy</think> ok") == [output.Thinking("why"), output.Content("ok")]
    untagged = output.generic(Template.parse("{{ .Prompt }}"), tools=TOOLS, think=True, prompt_tail="<think>")
    assert kinds(untagged, '{"name": "f", "arguments": {"a": 1}}') == [("f", {"a": 1})]
