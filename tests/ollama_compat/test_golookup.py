"""Host names that cannot be resolved. The texts are those of programs by Go 1.26, run on these files."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from ollama_compat import golookup

SERVER = "nameserver 10.255.255.53"
PLAIN = "hosts: files dns"
NAMED = " on 10.255.255.53:53"
NO_NAME = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
AGAIN = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


def told(root: Path, resolv: str | None, nsswitch: str | None, host: str, error: OSError = NO_NAME) -> str:
    (root / "etc").mkdir(exist_ok=True)
    for name, text in (("resolv.conf", resolv), ("nsswitch.conf", nsswitch)):
        if text is not None:
            (root / "etc" / name).write_text(text + "\n")
    return golookup.failure(host, error, root)


@pytest.mark.parametrize(
    ("host", "nsswitch", "server"),
    [
        ("nowhere.invalid", PLAIN, NAMED),
        ("nosuch", "hosts: files mdns4_minimal [NOTFOUND=return] dns", NAMED),
        ("nosuch", "hosts: files dns # [NOTFOUND=return]\nnetworks: files", NAMED),
        ("x.y.", "hosts: dns [UNAVAIL=return] files", NAMED),
        ("nosuch", "hosts: dns [UNAVAIL=return NOTFOUND=continue] files", ""),
        ("nosuch", "hosts: dns [!UNAVAIL=return] files", ""),
        ("nosuch", "", NAMED),
        ("nosuch", None, NAMED),
        ("nosuch", "garbage\nhosts: files dns", ""),
        ("nosuch", "hosts: files", ""),
        ("nosuch", "hosts: myhostname", ""),
        ("nosuch", "hosts: files dns myhostname", NAMED),
        ("_gateway", "hosts: files dns myhostname", ""),
        ("a.Localhost", "hosts: files dns myhostname", ""),
        ("nosuch", "hosts: mymachines resolve [!UNAVAIL=return] files myhostname dns", ""),
        ("a.LOCAL", "hosts: files mdns4_minimal [NOTFOUND=return] dns", ""),
        ("a.local", PLAIN, NAMED),
        ("a_b.invalid", PLAIN, NAMED),
        ("xn--", PLAIN, ""),
        ("-a.b", PLAIN, ""),
        ("1.2.3", PLAIN, ""),
        (f"{'a' * 64}.b", PLAIN, ""),
        (f"{'a' * 63}.b", PLAIN, NAMED),
    ],
)
def test_the_server_is_named_where_go_asks_it_itself(tmp_path: Path, host: str, nsswitch: str | None, server: str) -> None:
    assert told(tmp_path, SERVER, nsswitch, host) == f"lookup {host}{server}: no such host"


@pytest.mark.parametrize(
    ("resolv", "server"),
    [
        (f"# x\n; y\n\nnameserver nowhere\n {SERVER} x\nnameserver 1.1.1.1", NAMED),
        (f"{SERVER}\noptions rotate edns0 trust-ad ndots:0 use-vc\nsearch a.b\ndomain c", NAMED),
        (f"{SERVER}\noptions inet6", ""),
        (f"{SERVER}\nsortlist 1.2.3.4", ""),
        ("nameserver 2001:db8::1", " on [2001:db8::1]:53"),
        ("nameserver", " on 127.0.0.1:53"),
        (None, " on 127.0.0.1:53"),
    ],
)
def test_which_server(tmp_path: Path, resolv: str | None, server: str) -> None:
    assert told(tmp_path, resolv, PLAIN, "nosuch") == f"lookup nosuch{server}: no such host"


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "etc/resolv.conf").mkdir(parents=True)
    assert told(tmp_path, None, PLAIN, "nosuch") == "lookup nosuch: no such host"


def test_what_is_wrong_with_a_server(tmp_path: Path) -> None:
    """The last of them is named, for each is asked."""
    servers = "nameserver 10.255.255.53\nnameserver 127.0.0.1"
    assert told(tmp_path, servers, PLAIN, "a.b", AGAIN) == "lookup a.b on 127.0.0.1:53: server misbehaving"
    assert told(tmp_path, servers, "hosts: files resolve", "a.b", AGAIN) == "lookup a.b: Temporary failure in name resolution"
    assert told(tmp_path, servers, PLAIN, "xn--", AGAIN) == "lookup xn--: no such host"


def test_no_way_to_a_server(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    unreachable = "nameserver 240.0.0.1"  # of a network that nobody has a way to, if any
    text = told(tmp_path, unreachable, PLAIN, "a.b", AGAIN).removeprefix("lookup a.b on 240.0.0.1:53: ")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        reachable = probe.connect_ex(("240.0.0.1", 53)) == 0
    assert text == ("server misbehaving" if reachable else "dial udp 240.0.0.1:53: connect: network is unreachable")
