"""Runs the server: binds, says where, and ends in good order."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator

from aiohttp import web

from ollama_compat import golookup, guard, logs
from ollama_compat.app import create_app
from ollama_compat.registry import signing
from ollama_compat.settings import VERSION, Address, Settings

_LOG = logging.getLogger(__name__)

IDLE_SECONDS = 75.0  # a connection that has sent no whole request, or has none under way, is closed after so long
DRAIN_SECONDS = 8.0  # running answers get so long to end after SIGTERM
_MAX_HEADER = 64 << 10  # bytes of a header field, and of the request line
_BACKLOG = 1024


class ListenError(Exception):
    """The address cannot be listened on; the message is Ollama's."""


def serve(settings: Settings) -> None:
    """Serves until SIGINT or SIGTERM. Raises ListenError when the address is taken."""
    logs.configure(settings)
    for warning in settings.warnings:
        _LOG.warning(warning)
    _raise_file_limit()
    signing.ensure(settings.key)
    asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    with contextlib.suppress(NotImplementedError):  # Windows: Ctrl+C arrives as KeyboardInterrupt
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, _stop, stop)
    async with listening(settings):
        await stop.wait()
        _LOG.info("stopping")


def _stop(stop: asyncio.Event) -> None:
    """The first signal lets answers end; a second one does not wait, and the runners end with their pipes."""
    if stop.is_set():
        os._exit(1)
    stop.set()


@contextlib.asynccontextmanager
async def listening(settings: Settings, app: web.Application | None = None) -> AsyncIterator[Address]:
    """The server, answering for as long as the context lasts, and the address that it has."""
    bound = _bind(settings.address)
    runner = web.AppRunner(
        app or create_app(settings),
        handler_cancellation=True,  # a client that goes away ends its request
        auto_decompress=False,  # Ollama's server does not either, and no body can grow on the way in
        keepalive_timeout=IDLE_SECONDS,
        shutdown_timeout=DRAIN_SECONDS,
        max_line_size=_MAX_HEADER,
        max_field_size=_MAX_HEADER,
        access_log=None,  # the application logs its requests itself
    )
    try:
        await runner.setup()
        await web.SockSite(runner, bound, backlog=_BACKLOG).start()
        host, port = bound.getsockname()[:2]
        address = Address("http", host, port)
        _LOG.info("Listening on %s (version %s)", address.url.removeprefix("http://"), VERSION)
        if not guard.is_loopback(host) and not settings.api_keys:
            _LOG.warning("whoever reaches this machine may use and change the models: MOELLAMA_API_KEYS asks for a key")
        yield address
    finally:
        await runner.cleanup()
        bound.close()


def _bind(address: Address) -> socket.socket:
    """A bound socket; for an unspecified IPv6 address, and for no address at all, one for both protocols."""
    host = address.host
    try:
        infos = socket.getaddrinfo(host or None, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ListenError(f"listen tcp: {golookup.failure(host, error)}") from error
    except UnicodeError as error:
        raise ListenError(f"listen tcp: lookup {host}: no such host") from error
    family, kind, protocol, _, sockaddr = infos[0]
    bound = socket.socket(family, kind, protocol)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(sockaddr)
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        reason = "address already in use" if error.errno == errno.EADDRINUSE else (error.strerror or str(error)).lower()
        where = address.url.partition("://")[2].partition("/")[0]
        raise ListenError(f"listen tcp {where}: bind: {reason}") from error
    return bound


def _raise_file_limit() -> None:
    """Every connection is a file; the usual soft limit of 1024 is what a few hundred browsers use up."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
