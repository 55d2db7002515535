"""What the routes work with: made once by the application, reached through one typed key."""

from __future__ import annotations

import dataclasses

from aiohttp import web

from ollama_compat.metrics import Metrics
from ollama_compat.registry import Registry
from ollama_compat.residency import Residency
from ollama_compat.settings import Settings
from ollama_compat.store import Store
from ollama_compat.template.jinja import JinjaRenderer


@dataclasses.dataclass(frozen=True, slots=True)
class Services:
    """The server's parts. Each owns its own state."""

    settings: Settings
    store: Store
    residency: Residency
    jinja: JinjaRenderer
    metrics: Metrics
    registry: Registry


SERVICES = web.AppKey("services", Services)


def services(request: web.Request) -> Services:
    """The parts of the server that the request came to."""
    return request.app[SERVICES]
