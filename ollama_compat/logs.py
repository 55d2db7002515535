"""The log: lines for people, or one JSON object a line for programs."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

from ollama_compat import duration
from ollama_compat.settings import Settings

FIELDS = "fields"  # of a record: what it tells beside its message; the message alone is the line then


def configure(settings: Settings) -> None:
    """Logs to stderr, one line an event; more of it with OLLAMA_DEBUG."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if settings.log_json else Lines())
    logging.basicConfig(level=logging.DEBUG if settings.debug else logging.INFO, handlers=[handler])
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # malformed requests, with tracebacks; our faults we log


class Lines(logging.Formatter):
    """Time, level, module and message; lines about requests have a form of their own."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        return record.getMessage() if hasattr(record, FIELDS) else super().format(record)


class JsonLines(logging.Formatter):
    """One object a line: time, level, logger, message or the fields of a request, and the traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": duration.utc(int(record.created * duration.SECOND)),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        line |= getattr(record, FIELDS, None) or {"message": record.getMessage()}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
