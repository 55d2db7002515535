"""The log, and the lines about requests in it."""

from __future__ import annotations

import json
import logging
import re
from typing import Any

import pytest

from ollama_compat import duration, logs, request_log


def records(caplog: pytest.LogCaptureFixture, path: str) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == request_log.__name__ and path in record.getMessage()]


async def test_a_line_as_ollama_writes_it(live: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await live.ask("GET", '/api/tags?x="1"')
    await live.ask("POST", "/api/show", json={"model": "nope"})
    tags, show = (logs.Lines().format(records(caplog, path)[0]) for path in ("/api/tags", "/api/show"))
    begin = r"\[GIN\] \d{4}/\d\d/\d\d - \d\d:\d\d:\d\d \| 200 \| +[0-9.]+(µs|ms|s)"
    end = r'127\.0\.0\.1 \| GET      "/api/tags\?x=.*"'
    assert re.fullmatch(rf"{begin} \|       {end}", tags)
    assert re.search(r'\| 404 \| .* \| POST     "/api/show"$', show)


async def test_a_line_for_programs(live: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await live.post("/api/generate", model="demo-moe", prompt="say(one two)", raw=True)
    found = json.loads(logs.JsonLines().format(records(caplog, "/api/generate")[0]))
    moment, seconds = found.pop("time"), found.pop("seconds")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", moment)
    assert seconds > 0
    assert found == {
        "level": "info",
        "logger": "ollama_compat.request_log",
        "message": "request",
        "status": 200,
        "client": "127.0.0.1",
        "method": "POST",
        "path": "/api/generate",
        "model": "demo-moe:latest",
        "prompt_tokens": 2,
        "eval_tokens": 2,
    }


def record(message: str, **more: Any) -> logging.LogRecord:
    return logging.LogRecord("part", logging.WARNING, "", 0, message, (), more.get("exc_info"))


def test_other_lines() -> None:
    assert logs.Lines().format(record("a thing")).endswith(" WARNING part: a thing")
    found = json.loads(logs.JsonLines().format(record('a "thing"\n')))
    assert (found["level"], found["logger"], found["message"]) == ("warning", "part", 'a "thing"\n')


def test_a_traceback_stays_on_its_line() -> None:
    try:
        raise ValueError("why")
    except ValueError as error:
        text = logs.JsonLines().format(record("failed", exc_info=(type(error), error, error.__traceback__)))
    assert "\n" not in text
    assert "ValueError: why" in json.loads(text)["traceback"]


async def test_long_times_are_cut_to_seconds(live: Any, caplog: pytest.LogCaptureFixture) -> None:
    from aiohttp.test_utils import make_mocked_request

    caplog.set_level(logging.INFO)
    request_log.line(make_mocked_request("GET", "/long"), 200, 61 * duration.SECOND + 5, request_log.Note())
    assert " 1m1s |" in records(caplog, "/long")[0].getMessage()
