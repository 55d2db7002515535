"""What a registry or the way to it does wrong, in the words of Ollama, whose client library is Go's."""

from __future__ import annotations

import errno
import re
import ssl

import aiohttp

from ollama_compat import golookup
from ollama_compat.duration import quote
from ollama_compat.errors import InternalError

_PEER = re.compile(r"\('([^']+)', (\d+)")  # how asyncio names the address in the text of a failed connection
_DIAL = {
    errno.ECONNREFUSED: "connection refused",
    errno.EHOSTUNREACH: "no route to host",
    errno.ENETUNREACH: "network is unreachable",
    errno.ETIMEDOUT: "connection timed out",
}
_PLAIN = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")  # what OpenSSL says to an answer without TLS


class RegistryError(InternalError):
    """A pull or push that cannot go on; the message is what the client is told."""


class NotFound(RegistryError):
    """The registry has no such thing."""

    def __init__(self) -> None:
        super().__init__("file does not exist")


class Unauthorized(RegistryError):
    """The registry refused the token that it gave."""

    def __init__(self) -> None:
        super().__init__("unauthorized: access denied")


class Refused(RegistryError):
    """The registry answered with a status of 400 or above."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"{status}: {body}")
        self.answer = status
        self.body_text = body


class Unreachable(RegistryError):
    """No answer came, or it broke off."""

    def __init__(self, method: str, url: str, error: BaseException) -> None:
        super().__init__(f"{method.capitalize()} {quote(url)}: {words(error)}")


class Mismatch(RegistryError):
    """The bytes that came are not those that the digest promised."""

    def __init__(self, wanted: str, got: str) -> None:
        super().__init__(f"digest mismatch, file must be downloaded again: want {wanted}, got {got}")


def words(error: BaseException) -> str:
    """A failure of the network as Go tells it."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"dial tcp: {golookup.failure(error.host, error.os_error)}"
    if isinstance(error, aiohttp.InvalidUrlClientError):  # numbers that are no address
        return f"dial tcp: lookup {error.url}: no such host"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"tls: failed to verify certificate: x509: {_reason(error.certificate_error)}"
    if isinstance(error, aiohttp.ClientConnectorSSLError | ssl.SSLError):
        return _tls(error)
    if isinstance(error, aiohttp.ClientConnectorError):
        return _dial(error)
    if isinstance(error, TimeoutError):
        return "context deadline exceeded"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "EOF"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "unexpected EOF"
    if isinstance(error, aiohttp.TooManyRedirects):
        return "stopped after 10 redirects"
    if isinstance(error, ConnectionResetError) or getattr(error, "errno", None) == errno.ECONNRESET:
        return "read: connection reset by peer"
    return str(error) or type(error).__name__


def _dial(error: aiohttp.ClientConnectorError) -> str:
    found = _PEER.search(str(error.os_error))
    host, port = found.groups() if found else (error.host, error.port)
    host = f"[{host}]" if ":" in host else host
    reason = _DIAL.get(error.os_error.errno or 0) or (error.os_error.strerror or str(error.os_error)).lower()
    return f"dial tcp {host}:{port}: connect: {reason}"


def _tls(error: BaseException) -> str:
    text = str(error)
    if any(word in text for word in _PLAIN):
        return "http: server gave HTTP response to HTTPS client"
    return f"tls: {text}"


def _reason(error: BaseException) -> str:
    message: str = getattr(error, "verify_message", "") or str(error)
    if message in ("self-signed certificate", "unable to get local issuer certificate") or "self-signed" in message:
        return "certificate signed by unknown authority"
    return message
