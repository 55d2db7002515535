"""Who may call: the Host and Origin rules that keep web pages of strangers away from a server on the loopback."""

from __future__ import annotations

import functools
import ipaddress
import re
import socket
from collections.abc import Sequence

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_LOCAL_DOMAINS = (".localhost", ".local", ".internal")
_ALLOW_HEADERS = (
    "Authorization Content-Type User-Agent Accept X-Requested-With Openai-Beta X-Stainless-Arch X-Stainless-Async "
    "X-Stainless-Custom-Poll-Interval X-Stainless-Helper-Method X-Stainless-Lang X-Stainless-Os X-Stainless-Package-Version "
    "X-Stainless-Poll-Helper X-Stainless-Retry-Count X-Stainless-Runtime X-Stainless-Runtime-Version X-Stainless-Timeout"
)
PREFLIGHT_HEADERS = {
    "Access-Control-Allow-Headers": _ALLOW_HEADERS.replace(" ", ","),
    "Access-Control-Allow-Methods": "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS",
    "Access-Control-Max-Age": "43200",
}
PREFLIGHT_VARY = ("Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers")


def is_loopback(host: str) -> bool:
    """Whether a server bound to `host` can only be reached from this machine."""
    if host == "localhost":
        return True
    ip = _ip(host)
    return ip is not None and ip.is_loopback


def allowed_address(host_header: str) -> bool:
    """Whether the Host header names an address that a page of a stranger cannot have made its own."""
    ip = _ip(host_of(host_header))
    if ip is None:
        return False
    return ip.is_loopback or ip.is_unspecified or _is_private(ip) or str(ip) in own_addresses()


def allowed_name(host_header: str) -> bool:
    """Whether the Host header names this machine, or a domain that public DNS does not serve."""
    host = host_of(host_header).lower()
    return host in ("", "localhost", socket.gethostname().lower()) or host.endswith(_LOCAL_DOMAINS)


def host_of(host_header: str) -> str:
    """The host without its port, IPv6 without brackets; what has no such form comes back as it is."""
    match = re.fullmatch(r"\[([^\[\]]*)\](?::[^:\[\]]*)?|([^:\[\]]*):[^:\[\]]*", host_header)
    if match is None:
        return host_header
    return match.group(1) if match.group(1) is not None else match.group(2)


def _ip(text: str) -> IPAddress | None:
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None


_PRIVATE = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")))


def _is_private(ip: IPAddress) -> bool:
    """RFC 1918 and 4193 only, as Go has it; Python's is_private is wider."""
    return any(ip.version == network.version and ip in network for network in _PRIVATE)


@functools.lru_cache(maxsize=1)
def own_addresses() -> frozenset[str]:
    """Addresses of this machine's name."""
    try:
        infos = socket.getaddrinfo(socket.gethostname(), None)
    except OSError:
        return frozenset()
    return frozenset(str(info[4][0]) for info in infos)


def same_origin(origin: str, host_header: str) -> bool:
    """Whether the page came from this very server."""
    return origin in (f"http://{host_header}", f"https://{host_header}")


def allowed_origin(origin: str, patterns: Sequence[str]) -> bool:
    """Whether a page of `origin` may call. `*` in a pattern stands for anything, at its end after a colon for a port."""
    return any(_matches(origin, pattern) for pattern in patterns)


def _matches(origin: str, pattern: str) -> bool:
    head, star, tail = pattern.partition("*")
    if not star:
        return origin == pattern
    if len(origin) < len(head) + len(tail) or not origin.startswith(head) or not origin.endswith(tail):
        return False
    middle = origin[len(head) : len(origin) - len(tail)]
    return middle.isdigit() if head.endswith(":") and not tail else True
