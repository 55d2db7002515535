"""How the command line reaches a server, and what it says when it does not."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_ollama import FakeOllama, Reply, run, stream

from ollama_compat import golookup
from ollama_compat.cli.client import MAX_LINE, NOT_RUNNING, Client
from ollama_compat.cli.errors import CommandError, Unreachable
from ollama_compat.compare.processes import free_port
from ollama_compat.proxy import proxy_for
from ollama_compat.settings import address


@pytest.fixture
def server() -> Iterator[FakeOllama]:
    with FakeOllama() as running:
        yield running


@pytest.fixture
def silent() -> Iterator[int]:
    """A port where a server hangs up at once."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                with peer:
                    peer.recv(65536)

        threading.Thread(target=hang_up, daemon=True).start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)


def test_no_server() -> None:
    result = run("list", host=f"127.0.0.1:{free_port()}")
    assert (result.status, result.out, result.err) == (1, "", f"Error: {NOT_RUNNING}\n")


def test_version_without_server() -> None:
    result = run("-v", host=f"127.0.0.1:{free_port()}")
    assert result.out.startswith("Warning: could not connect to a running Ollama instance\nWarning: client version is ")
    assert result.status == 0


def test_unknown_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golookup, "failure", lambda host, error: f"lookup {host} on some:53: no such host")
    result = run("list", host="nowhere.invalid:1")
    assert result.err == 'Error: Head "http://nowhere.invalid:1/": dial tcp: lookup nowhere.invalid on some:53: no such host\n'


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ("a b", 'parse "http://a%20b:11434/": invalid URL escape "%20"'),
        ("a\nb", 'parse "http://a%0Ab:11434/": invalid URL escape "%0A"'),
        ("?x", 'parse "http://%3Fx:11434/": invalid URL escape "%3F"'),
        ("ftp://127.0.0.1", 'Head "ftp://127.0.0.1:11434/": unsupported protocol scheme "ftp"'),
        ("a..b", 'Head "http://a..b:11434/": dial tcp: lookup a..b: no such host'),
        (".", 'Head "http://.:11434/": dial tcp: lookup .: no such host'),
        ("a" * 64, f'Head "http://{"a" * 64}:11434/": dial tcp: lookup {"a" * 64}: no such host'),
        ('a"b', 'Head "http://a\\"b:11434/": dial tcp: lookup a"b: no such host'),
        ("a%b", 'Head "http://a%25b:11434/": dial tcp: lookup a%b: no such host'),
        ("häuser.invalid", 'Head "http://h%C3%A4user.invalid:11434/": dial tcp: lookup xn--huser-gra.invalid: no such host'),
    ],
)
def test_hosts_that_are_none(host: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golookup, "failure", lambda host, error: f"lookup {host}: no such host")
    result = run("list", host=host)
    assert (result.status, result.err) == (1, f"Error: {told}\n")


def test_other_ends(server: FakeOllama, silent: int) -> None:
    assert run("list", host=f"127.0.0.1:{silent}").err == f'Error: Head "http://127.0.0.1:{silent}/": EOF\n'
    plain = run("list", host=f"https://{server.host}").err
    assert plain == f'Error: Head "https://{server.host}/": http: server gave HTTP response to HTTPS client\n'


def test_addresses(server: FakeOllama) -> None:
    port = server.host.split(":")[1]
    for host in (f"http://{server.host}/", f' "{server.host}" ', f":{port}", f"0.0.0.0:{port}", f"localhost:{port}"):
        assert run("list", host=host).status == 0, host
    server.script({})
    run("list", host=f"http://{server.host}/a/prefix/")
    assert [path for _, path, _ in server.requests] == ["/a/prefix/", "/a/prefix/api/tags"]


def test_streams_are_given_on_line_by_line(server: FakeOllama) -> None:
    server.script({"POST /x": stream({"a": 1}, {"a": "é"}, {"a": 3})})
    assert [item["a"] for item in Client(address(server.host, [])).stream("/x", {})] == [1, "é", 3]


def test_lines_too_long_for_a_client(server: FakeOllama) -> None:
    server.script({"POST /x": Reply(b'{"a":"' + b"x" * (MAX_LINE + 100_000))})
    with pytest.raises(CommandError, match="token too long"):
        list(Client(address(server.host, [])).stream("/x", {}))


def test_cut_streams() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n{"a":1}\n\r\n')
                peer.shutdown(socket.SHUT_WR)
                while peer.recv(65536):
                    pass

        threading.Thread(target=answer, daemon=True).start()
        pieces = Client(address(f"127.0.0.1:{listener.getsockname()[1]}", [])).stream("/x", {})
        assert next(pieces) == {"a": 1}
        with pytest.raises(Unreachable, match="unexpected EOF"):
            next(pieces)


def test_blobs_are_sent_once(server: FakeOllama, tmp_path: Path) -> None:
    data = bytes(range(256)) * 10_000
    (tmp_path / "m.gguf").write_bytes(data)
    (tmp_path / "Modelfile").write_text("FROM m.gguf")
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert run("create", "m", host=server.host, folder=tmp_path).status == 0
    sent = [body for method, path, body in server.requests if (method, path) == ("POST", f"/api/blobs/{digest}")]
    assert sent == [data.decode("latin-1")]
    server.script({f"HEAD /api/blobs/{digest}": Reply()})
    assert run("create", "m", host=server.host, folder=tmp_path).status == 0
    assert [path for method, path, _ in server.requests if method == "POST"] == ["/api/create"]
    assert server.requests[-1][2]["files"] == {"m.gguf": digest}


def test_an_importance_matrix(server: FakeOllama, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models/Modelfile").write_text("FROM x")
    (tmp_path / "m.dat").write_bytes(b"matrix")  # beside, not in the Modelfile's directory
    digest = f"sha256:{hashlib.sha256(b'matrix').hexdigest()}"
    args = ("create", "m", "-f", "models/Modelfile", "--imatrix")
    assert run(*args, "m.dat", "-q", "iq2_xxs", host=server.host, folder=tmp_path).status == 0
    assert ("POST", f"/api/blobs/{digest}", "matrix") in server.requests
    assert server.requests[-1][2] == {"model": "m", "from": "x", "quantize": "IQ2_XXS", "imatrix": {"m.dat": digest}}
    for more, told in (
        (["m.dat"], "--imatrix requires --quantize"),
        (["none", "-q", "q4_0"], f"open {tmp_path}/none: no such file or directory"),
    ):
        result = run(*args, *more, host=server.host, folder=tmp_path)
        assert (result.status, result.err.split("\n")[-2]) == (1, f"Error: {told}")
    server.script({"GET /api/moellama/loading": Reply("404 page not found", 404)})
    result = run(*args, "m.dat", "-q", "q4_K_M", host=server.host, folder=tmp_path)
    assert (result.status, result.err.split("\n")[-2]) == (1, "Error: this server knows no importance matrices")
    assert not any(path == "/api/create" for _, path, _ in server.requests)


def test_refused_blob(server: FakeOllama, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    (tmp_path / "Modelfile").write_text("FROM m.gguf")
    digest = f"sha256:{hashlib.sha256(b'GGUF').hexdigest()}"
    server.script({f"POST /api/blobs/{digest}": Reply({"error": "digest mismatch"}, 400)})
    result = run("create", "m", host=server.host, folder=tmp_path)
    assert (result.status, result.err.split("\n")[-2]) == (1, "Error: digest mismatch")


@pytest.mark.parametrize(
    ("host", "no_proxy", "used"),
    [
        ("http://far.example:1", "", True),
        ("http://far.example:1", "example", False),
        ("http://far.example:1", ".example", False),
        ("http://example:1", ".example", True),
        ("http://far.example:1", "*.example", False),
        ("http://far.example:1", "far.example:1", False),
        ("http://far.example:1", "far.example:2,other", True),
        ("http://far.example:1", "*", False),
        ("http://10.1.2.3:1", "10.0.0.0/8", False),
        ("http://10.1.2.3:1", "10.1.2.3", False),
        ("http://10.1.2.3:1", "2.3", True),
        ("http://127.0.0.1:1", "", False),
        ("http://localhost:1", "", False),
        ("https://far.example", "", False),
    ],
)
def test_proxies(host: str, no_proxy: str, used: bool) -> None:
    proxy = proxy_for(address(host, []), {"http": "http://proxy:3128", "no": no_proxy})
    assert proxy == (("proxy", 3128) if used else None)


def test_through_a_proxy(server: FakeOllama) -> None:
    result = run("list", host="http://far.example:1234/x", http_proxy=f"http://{server.host}")
    assert result.status == 0
    assert [path for _, path, _ in server.requests] == ["http://far.example:1234/x/", "http://far.example:1234/x/api/tags"]
