"""The key by which a registry knows this machine: ~/.ollama/id_ed25519 in OpenSSH's format, shared with Ollama."""

from __future__ import annotations

import base64
import logging
import os
from pathlib import Path

from ollama_compat.registry.errors import RegistryError

_LOG = logging.getLogger(__name__)


def ensure(path: Path) -> None:
    """Makes the key, and its public half in `<path>.pub`, unless it is there. A home that cannot be written is only logged."""
    if path.exists():
        return
    try:
        public = _make(path)
    except OSError as error:
        _LOG.warning("no key for registries could be made in %s: %s", path.parent, error.strerror)
        return
    print(f"Couldn't find '{path}'. Generating new private key.\nYour new public key is: \n\n{public}\n", flush=True)


def _make(path: Path) -> str:
    from cryptography.hazmat.primitives import serialization  # takes as long to import as all of the server
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    openssh, pem = serialization.PrivateFormat.OpenSSH, serialization.Encoding.PEM
    private = key.private_bytes(pem, openssh, serialization.NoEncryption())
    encoding = serialization.Encoding.OpenSSH
    public = key.public_key().public_bytes(encoding, serialization.PublicFormat.OpenSSH)
    path.parent.mkdir(0o755, parents=True, exist_ok=True)
    _write(path, private, 0o600)
    _write(path.with_name(f"{path.name}.pub"), public + b"\n", 0o644)
    return public.decode()


def _write(path: Path, data: bytes, mode: int) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(temporary, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def sign(path: Path, data: bytes) -> str:
    """The `Authorization` of a request for a token: public key and signature in base64. RegistryError without a usable key."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        key = serialization.load_ssh_private_key(path.read_bytes(), None)
    except OSError as error:
        raise RegistryError(f"open {path}: {(error.strerror or '').lower()}") from error
    except (ValueError, TypeError) as error:  # no key, or one behind a passphrase
        raise RegistryError(f"the key {path} cannot be used: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise RegistryError(f"the key {path} is not an ed25519 key")
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return f"{public.split()[1].decode()}:{base64.b64encode(key.sign(data)).decode()}"
