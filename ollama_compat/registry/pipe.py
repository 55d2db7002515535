"""Connections that carry blobs: blocking, each in a thread, because for every byte an event loop costs several times as much."""

from __future__ import annotations

import contextlib
import functools
import http.client
import socket
import ssl
from collections.abc import Mapping

from yarl import URL

from ollama_compat import golookup
from ollama_compat.proxy import proxy_for
from ollama_compat.settings import Address


class Pipes:
    """How connections are made: through which proxies, and after how many seconds without a byte they are given up."""

    def __init__(self, proxies: Mapping[str, str], stall: float) -> None:
        self.proxies, self.stall = proxies, stall

    @functools.cached_property
    def context(self) -> ssl.SSLContext:
        """The certificates that this machine trusts."""
        return ssl.create_default_context()


class Pipe:
    """One connection at a time, used again for the next request to the same host."""

    def __init__(self, pipes: Pipes) -> None:
        self._pipes = pipes
        self._origin: URL | None = None
        self._connection: http.client.HTTPConnection | None = None
        self._is_cut = False

    def get(self, url: URL, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        """The answer to a GET, its body not read yet. Raises OSError or http.client.HTTPException."""
        with golookup.named(url.host or ""):
            return self._get(url, headers)

    def _get(self, url: URL, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        if self._connection is not None and self._origin == url.origin():
            try:
                return self._request(self._connection, url, headers)
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                pass  # it was closed while nothing was asked of it
        self.close()
        self._connection, self._origin = self._connect(url), url.origin()
        return self._request(self._connection, url, headers)

    def _request(self, connection: http.client.HTTPConnection, url: URL, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        proxied = url.scheme == "http" and self._proxy(url) is not None
        connection.request("GET", str(url) if proxied else url.raw_path_qs, headers=dict(headers))
        if self._is_cut:
            raise ConnectionAbortedError("cut")
        return connection.getresponse()

    def _connect(self, url: URL) -> http.client.HTTPConnection:
        assert url.host is not None
        proxy = self._proxy(url)
        host, port = proxy or (url.host, url.port)
        if url.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=self._pipes.stall)
        connection = http.client.HTTPSConnection(host, port, timeout=self._pipes.stall, context=self._pipes.context)
        if proxy:
            connection.set_tunnel(url.host, url.port)
        return connection

    def _proxy(self, url: URL) -> tuple[str, int] | None:
        return proxy_for(Address(url.scheme, url.host or "", url.port or 0), self._pipes.proxies)

    def cut(self) -> None:
        """From another thread: whoever reads or waits gets an error at once."""
        self._is_cut = True
        sock = self._connection.sock if self._connection else None
        if sock is not None:
            with contextlib.suppress(OSError):  # not connected yet, or not any more
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # under any TLS, whose state belongs to the other thread

    def close(self) -> None:
        """Ends the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
