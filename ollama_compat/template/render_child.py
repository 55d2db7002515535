"""The process in which Jinja templates run: `python -m ollama_compat.template.render_child MEMORY_BYTES CPU_SECONDS`.

A template comes with a model file and is somebody else's program, so it runs in a sandbox, in a process that can open
nothing and whose memory is bounded; the parent kills the process when it takes too long. A message on stdin or stdout is
a little-endian u32 length and one JSON object. The first one sent is `{}`: ready. Then each request

    {source, messages, tools, add_generation_prompt, bos_token, eos_token, strip_bos, strip_eos, variables}

is answered by {"text": the prompt} or by {"error": one line}, with "spent": true when this process should not be used again.
Ends when stdin does.
"""

from __future__ import annotations

import codecs
import dataclasses
import importlib
import signal
import struct
import sys
import time
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, BinaryIO

import jinja2
import orjson

from ollama_compat.template import conversation, sandbox

MAX_MESSAGE = 64 << 20  # bytes of a request or a reply
_MAX_ERROR = 1000  # characters
_TEMPLATES = 8  # compiled ones that are kept
_LENGTH = struct.Struct("<I")


class _TooLong(Exception):
    pass


@dataclasses.dataclass(frozen=True, slots=True)
class _Compiled:
    template: jinja2.Template
    capabilities: conversation.Capabilities


class Renderer:
    """Answers requests; keeps the templates it compiled last."""

    def __init__(self) -> None:
        self._environment = sandbox.environment()
        self._compiled: OrderedDict[str, _Compiled] = OrderedDict()

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply to a request."""
        try:
            return {"text": self._prompt(request)}
        except conversation.ConversationError as error:
            return {"error": str(error)}
        except MemoryError:
            return {"error": "chat template: out of memory", "spent": True}
        except Exception as error:  # whatever somebody else's program raises is its own failure
            return {"error": _describe(error)}

    def _prompt(self, request: dict[str, Any]) -> str:
        compiled = self._compile(request["source"])
        messages = conversation.adapt(request["source"], compiled.capabilities, request["messages"])
        messages, prefill = conversation.split_prefill(messages) if request["add_generation_prompt"] else (messages, None)
        variables = _variables(request)
        if prefill is None:
            return _strip(_render(compiled.template, messages, **variables), request)
        without_prompt = variables | {"add_generation_prompt": False}
        without = _render(compiled.template, messages, **without_prompt)
        with_prompt = _render(compiled.template, messages, **variables)
        answered = _prober(compiled.template)([*messages, conversation.answer(compiled.capabilities)], **without_prompt) or ""
        return _strip(without, request) + conversation.continuation(
            compiled.capabilities, without, with_prompt, answered, prefill
        )

    def _compile(self, source: str) -> _Compiled:
        if source not in self._compiled:
            template = self._environment.from_string(source)
            self._compiled[source] = _Compiled(template, conversation.probe(source, _prober(template)))
        self._compiled.move_to_end(source)
        while len(self._compiled) > _TEMPLATES:
            self._compiled.popitem(last=False)
        return self._compiled[source]


def _prober(template: jinja2.Template) -> conversation.Render:
    def render(messages: list[conversation.Message], **variables: Any) -> str | None:
        common: dict[str, Any] = {"tools": [], "bos_token": "", "eos_token": "", "add_generation_prompt": True}
        try:
            return _render(template, messages, **common | variables)
        except MemoryError:
            raise
        except Exception:  # this probe's conversation is not for this template, in whichever way it said so
            return None

    return render


def _variables(request: dict[str, Any]) -> dict[str, Any]:
    """The template's variables besides `messages`; absent ones stay undefined, as templates test for that."""
    variables = conversation.dates() | {"bos_token": request["bos_token"], "eos_token": request["eos_token"]}
    variables |= request["variables"]
    if effort := variables.get("reasoning_effort"):
        variables.setdefault("reasoning_strength", effort)
    if request["tools"]:
        variables["tools"] = conversation.functions(request["tools"])
    if request["add_generation_prompt"]:
        variables["add_generation_prompt"] = True
    return variables


def _render(template: jinja2.Template, messages: list[conversation.Message], **variables: Any) -> str:
    return "".join(_bounded(template.generate(messages=messages, **variables)))


def _bounded(pieces: Iterator[str]) -> Iterator[str]:
    length = 0
    for piece in pieces:
        length += len(piece)
        if length > MAX_MESSAGE // 4:  # in UTF-8 and in JSON a character may take four bytes
            raise _TooLong
        yield piece


def _strip(prompt: str, request: dict[str, Any]) -> str:
    """The prompt without the BOS and EOS that the tokenizer adds by itself."""
    if request["strip_bos"]:
        prompt = prompt.removeprefix(request["bos_token"])
    if request["strip_eos"]:
        prompt = prompt.removesuffix(request["eos_token"])
    return prompt


def _describe(error: Exception) -> str:
    """One line about a failure, in the template's words where it has some."""
    if isinstance(error, sandbox.Refusal):
        text = str(error)
    elif isinstance(error, jinja2.TemplateSyntaxError):
        text = f"chat template, line {error.lineno}: {error.message}"
    elif isinstance(error, _TooLong):
        text = "chat template: the prompt is too long"
    elif isinstance(error, jinja2.TemplateError):
        text = f"chat template: {error.message}"
    else:
        text = f"chat template: {type(error).__name__}: {error}"
    return text[:_MAX_ERROR].encode("utf-8", "replace").decode()


# ---------------------------------------------------------------- the process


def _load_ahead() -> None:
    """Loads what jinja2 and Python load at its first use, since no file can be opened then."""
    for module in ("jinja2.debug", "pprint", "textwrap", "unicodedata"):
        importlib.import_module(module)
    codecs.lookup("unicode_escape")  # escapes in a template's strings
    conversation.dates()  # the time zone


def _confine(memory: int) -> None:
    """From here on no file can be opened or written, and `memory` bytes of address space may be added."""
    try:
        import resource
    except ImportError:  # not a POSIX system: the parent's deadline alone has to do
        return
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:
            used = int(statm.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))
    except FileNotFoundError:  # no /proc, no way to tell how much is in use
        pass
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))


def _limit_processor_time(seconds: int) -> None:
    """The kernel kills this process after `seconds` more of processor time, even when the parent is gone."""
    try:
        import resource
    except ImportError:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + 1 + seconds, hard))


def _read(stream: BinaryIO) -> dict[str, Any] | None:
    prefix = stream.read(_LENGTH.size)
    if len(prefix) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(prefix)
    body = stream.read(length)
    if len(body) < length:
        return None
    request: dict[str, Any] = orjson.loads(body)
    return request


def _write(stream: BinaryIO, reply: dict[str, Any]) -> None:
    try:
        body = orjson.dumps(reply)
    except orjson.JSONEncodeError:  # a template can write half of a surrogate pair
        body = orjson.dumps({"error": "chat template: the prompt is not valid Unicode"})
    stream.write(_LENGTH.pack(len(body)) + body)
    stream.flush()


def main(memory: int, processor_seconds: int) -> None:
    """Serves requests from stdin until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is for the parent, which then closes stdin
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    renderer = Renderer()
    _load_ahead()
    _confine(memory)
    _write(replies, {})
    while (request := _read(requests)) is not None:
        _limit_processor_time(processor_seconds)
        reply = renderer.answer(request)
        _write(replies, reply)
        if reply.get("spent"):
            return


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
