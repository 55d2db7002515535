"""A small blocking HTTP client for the Ollama API: one connection a call, answers as JSON objects, streams line by line."""

from __future__ import annotations

import dataclasses
import http.client
import json
import os
import re
import socket
import ssl
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import quote as quote_url

from ollama_compat.cli.errors import CommandError, SignInNeeded, StatusError, Unreachable
from ollama_compat.duration import quote
from ollama_compat.proxy import proxy_for
from ollama_compat.settings import VERSION, Address

NOT_RUNNING = "could not connect to ollama server, run 'ollama serve' to start it"
CONNECT_SECONDS = 30
MAX_LINE = 8_000_000  # bytes of one streamed line
_CHUNK = 1 << 16


class Client:
    """Talks to the server at one address. Every method raises a CommandError in Ollama's words when it fails."""

    def __init__(self, address: Address, proxies: Mapping[str, str] | None = None, api_key: str = "") -> None:
        self.address = address
        self._key = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._proxy = proxy_for(address, proxies or {})

    def heartbeat(self) -> None:
        """Raises when no server answers."""
        try:
            self.call("HEAD", "/")
        except Unreachable as error:
            if error.refused:
                raise Unreachable(NOT_RUNNING, refused=True) from error
            raise

    def version(self) -> str:
        """The server's version."""
        return str(self._object("GET", "/api/version").get("version", ""))

    def models(self) -> list[dict[str, Any]]:
        """GET /api/tags."""
        return list(self._object("GET", "/api/tags").get("models") or [])

    def running(self) -> list[dict[str, Any]]:
        """GET /api/ps."""
        return list(self._object("GET", "/api/ps").get("models") or [])

    def loading(self) -> dict[str, Any] | None:
        """The load in progress: phase, completed, total. A route of this server alone."""
        loading: dict[str, Any] | None = self._object("GET", "/api/moellama/loading").get("loading")
        return loading

    def show(self, model: str, **fields: Any) -> dict[str, Any]:
        """POST /api/show; `fields` are verbose, system, options."""
        return self._object("POST", "/api/show", {"model": model, **fields})

    def copy(self, source: str, destination: str) -> None:
        """POST /api/copy."""
        self.call("POST", "/api/copy", {"source": source, "destination": destination})

    def delete(self, model: str) -> None:
        """DELETE /api/delete."""
        self.call("DELETE", "/api/delete", {"model": model})

    def embed(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """POST /api/embed."""
        return self._object("POST", "/api/embed", body)

    def whoami(self) -> dict[str, Any]:
        """POST /api/me; SignInNeeded without an account."""
        return self._object("POST", "/api/me")

    def sign_out(self) -> None:
        """POST /api/signout."""
        self.call("POST", "/api/signout")

    def has_blob(self, digest: str) -> bool:
        """Whether the server has the file `sha256:<hex>`."""
        try:
            self.call("HEAD", f"/api/blobs/{digest}")
        except StatusError as error:
            if error.status == 404:
                return False
            raise
        return True

    def send_blob(self, digest: str, path: Path, sent: Callable[[int], None]) -> None:
        """POST a file; `sent` is told of each chunk's bytes."""
        with path.open("rb") as file:
            self.call("POST", f"/api/blobs/{digest}", file=_Counted(file, path.stat().st_size, sent))

    def call(self, method: str, path: str, body: Any = None, *, file: _Counted | None = None) -> Any:
        """One answer: its JSON value, None when it is empty."""
        data = None if body is None else encode(body)
        connection, response = self._open(method, path, data, "application/json", file)
        try:
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(_cause(error)) from error
        finally:
            response.close()
            connection.close()
        if response.status >= 400:
            raise _refusal(response.status, answer)
        return decode(answer) if answer else None

    def stream(self, path: str, body: Any) -> Generator[dict[str, Any], None, None]:
        """POST; the answer's lines as objects. Closing the iterator closes the connection, which stops the server's work."""
        connection, response = self._open("POST", path, encode(body), "application/x-ndjson")
        try:
            for line in _lines(response):
                yield _checked(line, response)
        finally:
            response.close()
            connection.close()

    def _object(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        answer = self.call(method, path, body)
        return answer if isinstance(answer, dict) else {}

    def _url(self, path: str) -> str:
        return dataclasses.replace(self.address, host=_escaped(self.address.host)).url.rstrip("/") + path

    def _open(
        self, method: str, path: str, body: bytes | None, accept: str, file: _Counted | None = None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        url = self._url(path)
        if escape := re.search("%(?!25)[0-7][0-9A-F]", _escaped(self.address.host)):
            raise Unreachable(f"parse {quote(url)}: invalid URL escape {quote(escape[0])}")
        if self.address.scheme not in ("http", "https"):
            raise Unreachable(f"{method.capitalize()} {quote(url)}: unsupported protocol scheme {quote(self.address.scheme)}")
        headers = {"Content-Type": "application/json", "Accept": accept, "User-Agent": _user_agent(), **self._key}
        connection = self._connection()
        try:
            if file is not None:
                headers["Content-Length"] = str(file.size)
            return connection, self._exchange(connection, method, path, body if file is None else file, headers)
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            connection.close()
            refused = isinstance(error, ConnectionRefusedError)
            raise Unreachable(f"{method.capitalize()} {quote(url)}: {self._failure(error)}", refused=refused) from error

    def _exchange(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: Any, headers: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        target = f"/{self.address.path.strip('/')}{path}" if self.address.path.strip("/") else path
        if self._proxy and self.address.scheme == "http":
            target = self._url(path)
        connection.connect()
        connection.sock.settimeout(None)  # a model may think for long before its first byte
        try:
            connection.request(method, target, body, headers)
        except (BrokenPipeError, ConnectionResetError):
            return connection.getresponse()  # it refuses the body: why, it may have said
        return connection.getresponse()

    def _connection(self) -> http.client.HTTPConnection:
        secure = self.address.scheme == "https"
        host, port = self._proxy or (self.address.host or "localhost", self.address.port)
        if not secure:
            return http.client.HTTPConnection(host, port, timeout=CONNECT_SECONDS, blocksize=1 << 20)
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(host, port, timeout=CONNECT_SECONDS, blocksize=1 << 20, context=context)
        if self._proxy:
            connection.set_tunnel(self.address.host, self.address.port)
        return connection

    def _failure(self, error: Exception) -> str:
        """Go's words for why a connection came to nothing."""
        where = f"{self.address.host}:{self.address.port}"
        if isinstance(error, socket.gaierror | UnicodeError):
            from ollama_compat import golookup  # only here, few commands need it

            host = self.address.host
            if isinstance(error, UnicodeError):
                error = golookup.NoName(host)
            elif not host.isascii():
                host = host.encode("idna").decode()
            return f"dial tcp: {golookup.failure(host, error)}"
        if isinstance(error, TimeoutError):
            return f"dial tcp {where}: i/o timeout"
        if isinstance(error, (ssl.SSLError, http.client.HTTPException, ConnectionResetError)):
            return _cause(error)
        return f"dial tcp {where}: connect: {_cause(error)}"


class _Counted:
    """A file whose reading is reported."""

    def __init__(self, file: BinaryIO, size: int, sent: Callable[[int], None]) -> None:
        self._file, self.size, self._sent = file, size, sent

    def read(self, count: int = -1) -> bytes:
        data = self._file.read(count)
        self._sent(len(data))
        return data


def encode(body: Any) -> bytes:
    """JSON in UTF-8; CommandError for numbers that JSON cannot write."""
    try:
        return encode_text(json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")))
    except ValueError as error:
        raise CommandError("json: unsupported value: not a finite number") from error


def encode_text(text: str) -> bytes:
    """UTF-8; bytes of arguments that are no UTF-8 become U+FFFD, as in Go."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace").encode()


def decode(data: bytes) -> Any:
    """A JSON value; CommandError in Go's words when it is none."""
    try:
        return json.loads(data)
    except ValueError as error:
        raise CommandError(_json_fault(data) or str(error)) from error


def _json_fault(data: bytes) -> str:
    """What Go says about text that is no JSON; empty when it is JSON."""
    from ollama_compat import gojson  # only here, it is slow to import

    try:
        gojson.loads(data)
    except (gojson.SyntaxFault, gojson.NoBody) as error:
        text = str(error)
        return text if text and text != "unexpected EOF" else "unexpected end of JSON input"
    return ""


def _user_agent() -> str:
    machine = os.uname().machine if hasattr(os, "uname") else "unknown"
    return f"ollama/{VERSION} ({machine} {sys.platform}) Python/{sys.version_info.major}.{sys.version_info.minor}"


def _lines(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """Lines without their ends, as soon as each is whole; empty ones are skipped."""
    pending = b""
    try:
        while chunk := response.read1(_CHUNK):
            *whole, pending = (pending + chunk).split(b"\n")
            yield from (line for line in whole if line.strip())
            if len(pending) > MAX_LINE:
                raise CommandError("bufio.Scanner: token too long")
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(_cause(error)) from error
    if response.length:
        raise Unreachable("unexpected EOF")
    if pending.strip():
        yield pending


def _checked(line: bytes, response: http.client.HTTPResponse) -> dict[str, Any]:
    """A streamed object; its `error`, or a bad status, raised."""
    failed = response.status >= 400
    status = f"{response.status} {response.reason}"
    try:
        answer = json.loads(line)
    except ValueError:
        text = line.decode("utf-8", "replace")
        raise (StatusError(response.status, f"{status}: {text}") if failed else CommandError(text)) from None
    answer = answer if isinstance(answer, dict) else {}
    error = str(answer.get("error") or "")
    if response.status == 401:
        raise SignInNeeded(status, str(answer.get("signin_url") or ""))
    if failed:
        raise StatusError(response.status, f"{status}: {error}" if error else status)
    if error:
        raise CommandError(error)
    return cast("dict[str, Any]", answer)


def _refusal(status: int, answer: bytes) -> StatusError:
    """The error of an answer that is not streamed."""
    try:
        body = json.loads(answer)
    except ValueError:
        body = None
    if status == 401:
        body = body if isinstance(body, dict) else {}
        url = str(body.get("signin_url") or "")
        return SignInNeeded("" if url else str(body.get("error") or ""), url)
    if isinstance(body, dict) and isinstance(body.get("error", ""), str):
        return StatusError(status, body.get("error", ""))
    return StatusError(status, answer.decode("utf-8", "replace"))


_KEPT = "-_.~!$&'()*+,;=:[]<>\""  # by Go in hosts, beside letters and digits


def _escaped(host: str) -> str:
    """The host as Go writes it in a URL."""
    return quote_url(host, safe=_KEPT)


def _cause(error: Exception) -> str:
    """Go's word for what broke."""
    if isinstance(error, http.client.RemoteDisconnected):
        return "EOF"
    if isinstance(error, http.client.IncompleteRead):
        return "unexpected EOF"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"tls: failed to verify certificate: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return "http: server gave HTTP response to HTTPS client" if _plain_answer(error) else f"tls: {error.reason or error}"
    if isinstance(error, http.client.BadStatusLine):
        return f'malformed HTTP response "{error}"'
    if isinstance(error, OSError):
        return (error.strerror or str(error)).lower()
    return str(error) or type(error).__name__


def _plain_answer(error: ssl.SSLError) -> bool:
    """Whether the other side spoke plain HTTP where TLS was expected."""
    return error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")
