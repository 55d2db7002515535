"""What Go says of a host name that cannot be resolved. Of its two resolvers one names the server that it asked, the other cannot.

The rules are those of Go's package net for Linux (conf.go, nss.go, dnsconfig_unix.go, dnsclient_unix.go), but for the variables
that libc obeys, and for a server that never answers.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import re
import socket
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/")
_PORT = 53
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DOMAIN = re.compile(rf"(?=.*[A-Za-z_-])(?=.{{1,253}}\.?$){_LABEL}(?:\.{_LABEL})*\.?")
_KEYWORDS = ("nameserver", "domain", "search", "options", "lookup")
_OPTIONS = re.compile(
    r"(?:ndots|timeout|attempts):.*|rotate|single-request|single-request-reopen|use-?vc|tcp|trust-ad|edns0|no-reload"
)
_SOURCE = re.compile(r"([^ ]+)(?:\s*\[([^\]]*)\])?")
_LOCAL = re.compile(r"(?:.*\.)?localhost(?:\.localdomain)?|_gateway|_outbound", re.IGNORECASE)
_NOBODY = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))


class NoName(OSError):
    """The text can be no host's name, like `a..b`, so nobody was asked for it."""

    def __init__(self, host: str) -> None:
        super().__init__(socket.EAI_NONAME, f"lookup {host}: no such host")


@contextlib.contextmanager
def named(host: str) -> Iterator[None]:
    """Raises NoName where Python refuses the text as a name instead of looking it up."""
    try:
        yield
    except UnicodeError:
        raise NoName(host) from None


class _Libc(Exception):
    """Go leaves this name to libc, which does not tell whom it asks."""


def failure(host: str, error: OSError, root: Path = _ROOT) -> str:
    """The words for `error`, which resolving `host` came to. `root` holds etc/resolv.conf and etc/nsswitch.conf."""
    unknown = error.errno in _NOBODY
    try:
        servers = _servers(host, root)
    except _Libc:
        return f"lookup {host}: {'no such host' if unknown else error.strerror}"
    if not servers:
        return f"lookup {host}: no such host"
    if unknown:  # the first server to know of no such name is the last one that is asked
        return f"lookup {host} on {servers[0]}: no such host"
    return f"lookup {host} on {servers[-1]}: {_trouble(servers[-1])}"


def _servers(host: str, root: Path) -> list[str]:
    """Whom Go's own resolver asks about a host: nobody about what is no name. Raises _Libc."""
    servers = _configured(root / "etc/resolv.conf")
    sources = _sources(host, root)
    return servers if "dns" in sources and _DOMAIN.fullmatch(host) else []


def _configured(path: Path) -> list[str]:
    """The servers of a resolv.conf. Raises _Libc where there is something in it that Go does not know."""
    servers: list[str] = []
    for line in _lines(path):
        word, *rest = ["#"] if line[:1] in ("#", ";") else line.split() or ["#"]
        if word == "#":
            continue
        if word not in _KEYWORDS or (word == "options" and not all(map(_OPTIONS.fullmatch, rest))):
            raise _Libc
        if word == "nameserver" and rest and len(servers) < 3:
            with contextlib.suppress(ValueError):
                address = ipaddress.ip_address(rest[0])
                servers.append(f"[{rest[0]}]:{_PORT}" if address.version == 6 else f"{rest[0]}:{_PORT}")
    return servers or [f"127.0.0.1:{_PORT}", f"[::1]:{_PORT}"]


def _sources(host: str, root: Path) -> list[str]:
    """Where names are looked up: "files", "dns". Raises _Libc where another source may have its say."""
    found = []
    listed = list(_hosts(root / "etc/nsswitch.conf")) or [("files", ""), ("dns", "")]
    for source, criteria in listed:
        if source in ("files", "dns"):
            if not _is_usual(criteria):
                raise _Libc
            found.append(source)
        elif source == "myhostname":
            if _LOCAL.fullmatch(host) or host.lower() == socket.gethostname().lower():
                raise _Libc
        elif not source.startswith("mdns") or host.lower().endswith(".local") or (root / "etc/mdns.allow").exists():
            raise _Libc
    if not found:
        raise _Libc
    return found


def _hosts(path: Path) -> Iterator[tuple[str, str]]:
    """The sources of the line `hosts`, each with what stands in brackets behind it."""
    for line in _lines(path):
        database, colon, sources = line.partition("#")[0].strip().partition(":")
        if database and not colon:
            raise _Libc
        if database.strip() == "hosts":
            yield from _SOURCE.findall(sources.strip())


def _is_usual(criteria: str) -> bool:
    """Whether they say what would be done without them."""
    words = criteria.lower().split()
    usual = {"success=return", "notfound=continue", "unavail=continue", "tryagain=continue"}
    if words and words[-1] in ("notfound=return", "unavail=return", "tryagain=return"):  # as the last word it is taken for one
        words.pop()
    return usual.issuperset(words)


def _lines(path: Path) -> list[str]:
    """None of a file that is not there; _Libc for one that cannot be read."""
    try:
        return path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError:
        raise _Libc from None


def _trouble(server: str) -> str:
    """What is wrong with a server: there is no way to it, or it has no answer. Nothing is sent."""
    host = server.rpartition(":")[0].strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        if (code := probe.connect_ex((host, _PORT))) in (errno.ENETUNREACH, errno.EHOSTUNREACH):
            reason = "network is unreachable" if code == errno.ENETUNREACH else "no route to host"
            return f"dial udp {server}: connect: {reason}"
    return "server misbehaving"
