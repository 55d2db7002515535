"""Sends the same odd requests to two servers and prints where their answers differ: `differ.py http://ollama http://moellama`.

Each request is a whole one of its route in which one value, however deep, is missing or another one. Both servers need the model
`--model`; a name that neither has (the default) tries the decoding of requests alone, thousands of them in seconds. Ollama's own
server gives the answers that are right; those that differ on purpose stand in docs/compatibility.md.
"""

from __future__ import annotations

import argparse
import copy
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

_ABSENT = object()
VALUES = (_ABSENT, None, True, 0, 1, -1, 1.5, 1e30, 10**20, "", "x", [], {}, [None], ["x"], [1], [[]], {"a": 1}, [{"type": "x"}])
_TOOL_SCHEMA = {"type": "object", "required": ["a"], "properties": {"a": {"type": "string", "enum": ["a"], "anyOf": [{}]}}}
_FUNCTION = {"name": "f", "description": "d", "parameters": _TOOL_SCHEMA}
_CALL = {"id": "1", "function": {"index": 0, "name": "f", "arguments": {"a": 1}}}
_COMMON: dict[str, Any] = {"stream": False, "keep_alive": "5m", "options": {"temperature": 0, "num_predict": 2}}
_FLAGS = {"think": False, "truncate": True, "shift": True, "logprobs": True, "top_logprobs": 1, "format": "json"}
_TALK = {"role": "user", "content": "x", "thinking": "t", "images": [], "tool_name": "a", "tool_calls": [_CALL]}
_OPENAI = {"role": "user", "content": [{"type": "text", "text": "x"}], "reasoning": "r", "tool_call_id": "a"}
_SAMPLING = {"stream": False, "max_tokens": 2, "seed": 1, "stop": ["x"], "temperature": 0, "top_p": 0.9, "presence_penalty": 0.1}
_ITEM = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}]}
_TEXT = {"format": {"type": "json_schema", "name": "a", "schema": {"type": "object"}}}
BODIES: dict[str, dict[str, Any]] = {
    "/api/generate": {
        "prompt": "x",
        "suffix": "",
        "system": "s",
        "context": [1],
        "raw": False,
        "images": [],
        **_COMMON,
        **_FLAGS,
    },
    "/api/chat": {"messages": [_TALK], "tools": [{"type": "function", "function": _FUNCTION}], **_COMMON, **_FLAGS},
    "/api/embed": {"input": "x", "truncate": True, "dimensions": 3, "keep_alive": "5m", "options": {"temperature": 0}},
    "/api/embeddings": {"prompt": "x", "keep_alive": "5m", "options": {"temperature": 0}},
    "/api/show": {"system": "s", "template": "t", "verbose": False, "options": {"temperature": 0}},
    "/v1/chat/completions": {
        "messages": [_OPENAI],
        "tools": [{"type": "function", "function": _FUNCTION}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}},
        "reasoning_effort": "none",
        **_SAMPLING,
    },
    "/v1/completions": {"prompt": "x", "suffix": "", "logprobs": 0, **_SAMPLING},
    "/v1/embeddings": {"input": "x", "dimensions": 3, "encoding_format": "float"},
    "/v1/responses": {
        "input": [_ITEM],
        "instructions": "i",
        "reasoning": {"effort": "none"},
        "text": _TEXT,
        "max_output_tokens": 2,
    },
    "/v1/messages": {
        "max_tokens": 2,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}],
        "system": "s",
        "stop_sequences": ["a"],
        "tools": [{"name": "f", "description": "d", "input_schema": _TOOL_SCHEMA}],
        "thinking": {"type": "disabled"},
        "metadata": {"user_id": "u"},
    },
}
Path = tuple[str | int, ...]
Answer = tuple[int, str, Any]
_ID = re.compile(r"(chatcmpl-|cmpl-|resp_|msg_|rs_|fc_|req_|call_)\w+|\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:\d\d)")
_TEXTS = ("response", "content", "thinking", "text", "context", "logprobs", "embedding", "embeddings")


def paths(value: Any, at: Path = ()) -> Iterator[Path]:
    """Every place in a JSON value."""
    yield at
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from paths(item, (*at, key))


def put(body: Any, at: Path, value: Any) -> Any:
    """The body with another value at a place, or without it."""
    if not at:
        return value
    body = copy.deepcopy(body)
    parent = body
    for key in at[:-1]:
        parent = parent[key]
    if value is _ABSENT:
        del parent[at[-1]]
    else:
        parent[at[-1]] = value
    return body


def shape(value: Any, key: str = "") -> Any:
    """What of an answer has to be equal: not the text of a model, ids, times and counts."""
    if isinstance(value, dict):
        return {name: shape(item, name) for name, item in value.items()}
    if key in _TEXTS:
        return type(value).__name__
    if isinstance(value, list):
        return [shape(item, key) for item in value]
    return _ID.sub("<id>", value) if isinstance(value, str) else type(value).__name__


def ask(base: str, route: str, body: Any) -> Answer:
    """Status, content type and shape of the answer to a request."""
    request = urllib.request.Request(base + route, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            status, kind, data = response.status, response.headers["Content-Type"], response.read()
    except urllib.error.HTTPError as error:
        status, kind, data = error.code, error.headers["Content-Type"], error.read()
    try:
        return status, kind, shape(json.loads(data))
    except ValueError:
        return status, kind, shape(data.decode("utf-8", "replace")[:200].splitlines())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("servers", nargs=2, metavar="URL")
    parser.add_argument("--model", default="nobody-has-this")
    parser.add_argument("--route", choices=BODIES, action="append", help="all, if none is given")
    args = parser.parse_args()
    for route in args.route or BODIES:
        body = {"model": args.model, **BODIES[route]}
        cases = [(at, value) for at in paths(body) for value in VALUES if at or value is not _ABSENT]
        differing = 0
        for at, value in cases:
            first, second = (ask(base.rstrip("/"), route, put(body, at, value)) for base in args.servers)
            if first != second:
                differing += 1
                shown = "absent" if value is _ABSENT else json.dumps(value)
                print(f"{route} {'.'.join(map(str, at))} = {shown}\n    {first}\n    {second}")
        print(f"{route}: {len(cases)} requests, {differing} answers differ", flush=True)


if __name__ == "__main__":
    main()
