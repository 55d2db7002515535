"""HTTP_PROXY, HTTPS_PROXY and NO_PROXY as Go reads them: this machine is never reached through a proxy."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from ollama_compat.settings import Address


def proxy_for(address: Address, proxies: Mapping[str, str]) -> tuple[str, int] | None:
    """Host and port of the proxy to use for `address`; `proxies` holds the texts under "http", "https" and "no"."""
    text = proxies.get(address.scheme, "")
    if not text or _is_local(address.host) or _is_exempt(address, proxies.get("no", "")):
        return None
    parts = urlsplit(text if "://" in text else f"http://{text}")
    return (parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)) if parts.hostname else None


def _is_local(host: str) -> bool:
    ip = _ip(host)
    return host == "localhost" or (ip is not None and ip.is_loopback)


def _is_exempt(address: Address, rules: str) -> bool:
    return any(_matches(rule.strip().lower(), address) for rule in rules.split(",") if rule.strip())


def _matches(rule: str, address: Address) -> bool:
    """One rule of NO_PROXY: `*`, an address, a network, a domain with its subdomains; each but the first may end in `:port`."""
    if rule == "*":
        return True
    ip = _ip(address.host)
    if "/" in rule:
        return ip is not None and _in_network(ip, rule)
    name, colon, port = rule.rpartition(":")
    if colon and port.isdigit() and ":" not in name:
        return port == str(address.port) and _matches(name, address)
    host, suffix = address.host.lower().rstrip("."), rule.removeprefix("*")
    if ip is not None or not suffix.startswith("."):
        return host == suffix.strip("[]") or (ip is None and host.endswith(f".{suffix}"))
    return host.endswith(suffix)


def _in_network(ip: ipaddress.IPv4Address | ipaddress.IPv6Address, rule: str) -> bool:
    try:
        return ip in ipaddress.ip_network(rule, strict=False)
    except ValueError:
        return False


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
