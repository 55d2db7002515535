"""The Jinja renderer: prompts equal llama-server's, hostile templates do nothing, expensive ones are stopped."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ollama_compat.template.jinja import JinjaRenderer, TemplateError

FOLDER = Path(__file__).parent / "templates"
GOLDEN: dict[str, Any] = json.loads((FOLDER / "golden.json").read_text())
CONVERSATIONS: dict[str, Any] = json.loads((FOLDER / "conversations.json").read_text())
TEMPLATES = sorted(path.name for path in FOLDER.glob("*.jinja"))
HI = [{"role": "user", "content": "hi"}]

# llama.cpp writes empty reasoning in front of an answer that is continued; the template itself writes none.
EMPTY_ANALYSIS = "<|channel|>analysis<|message|><|end|><|start|>assistant"


@pytest.fixture
async def renderer() -> AsyncIterator[JinjaRenderer]:
    renderer = JinjaRenderer()
    yield renderer
    await renderer.close()


def without_dates(prompt: str) -> str:
    return re.sub(r"\d{4}-\d\d-\d\d|\d{1,2} [A-Z][a-z]+ \d{4}", "DATE", prompt)


@pytest.mark.parametrize(
    ("call_id", "result_ids"),
    [({"id": "call_12345"}, {"tool_call_id": "call_12345"}), ({}, {}), ({"id": "abcdefgh1"}, {"tool_call_id": "abcdefgh1"})],
)
async def test_ids_that_a_template_takes(renderer: JinjaRenderer, call_id: dict[str, str], result_ids: dict[str, str]) -> None:
    """Mistral's templates want nine letters and digits; clients send what they were given, or nothing."""
    call = {"function": {"name": "f", "arguments": {}}}
    messages = [
        *HI,
        {"role": "assistant", "content": "", "tool_calls": [call | call_id, call]},
        {"role": "tool", "content": "one"} | result_ids,
        {"role": "tool", "content": "two"},
    ]
    source = (FOLDER / "mistralai-Mistral-Nemo-Instruct-2407.jinja").read_text()
    prompt = await renderer.render(source, messages=messages, tools=[], bos_token="", eos_token="")
    made = re.findall(r'"id": "([A-Za-z0-9]{9})"', prompt)
    assert len(set(made)) == 2
    assert re.findall(r'"call_id": "([A-Za-z0-9]{9})"', prompt) == made
    assert call_id.get("id", "") in (prompt if "_" not in call_id.get("id", "") else call_id["id"])


@pytest.mark.parametrize("name", TEMPLATES)
async def test_prompts_are_those_of_llama_server(renderer: JinjaRenderer, name: str) -> None:
    source = (FOLDER / name).read_text()
    for case, expected in GOLDEN[name].items():
        conversation, _, think = case.partition(" think=")
        prompt = await renderer.render(
            source,
            **CONVERSATIONS[conversation],
            enable_thinking=think == "True",
            bos_token=GOLDEN["bos_token"],
            eos_token=GOLDEN["eos_token"],
        )
        assert without_dates(prompt) == without_dates(expected.replace(EMPTY_ANALYSIS, "")), case


@pytest.mark.parametrize(
    ("before", "prompt", "expected"),
    [
        (">>>all\n", ">>>", "A>>>all\nOne"),
        ("<channel>final<message>", "", "A<channel>final<message>One"),
        ("<text>", "<think>", "A<think></think><text>One"),  # no reasoning is shown here, and the tags are known
        ("<think></think>", "<think>", "A<think></think>One"),
        ("\n", "", "AOne"),
        ("{% if loop.last %}{{ raise_exception('no') }}{% endif %}", "", "AOne"),
        ("<other>", "<b>", "A<b>One"),
    ],
)
async def test_an_answer_that_is_continued_begins_as_in_a_conversation(
    renderer: JinjaRenderer, before: str, prompt: str, expected: str
) -> None:
    thoughts = "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}" if prompt == "<think>" else ""
    said = "{% if m.role == 'assistant' %}A" + before + thoughts + "{% endif %}{{ m.content }}"
    source = "{% for m in messages %}" + said + "{% endfor %}{% if add_generation_prompt %}A" + prompt + "{% endif %}"
    messages = [*HI, {"role": "assistant", "content": "One"}]
    assert await renderer.render(source, messages=messages, bos_token="", eos_token="") == f"hi{expected}"


MORE_TEMPLATES = sorted(Path(os.environ.get("MOELLAMA_CHAT_TEMPLATES") or FOLDER).glob("*.jinja"))


@pytest.mark.parametrize("source", [path.read_text() for path in MORE_TEMPLATES], ids=[path.stem for path in MORE_TEMPLATES])
async def test_a_conversation_with_tools_renders(renderer: JinjaRenderer, source: str) -> None:
    """Set MOELLAMA_CHAT_TEMPLATES to a folder with more templates than are here. A few refuse tool results, and say so."""
    result = await outcome(renderer, source, **CONVERSATIONS["tools"])
    assert "Weather in Paris?" in result or "alternate" in result


# ---------------------------------------------------------------- what a template gets


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ messages[0].content }}{{ add_generation_prompt }}{{ enable_thinking }}", "hiTrueTrue"),
        ("{{ tools is defined }}{{ bos_token }}{{ nothing.at.all }}{{ 'a' + nothing }}{{ none }}", "False<s>a"),
        ("{{ strftime_now('%Y') | length }}{{ date_string | length }}", "411"),
        ("{{ {'b': '<é>', 'a': [1, 1.5, true, none]} | tojson }}", '{"b": "<é>", "a": [1, 1.5, true, null]}'),
        ("{{ {'a': 1} | tojson(indent=2) }}", '{\n  "a": 1\n}'),
        ("{{ messages | map(attribute='role') | tojson }}{{ nothing | tojson }}", '["user"]null'),
        ("{% for i in range(9) %}{% if i == 1 %}{% continue %}{% elif i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}", "02"),
        ("{% set ns = namespace(a=1) %}{% for i in range(3) %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}", "4"),
        ("{% set l = [] %}{% set _ = l.append(7) %}{% set _ = l.append(8) %}{{ l.pop(0) }}{{ l | length }}", "71"),
        ("{% generation %}{{ messages[0].role }}{% endgeneration %}", "user"),
        ("  {% if true %}\n  x\n  {% endif %}\n", "  x\n"),
        ("{{ '<b>' | safe + '<' }}", "<b><"),
        ("{{ '\\n' }}{{ '\\N{BULLET}' }}{{ 'ab cd' | wordwrap(2) }}{{ 'x' | pprint }}", "\n•ab\ncd'x'"),
        ("{{ '%s-%d' % ('a', 3) }}{{ 'ab' * 2 }}{{ 2 ** 10 }}{{ [1] * 2 }}", "a-3abab1024[1, 1]"),
        ("{{ cycler is defined }}{{ lipsum is defined }}{{ joiner is defined }}", "FalseFalseFalse"),
    ],
)
async def test_environment(renderer: JinjaRenderer, source: str, expected: str) -> None:
    assert await renderer.render(source, messages=HI, bos_token="<s>") == expected


async def test_variables(renderer: JinjaRenderer) -> None:
    source = "{{ enable_thinking }} {{ reasoning_effort }} {{ reasoning_strength }} {{ mine }}"
    extra = {"reasoning_effort": "high", "mine": 3}
    assert await renderer.render(source, messages=HI, enable_thinking=False, extra=extra) == "False high high 3"


async def test_bos_and_eos_are_cut_where_the_tokenizer_adds_them(renderer: JinjaRenderer) -> None:
    source = "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    assert await renderer.render(source, messages=HI, **tokens) == "<s>hi</s>"
    assert await renderer.render(source, messages=HI, **tokens, strip_bos=True, strip_eos=True) == "hi"


TOOL_CALL = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"a": "<x>"}}}]}


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("{{ call.function.arguments | tojson }}", '{"a": "<x>"}'),  # an object
        ("{% if call.function.arguments is string %}{{ call.function.arguments }}{% endif %}", '{"a":"\\u003cx\\u003e"}'),
        ("{{ call.function.arguments }}", '{"a":"\\u003cx\\u003e"}'),  # text, or it would be Python's
        ("{% for k, v in call.function.arguments.items() %}{{ k }}={{ v }}{% endfor %}", "a=<x>"),
    ],
)
async def test_arguments_have_the_form_that_the_template_takes(renderer: JinjaRenderer, how: str, expected: str) -> None:
    loops = "{% for m in messages %}{{ m.content }}{% for call in m.tool_calls or [] %}" + how + "{% endfor %}{% endfor %}"
    assert await renderer.render(loops, messages=[*HI, TOOL_CALL, *HI]) == f"hi{expected}hi"


async def test_content_becomes_parts_where_text_is_not_shown(renderer: JinjaRenderer) -> None:
    source = "{% for m in messages %}{% for part in m.content %}{{ part.text }}{% endfor %}|{% endfor %}"
    assert await renderer.render(source, messages=[*HI, {"role": "tool", "content": "x"}]) == "hi|x|"


async def test_white_space_is_trimmed_for_stepfun(renderer: JinjaRenderer) -> None:
    show = "{% for m in messages %}[{{ m.content }}]{% endfor %}"
    known = "{# You have access to the following functions in JSONSchema format #}"
    messages = [{"role": "user", "content": "\t hi\n"}]
    assert await renderer.render(show, messages=messages) == "[\t hi\n]"
    assert await renderer.render(show + known, messages=messages) == "[hi]"


async def test_system_goes_into_the_next_message_where_it_is_not_shown(renderer: JinjaRenderer) -> None:
    source = "{% for m in messages if m.role == 'user' %}[{{ m.content }}]{% endfor %}"
    system = {"role": "system", "content": "be kind"}
    assert await renderer.render(source, messages=[system, *HI]) == "[be kind\nhi]"
    assert await renderer.render(source, messages=[system]) == ""


async def test_messages_carry_what_ollama_sends(renderer: JinjaRenderer) -> None:
    source = "{% for m in messages %}{{ m | tojson }}\n{% endfor %}{{ tools | tojson }}"
    tool = {"role": "tool", "content": "sunny", "tool_name": "f", "tool_call_id": "1"}
    spoken = {"role": "assistant", "content": "ok", "thinking": "hidden"}
    rendered = await renderer.render(source, messages=[spoken, tool], tools=[{"function": {"parameters": {}, "name": "f"}}])
    assert rendered.splitlines() == [
        '{"role": "assistant", "content": "ok"}',
        '{"role": "tool", "content": "sunny", "name": "f", "tool_call_id": "1"}',
        '[{"type": "function", "function": {"name": "f", "description": "", "parameters": {}}}]',
    ]


async def test_a_last_assistant_message_is_continued(renderer: JinjaRenderer) -> None:
    source = (FOLDER / "Qwen-Qwen2.5-7B-Instruct.jinja").read_text()
    begun = [*HI, {"role": "assistant", "content": "One,"}]
    assert (await renderer.render(source, messages=begun)).endswith("<|im_start|>assistant\nOne,")
    ended = await renderer.render(source, messages=begun, add_generation_prompt=False)
    assert ended.endswith("<|im_start|>assistant\nOne,<|im_end|>\n")
    nothing = await renderer.render(source, messages=[*HI, {"role": "assistant", "content": ""}])
    assert nothing == await renderer.render(source, messages=HI)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([*HI, *[{"role": "assistant", "content": "a"}] * 2], "Cannot have 2 or more assistant messages at the end of the list."),
        ([*HI, TOOL_CALL], "Cannot continue an assistant message that contains tool calls."),
    ],
)
async def test_what_cannot_be_continued(renderer: JinjaRenderer, messages: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(TemplateError) as caught:
        await renderer.render("{{ messages | length }}", messages=messages)
    assert caught.value.message == message
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ raise_exception('Only user and assistant roles are supported!') }}", "Only user and assistant roles are supported!"),
        ("a\n{{ b", "chat template, line 2: unexpected end of template, expected 'end of print statement'."),
        ("{% nonsense %}", "chat template, line 1: Encountered unknown tag 'nonsense'."),
        ("{{ nothing() }}", "chat template: 'nothing' is undefined"),
        ("{{ 1 / 0 }}", "chat template: ZeroDivisionError: division by zero"),
        ("{% include '/etc/passwd' %}", "chat template: TypeError: no loader for this environment specified"),
        ("{{ '\\ud800' }}", "chat template: the prompt is not valid Unicode"),
    ],
)
async def test_errors_are_in_the_templates_words(renderer: JinjaRenderer, source: str, message: str) -> None:
    with pytest.raises(TemplateError) as caught:
        await renderer.render(source, messages=HI)
    assert caught.value.message == message


async def test_roles_are_up_to_the_template(renderer: JinjaRenderer) -> None:
    strict = (FOLDER / "mistralai-Mistral-Nemo-Instruct-2407.jinja").read_text()
    with pytest.raises(TemplateError, match="conversation roles must alternate"):
        await renderer.render(strict, messages=[*HI, *HI])
    assert await renderer.render("{{ messages[0].role }}", messages=[{"role": "odd", "content": ""}]) == "odd"


# ---------------------------------------------------------------- injection (CVE-2024-34359 and its like)


def payloads(command: str) -> Iterator[str]:
    """Ways out of a template that have worked somewhere; `command` is Python that leaves a trace."""
    run = f"exec({command!r})"
    subclasses = "''.__class__.__mro__[1].__subclasses__()"
    search = "{% if c.__name__ == 'catch_warnings' %}{{ c.__init__.__globals__ }}{% endif %}"
    yield f"{{% for c in {subclasses} %}}{search}{{% endfor %}}"
    yield from ("{{ " + expression + " }}" for expression in expressions(run, subclasses))
    for tag in ("import", "include", "extends", "from"):
        yield f"{{% {tag} 'os' %}}" if tag != "from" else "{% from 'os' import system %}{{ system('id') }}"
    yield "{% macro m() %}{{ caller.__globals__ }}{% endmacro %}{% call m() %}{% endcall %}"
    yield "{% macro m() %}{% endmacro %}{{ m.__globals__ }}{{ m._func.__globals__ }}"
    yield "{% set x = self._TemplateReference__context %}{{ x.environment.from_string('{{ 1 }}') }}"
    yield "{% for k, v in self.__dict__.items() %}{{ v.__globals__ }}{% endfor %}"
    yield "{% set g = namespace().__init__.__globals__ %}{{ g['__builtins__'] }}"
    yield "{% set ns = namespace() %}{% set ns.__class__ = 1 %}{{ ns }}"
    yield "{% filter attr('__class__') %}x{% endfilter %}"


def expressions(run: str, subclasses: str) -> Iterator[str]:
    roots = ("''", "[]", "{}", "()", "1", "1.5", "true", "none", "range", "dict", "namespace", "raise_exception", "strftime_now")
    for root in (*roots, "messages", "messages[0]", "bos_token", "self", "loop", "caller", "varargs", "nothing"):
        yield f"{root}.__class__.__base__.__subclasses__()[0]"
    for root in ("namespace", "raise_exception", "strftime_now", "cycler", "joiner", "lipsum", "self", "dict", "range"):
        yield f"{root}.__init__.__globals__['os'].popen('id').read()"
        yield f"{root}.__globals__.__builtins__.{run}"
    yield f"{subclasses}[104].__init__.__globals__['sys'].modules['os'].popen('id').read()"
    yield "''|attr('__class__')|attr('__mro__')|attr('__getitem__')(1)|attr('__subclasses__')()"
    yield "''|attr('__cl' ~ 'ass__')|attr('__base__')"
    yield "''|attr('\\x5f\\x5fclass\\x5f\\x5f')"
    yield "''['__class__']['__mro__'][1]['__subclasses__']()"
    yield "'{0.__class__.__mro__[1].__subclasses__}'.format('')"
    yield "'{x.__class__.__base__}'.format_map({'x': 1})"
    yield "('{0.__class__}' | format(1)) ~ ('%s' | format(1)).__class__"
    yield "'{}'.__class__.format('{0.__globals__}', raise_exception)"
    yield "messages | map('attr', '__class__') | list"
    yield "messages | map(attribute='__class__.__base__') | list"
    yield "[raise_exception] | map(attribute='__globals__') | list"
    yield "[raise_exception] | selectattr('__globals__') | list"
    yield "messages | groupby('__class__') | list"
    yield "[''] | sort(attribute='__class__.__mro__')"
    yield "[''] | sum(attribute='__class__', start='')"
    yield "{'a': raise_exception} | dictsort | first | last | attr('__globals__')"
    yield "raise_exception.__code__.co_consts ~ raise_exception.__code__.__class__"
    yield "strftime_now.__func__.__globals__ ~ strftime_now.__self__"
    yield "(1 for x in [1]).gi_frame.f_back.f_globals"
    yield "messages.append.__self__.__class__ ~ [].append.__objclass__"
    yield "[].__reduce_ex__(2)[0].__globals__ ~ ''.__reduce__()"
    yield "dict.__dict__ ~ dict.mro() ~ dict.fromkeys.__self__"
    yield "environment.loader ~ self.environment.globals ~ context.environment"
    yield f"__import__('os').system('id') ~ eval({run!r}) ~ {run}"
    yield "get_flashed_messages.__globals__ ~ url_for.__globals__ ~ config.__class__ ~ request.application.__globals__"


CANARY = "SERIOUSLY_RUN"


async def outcome(renderer: JinjaRenderer, source: str, **variables: Any) -> str:
    """The prompt, or the words of the error."""
    try:
        return await renderer.render(source, **variables)
    except TemplateError as error:
        return error.message


async def test_injected_code_does_not_run(renderer: JinjaRenderer, tmp_path: Path) -> None:
    canary = tmp_path / CANARY
    attempts = list(payloads(f"open({str(canary)!r}, 'w').close()"))
    assert len(attempts) >= 60
    for payload in attempts:
        result = await outcome(renderer, payload, messages=HI)
        assert not re.search(r"uid=\d|<class |<function |<module |<code |<built-in ", result), (payload, result)
        said = [{"role": "user", "content": payload}]
        assert await outcome(renderer, "{{ messages[0].content }}", messages=said) == payload
    assert not canary.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_a_template_that_broke_out_could_open_no_file(tmp_path: Path) -> None:
    canary = tmp_path / CANARY
    code = f"""
from ollama_compat.template import render_child
render_child._load_ahead()
render_child._confine(64 << 20)
harms = [lambda: open({str(canary)!r}, "w"), lambda: open("/etc/passwd")]
harms += [lambda: __import__("socket").socket(), lambda: "x" * (1 << 30)]
for harm in harms:
    try:
        harm()
    except (OSError, ImportError, MemoryError) as error:
        print(type(error).__name__)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert len(result.stdout.split()) == 4, result.stdout + result.stderr
    assert not canary.exists()


# ---------------------------------------------------------------- bombs

BOMBS = [
    "{{ 10 ** (10 ** 7) }}",
    "{{ 10 ** (10 ** 10) }}",
    "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}",
    "{% for i in range(90000) %}{% for j in range(90000) %}x{% endfor %}{% endfor %}",
    "{{ lipsum(n=100000) }}",
    "{{ 'x' * 10000000000 }}",
    "{{ [[0] * 10000] * 10000000 }}",
    "{{ 'x' | center(10000000000) }}",
    "{{ ('x\\n' * 100000) | indent(1000000) }}",
    "{{ '%10000000000d' % 1 }}",
    "{{ '%*d' % (10000000000, 1) }}",
    "{{ '{:>10000000000}'.format('x') }}",
    "{{ '%10000000000d' | format(1) }}",
    "{% set ns = namespace(s='x') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}",
    "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "{{ range(99999) | map('string') | map('center', 100000) | join }}",
    "{{ 'a'.ljust(10000000000) ~ 'a'.zfill(10000000000) }}",
    "{{ 'x' | replace('', 'y' * 16000000) | replace('', 'z' * 16000000) }}",
    "{% set l = [] %}{% for i in range(99999) %}{% set _ = l.append('x' * 9000000) %}{% endfor %}{{ l | join | length }}",
    "{{ ('a' * 999 ~ '!') | wordwrap(1) | urlize | wordcount }}{% for i in range(99999) %}{{ 'a' * 99999 }}{% endfor %}",
    "{{ range(99999) | batch(1, 'x' * 9999999) | list | tojson(indent=9999999) }}",
]


async def test_a_bomb_is_an_error_and_nothing_more() -> None:
    renderer = JinjaRenderer(deadline=0.5)
    for bomb in BOMBS:
        with pytest.raises(TemplateError):
            print(bomb[:80], len(await renderer.render(bomb, messages=HI)))
        assert await renderer.render("{{ messages[0].content }}", messages=HI) == "hi"
    await renderer.close()


async def test_a_slow_template_does_not_stop_others() -> None:
    renderer = JinjaRenderer(deadline=30, children=2)
    slow = asyncio.create_task(renderer.render(BOMBS[2], messages=HI))
    for _ in range(20):
        assert await renderer.render("{{ messages[0].content }}", messages=HI) == "hi"
    assert not slow.done()
    slow.cancel()
    with pytest.raises(asyncio.CancelledError):
        await slow
    await renderer.close()


async def test_a_template_that_was_stopped_waits_for_itself() -> None:
    renderer = JinjaRenderer(deadline=0.3, children=2)
    with pytest.raises(TemplateError, match=r"stopped after 0\.3 s"):
        await renderer.render(BOMBS[2], messages=HI)
    again = [asyncio.create_task(renderer.render(BOMBS[2], messages=HI)) for _ in range(4)]
    await asyncio.sleep(0)
    assert await renderer.render("{{ messages[0].content }}", messages=HI) == "hi"
    results = await asyncio.gather(*again, return_exceptions=True)
    assert all(isinstance(result, TemplateError) for result in results)
    await renderer.close()


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "render_child" in " ".join(child.cmdline())]


async def test_children_are_few_and_end() -> None:
    renderer = JinjaRenderer()
    assert not children()  # nothing starts before it is needed
    prompts = await asyncio.gather(*(renderer.render("{{ messages[0].content }}", messages=HI) for _ in range(50)))
    assert prompts == ["hi"] * 50
    assert 1 <= len(children()) <= 2
    await renderer.close()
    assert not children()
    assert await renderer.render("{{ messages[0].content }}", messages=HI) == "hi"
    await renderer.close()


async def test_one_child_serves_many_who_come_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt takes far less time than the start of another child."""
    monkeypatch.setattr("ollama_compat.template.jinja._PATIENCE", 30.0)
    renderer = JinjaRenderer()
    seen = set()
    for _ in range(3):
        prompts = await asyncio.gather(*(renderer.render("{{ messages[0].content }}", messages=HI) for _ in range(10)))
        assert prompts == ["hi"] * 10
        seen |= {child.pid for child in children()}
    assert len(seen) == 1
    await renderer.close()


async def test_a_child_that_dies_is_replaced(renderer: JinjaRenderer) -> None:
    assert await renderer.render("{{ messages[0].content }}", messages=HI) == "hi"
    (child,) = children()
    child.kill()
    results = [await outcome(renderer, "{{ messages[0].content }}", messages=HI) for _ in range(3)]
    assert results[1:] == ["hi", "hi"]  # the first may come before the death is known


async def test_a_child_ignores_interrupts(renderer: JinjaRenderer) -> None:
    """Ctrl+C goes to all processes of the terminal; this one's parent decides."""
    await renderer.render("x", messages=HI)
    before = children()
    before[0].send_signal(signal.SIGINT)
    assert await renderer.render("{{ messages[0].content }}", messages=HI) == "hi"
    assert children() == before


@pytest.mark.parametrize("busy", [False, True])
def test_children_die_with_their_parent(busy: bool) -> None:
    """Idle ones at once, busy ones by the limit on processor time."""
    code = f"""
import asyncio, os, psutil
from ollama_compat.template.jinja import JinjaRenderer
async def main():
    renderer = JinjaRenderer()
    await renderer.render("x", messages=[])
    print(psutil.Process().children()[0].pid, flush=True)
    if {busy}:
        task = asyncio.create_task(renderer.render({BOMBS[2]!r}, messages=[]))
        await asyncio.sleep(0.1)
    os._exit(0)
asyncio.run(main())
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    pid = int(result.stdout)
    try:
        psutil.Process(pid).wait(20)
    except psutil.NoSuchProcess:
        return
    assert not psutil.pid_exists(pid)


async def test_sizes_are_bounded(renderer: JinjaRenderer) -> None:
    mega = "x" * (1 << 20)
    with pytest.raises(TemplateError, match="longer than 262144 bytes"):
        await renderer.render("x" * 262145, messages=HI)
    with pytest.raises(TemplateError, match="the conversation is longer"):
        await renderer.render("x", messages=[{"role": "user", "content": mega * 33}])
    one = [{"role": "user", "content": mega}]
    with pytest.raises(TemplateError, match="the prompt is too long"):
        await renderer.render("{% for i in range(40) %}{{ messages[0].content }}{% endfor %}", messages=one)
    with pytest.raises(TemplateError) as caught:
        await renderer.render("{{ raise_exception(messages[0].content) }}", messages=one)
    assert len(caught.value.message) == 1000
    long = [{"role": "user", "content": "é" * (1 << 20)}]
    assert await renderer.render("{{ messages[0].content }}", messages=long) == long[0]["content"]


def test_the_child_loads_little() -> None:
    code = "import sys, ollama_compat.template.render_child; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "numba", "aiohttp", "asyncio", "tokenizers", "torch"} & set(loaded)
