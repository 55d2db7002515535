"""The ed25519 key, in the form that ssh-keygen and Ollama know, and what is signed with it."""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from ollama_compat.registry import signing
from ollama_compat.registry.challenge import Challenge
from ollama_compat.registry.errors import RegistryError


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "home" / ".ollama" / "id_ed25519"
    signing.ensure(path)
    return path


def test_the_key_is_made_once(key: Path) -> None:
    data = key.read_bytes()
    assert key.stat().st_mode & 0o777 == 0o600
    assert {path.name for path in key.parent.iterdir()} == {"id_ed25519", "id_ed25519.pub"}
    signing.ensure(key)
    assert key.read_bytes() == data


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
def test_ssh_knows_the_key(key: Path) -> None:
    told = subprocess.run(["ssh-keygen", "-y", "-f", str(key)], capture_output=True, text=True, check=True).stdout
    assert told.split()[:2] == key.with_name("id_ed25519.pub").read_text().split()


def test_a_signature(key: Path) -> None:
    public, _, signature = signing.sign(key, b"text").partition(":")
    assert f"ssh-ed25519 {public}\n" == key.with_name("id_ed25519.pub").read_text()
    load_ssh_public_key(f"ssh-ed25519 {public}".encode()).verify(base64.b64decode(signature), b"text")  # type: ignore[call-arg, union-attr]


def test_without_a_key(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="no such file or directory"):
        signing.sign(tmp_path / "none", b"")
    (tmp_path / "bad").write_text("no key")
    with pytest.raises(RegistryError, match="cannot be used"):
        signing.sign(tmp_path / "bad", b"")


def test_a_home_that_cannot_be_written_keeps_nobody_from_serving(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    signing.ensure(tmp_path / "file" / ".ollama" / "id_ed25519")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (
            'Bearer realm="https://a/t",service="s",scope="repository:m:pull,push"',
            ("https://a/t", "s", "repository:m:pull,push"),
        ),
        ('bearer scope="x", realm="r" , service="s"', ("r", "s", "x")),
        ("Bearer realm=r,service=s", ("r", "s", "")),
        ('Bearer realm="', ("", "", "")),
        ("Bearer realm=", ("", "", "")),
        ("", ("", "", "")),
        ('Bearer realm="a",realm="b"', ("a", "", "")),
        ("Basic " + "realm" * 1000, ("", "", "")),
    ],
)
def test_challenges(header: str, expected: tuple[str, str, str]) -> None:
    challenge = Challenge.parse(header)
    assert (challenge.realm, challenge.service, challenge.scope) == expected


def test_the_address_of_a_token_is_sorted_and_escaped(key: Path) -> None:
    challenge = Challenge("https://r/token?z=1", "reg", "repository:n/m:pull other")
    url, _ = challenge.request(key, "r")
    names = [pair.split("=")[0] for pair in url.partition("?")[2].split("&")]
    assert names == ["nonce", "scope", "scope", "service", "ts", "z"]
    assert "scope=repository%3An%2Fm%3Apull&scope=other&service=reg" in url


@pytest.mark.parametrize(
    "realm", ["https://other/token", "https://r:444/token", "https://r@other/t", "", "/token", "https://u@r/t"]
)
def test_no_other_host_is_asked(key: Path, realm: str) -> None:
    with pytest.raises(RegistryError, match="does not match original host"):
        Challenge(realm, "", "").request(key, "r")


def test_a_realm_that_is_no_address(key: Path) -> None:
    with pytest.raises(RegistryError, match="parse "):
        Challenge("https://[r/token", "", "").request(key, "r")
