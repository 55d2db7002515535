"""The HTTP application: routes, the rules that apply to all of them, and the answers where there is no route."""

from __future__ import annotations

import asyncio
import html
import logging
import posixpath
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import hdrs, web

from ollama_compat import guard, keys, request_log, wire
from ollama_compat.anthropic import reply as anthropic_reply
from ollama_compat.errors import ApiError, BadRequest
from ollama_compat.metrics import Metrics
from ollama_compat.openai import common as openai_common
from ollama_compat.registry import Registry
from ollama_compat.residency import Residency
from ollama_compat.routes import anthropic, beside, chat, embed, generate, meta, models, openai, rerank, tokens
from ollama_compat.services import SERVICES, Services
from ollama_compat.settings import Settings
from ollama_compat.store import Store
from ollama_compat.store.company import Presence, ollama_runs
from ollama_compat.store.prune import prune
from ollama_compat.template.jinja import JinjaRenderer

_LOG = logging.getLogger(__name__)

_HEADERS = web.RequestKey("headers", list[tuple[str, str]])  # what _finish_headers adds to the answer
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def create_app(settings: Settings, residency: Residency | None = None) -> web.Application:
    """The application, ready to be served. `residency` may be given for tests."""
    app = web.Application(
        client_max_size=wire.MAX_JSON,
        middlewares=[_observe, _paths, _allowed_methods, _origins, _hosts, _errors, _keys],  # the outermost first
    )
    store = Store(settings.models, go_template=settings.go_template, no_prune=settings.no_prune)
    registry = Registry(store, settings.key, settings.proxies)
    app[SERVICES] = Services(settings, store, residency or Residency(settings), JinjaRenderer(), Metrics(), registry)
    for routes in (meta, models, generate, chat, embed, openai, anthropic, tokens, rerank, beside):
        app.router.add_routes(routes.ROUTES)
    app.on_response_prepare.append(_finish_headers)
    app.cleanup_ctx.append(_sweep)
    app.cleanup_ctx.append(_end_children)
    return app


async def _sweep(app: web.Application) -> AsyncIterator[None]:
    """Shows other servers that the store is in use, and removes what earlier runs have left in it, beside the first requests."""
    services = app[SERVICES]
    try:
        presence = Presence(services.store.blobs.own)
    except OSError as error:
        _LOG.warning("the store cannot be marked as in use, so it is not swept: %s", error)
        yield
        return
    own = services.settings.address
    is_alone = lambda: presence.is_alone() and not ollama_runs(own)  # noqa: E731
    sweep = asyncio.create_task(asyncio.to_thread(_prune, services.store, is_alone))
    yield
    await sweep
    presence.leave()


def _prune(store: Store, is_alone: Callable[[], bool]) -> None:
    try:
        prune(store, is_alone)
    except OSError as error:
        _LOG.warning("the store cannot be swept: %s", error)


async def _end_children(app: web.Application) -> AsyncIterator[None]:
    """Runners, template processes and connections end with the application."""
    yield
    await app[SERVICES].residency.close()
    await app[SERVICES].jinja.close()
    await app[SERVICES].registry.close()


async def _finish_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Adds what the middlewares want every answer to have, and takes away what tells versions of Python and aiohttp."""
    response.headers.pop(hdrs.SERVER, None)
    if isinstance(response, web.Response) and not response.body:
        response.headers.pop(hdrs.CONTENT_TYPE, None)
    response.headers.extend(request.get(_HEADERS, []))
    if truncated := request_log.note().truncated():
        response.headers["X-Moellama-Truncated"] = truncated


# ---------------------------------------------------------------- middlewares


@web.middleware
async def _observe(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Counts and logs every request, one whose client leaves too."""
    metrics = request.app[SERVICES].metrics
    started_ns, status, about = time.perf_counter_ns(), request_log.CLIENT_GONE, request_log.Note()
    request_log.NOTE.set(about)
    metrics.in_progress.inc()
    try:
        response = await handler(request)
        status = response.status
        return response
    finally:
        metrics.in_progress.dec()
        taken_ns = time.perf_counter_ns() - started_ns
        resource = request.match_info.route.resource
        metrics.answered(resource.canonical if resource else "unknown", status, taken_ns / 1e9)
        request_log.line(request, status, taken_ns, about)


@web.middleware
async def _paths(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Redirects a path that is not written as its route is: doubled slashes, dots, a slash at the end."""
    path = request.rel_url.raw_path
    clean = _clean(path)
    if clean != path:
        return _redirect(request, clean, 307)
    if request.match_info.http_exception is not None and path != "/" and path.endswith("/"):
        resolved = await request.app.router.resolve(request.clone(rel_url=path[:-1]))
        if resolved.http_exception is None:
            return _redirect(request, path[:-1], 301 if request.method == hdrs.METH_GET else 307)
    return await handler(request)


def _clean(path: str) -> str:
    if "//" not in path and "/." not in path:
        return path
    clean = posixpath.normpath("/" + path.lstrip("/"))
    return clean + "/" if path.endswith("/") and clean != "/" else clean


def _redirect(request: web.Request, path: str, status: int) -> web.Response:
    location = path + (f"?{request.rel_url.raw_query_string}" if request.rel_url.raw_query_string else "")
    if request.method != hdrs.METH_GET:
        return web.Response(status=status, headers={"Location": location, "Content-Length": "0"})
    reason = "Moved Permanently" if status == 301 else "Temporary Redirect"
    text = f'<a href="{html.escape(location)}">{reason}</a>.\n\n'
    return web.Response(text=text, status=status, content_type="text/html", headers={"Location": location})


@web.middleware
async def _allowed_methods(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every answer to a wrong method, a refusal too, names the right ones."""
    wrong = request.match_info.http_exception
    if isinstance(wrong, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(wrong.allowed_methods, key=("HEAD", "GET", "POST", "DELETE").index))
        _add_headers(request, ("Allow", allowed))
    return await handler(request)


@web.middleware
async def _origins(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Cross-origin rules: a page that is not allowed gets 403 before anything happens."""
    origin = request.headers.get(hdrs.ORIGIN, "")
    patterns = request.app[SERVICES].settings.origins
    if not origin or guard.same_origin(origin, request.headers.get(hdrs.HOST, "")):
        return await handler(request)
    if not guard.allowed_origin(origin, patterns):
        return wire.empty_response(403)
    anyone = "*" in patterns
    preflight = request.method == hdrs.METH_OPTIONS
    vary = () if anyone else guard.PREFLIGHT_VARY if preflight else ("Origin",)
    allow = (hdrs.ACCESS_CONTROL_ALLOW_ORIGIN, "*" if anyone else origin)
    _add_headers(request, allow, *((hdrs.VARY, name) for name in vary))
    if not preflight:
        return await handler(request)
    _add_headers(request, *guard.PREFLIGHT_HEADERS.items())
    return wire.empty_response(204)


def _add_headers(request: web.Request, *headers: tuple[str, str]) -> None:
    request[_HEADERS] = [*request.get(_HEADERS, []), *headers]


@web.middleware
async def _hosts(request: web.Request, handler: Handler) -> web.StreamResponse:
    """On the loopback only names that mean this machine are served, or a page could rebind its own name to it."""
    host = request.headers.get(hdrs.HOST, "")  # one there is: aiohttp refuses requests with none or several
    if not guard.is_loopback(request.app[SERVICES].settings.address.host) or guard.allowed_address(host):
        return await handler(request)
    if not guard.allowed_name(host):
        return wire.empty_response(403)
    return wire.empty_response(204) if request.method == hdrs.METH_OPTIONS else await handler(request)


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns exceptions into Ollama's answers: here every bug becomes a 500."""
    try:
        return await handler(request)
    except web.HTTPNotFound:
        return wire.text_response("404 page not found", 404)
    except web.HTTPMethodNotAllowed:
        return wire.text_response("405 method not allowed", 405)
    except web.HTTPException:
        raise
    except ConnectionError:
        raise  # the client is gone
    except RecursionError:  # where Go's stack would grow
        return wire.error_response(BadRequest("exceeded max depth"), envelope=request.get(wire.ENVELOPE))
    except Exception as error:  # a request may break nothing but itself
        return wire.error_response(error, envelope=request.get(wire.ENVELOPE))


@web.middleware
async def _keys(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Where keys are set, a request without one is refused in the words of its dialect."""
    expected = request.app[SERVICES].settings.api_keys
    resource = request.match_info.route.resource  # what will answer, however the request writes its path
    if expected and not keys.allowed(resource.canonical if resource else "", request.headers, expected):
        if request.path.startswith("/v1/messages"):
            request[wire.ENVELOPE] = anthropic_reply.envelope
        elif request.path.startswith("/v1/"):
            request[wire.ENVELOPE] = openai_common.envelope
        raise ApiError(401, "unauthorized: this server asks for an API key")
    return await handler(request)
