"""The grammar of an answer that calls tools, in Lark as llguidance reads it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

from runtime import json_schema
from runtime.frames import CallForm
from runtime.json_schema import Schema
from runtime.schema_values import SchemaError

Special = Callable[[str], int | None]
"""The special token that a text is, if it is one."""

_ANY_ARGUMENTS: Schema = {"type": "object"}


def lark(form: CallForm, special: Special, options: Mapping[str, Any]) -> str:
    """The grammar. `options`: llguidance's for JSON. Raises SchemaError where a strict schema cannot be enforced."""
    calls = " | ".join(f"call_{number}" for number in range(len(form.tools)))
    rules = [f"body: GAP ({calls}) GAP {_tag(form.end, special)}", r"GAP: /[ \n]?/"]
    rules += _forced(form, special) if form.forced else _among_text(form, special)
    for number, tool in enumerate(form.tools):
        head = json.dumps(f'{{"name": {json.dumps(tool["name"])}, "arguments": ')
        rules.append(f'call_{number}: {head} arguments_{number} "}}"')
        rules.append(f"arguments_{number}: %json {json.dumps(_schema(tool) | {'x-guidance': dict(options)})}")
    return "\n".join(["%llguidance {}", *rules]) + "\n"


def without_schemas(form: CallForm) -> CallForm:
    """The form in which only strict tools have schemas: what cannot be enforced of the others is not worth an error."""
    tools = [tool if tool["strict"] else tool | {"parameters": None} for tool in form.tools]
    return dataclasses.replace(form, tools=tools)


def _forced(form: CallForm, special: Special) -> list[str]:
    call = f"call: {_tag(form.begin, special)} body"
    return [call, "start: call (GAP call)*" if form.several else "start: call"]


def _among_text(form: CallForm, special: Special) -> list[str]:
    """Any text, until a call begins. A tag that is a special token is no text; one that is text ends it as soon as it stands
    there."""
    start = "start: (opening body)* TEXT" if form.several else "start: opening body GAP | TEXT"
    if special(form.begin) is not None:
        return [start, f"opening: TEXT {_tag(form.begin, special)}", "TEXT: /(?s:.*)/"]
    tag = "".join(letter if letter.isalnum() else f"\\x{{{ord(letter):x}}}" for letter in form.begin)
    return [start, f"opening[lazy]: /(?s:.*){tag}/", f"TEXT: /(?s:.*)/ & ~/(?s:.*){tag}(?s:.*)/"]


def _tag(text: str, special: Special) -> str:
    """A tag: the special token that it is, or its text."""
    token = special(text)
    return json.dumps(text) if token is None and text else f"<[{token}]>" if text else ""


def _schema(tool: Mapping[str, Any]) -> Schema:
    """What the arguments have to conform to; any object where a schema that is not strict cannot be enforced."""
    if not tool["parameters"]:
        return _ANY_ARGUMENTS
    try:
        return json_schema.read(json.dumps({"type": "object"} | tool["parameters"]))
    except SchemaError as error:
        if tool["strict"]:
            raise SchemaError(f"tool {tool['name']!r}: {error}") from None
        return _ANY_ARGUMENTS
