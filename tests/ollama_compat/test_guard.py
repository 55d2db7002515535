from __future__ import annotations

import socket

import pytest

from ollama_compat import guard
from ollama_compat.settings import origins


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:11434",
        "LOCALHOST",
        "127.0.0.1",
        "127.9.9.9:1",
        "[::1]",
        "[::1]:11434",
        "::1",
        "0.0.0.0:80",
        "[::]:1",
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.0.7:8080",
        "[fd00::1]:1",
        "api.localhost",
        "box.local",
        "a.b.internal:9",
        "host.docker.internal",
        "",
    ],
)
def test_hosts_that_mean_this_machine(host: str) -> None:
    assert guard.allowed_address(host) or guard.allowed_name(host)


@pytest.mark.parametrize(
    "host",
    [
        "example.com",
        "8.8.8.8",
        "169.254.1.1",
        "172.32.0.1",
        "172.15.0.1",
        "localhost.example.com",
        "local",
        "internal",
        "localhost.",
        "evil-localhost",
        "127.0.0.1.evil.com",
        "localhost/v1?",
        "localhost:80:80",
        "xlocal",
        "[2001:db8::1]",
        "user@localhost",
        "0x7f.1",
        "2130706433",
        "127.1",
    ],
)
def test_hosts_that_do_not(host: str) -> None:
    assert not guard.allowed_address(host)
    assert not guard.allowed_name(host)


def test_the_machines_own_name_is_allowed() -> None:
    assert guard.allowed_name(socket.gethostname().upper() + ":11434")


@pytest.mark.parametrize(
    ("host", "loopback"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("", False)]
)
def test_is_loopback(host: str, loopback: bool) -> None:
    assert guard.is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost", True),
        ("https://localhost:3000", True),
        ("http://127.0.0.1:1", True),
        ("http://0.0.0.0", True),
        ("app://obsidian.md", True),
        ("file:///tmp/x.html", True),
        ("vscode-webview://x", True),
        ("https://example.com", False),
        ("http://localhost.example.com", False),
        ("http://localhost:3000.example.com", False),
        ("http://localhost:", False),
        ("http://evil-localhost", False),
        ("http://LOCALHOST", False),
        ("http://localhost/x", False),
        ("ftp://localhost", False),
        ("localhost", False),
        ("null", False),
        ("chrome-extension://abc", False),
        ("http://[::1]:3000", False),
    ],
)
def test_origins(origin: str, allowed: bool) -> None:
    assert guard.allowed_origin(origin, origins("")) is allowed


@pytest.mark.parametrize(
    ("pattern", "origin", "allowed"),
    [
        ("chrome-extension://*", "chrome-extension://abc", True),
        ("https://*.example.com", "https://a.example.com", True),
        ("https://*.example.com", "https://example.com", False),
        ("*", "https://anything", True),
        ("https://a.example", "https://a.example:443", False),
    ],
)
def test_origin_patterns(pattern: str, origin: str, allowed: bool) -> None:
    assert guard.allowed_origin(origin, origins(pattern)) is allowed
