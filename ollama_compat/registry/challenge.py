"""From a registry's 401 to the request for a token: `WWW-Authenticate: Bearer realm="...",service="...",scope="..."`."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
import secrets
import time
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

from ollama_compat.duration import quote
from ollama_compat.registry import signing
from ollama_compat.registry.errors import RegistryError

_PARAMETER = re.compile(r'(?:^|[\s,])(realm|service|scope)=(?:"([^"]*)"|([^",\s]*))', re.IGNORECASE)


@dataclasses.dataclass(frozen=True, slots=True)
class Challenge:
    """What the registry wants a token for, and where it gives one."""

    realm: str = ""
    service: str = ""
    scope: str = ""

    @classmethod
    def parse(cls, header: str) -> Challenge:
        """What is missing is empty."""
        found: dict[str, str] = {}
        for name, quoted, bare in _PARAMETER.findall(header):
            found.setdefault(name.lower(), quoted or bare)
        return cls(**found)

    def request(self, key: Path, host: str) -> tuple[str, str]:
        """URL and `Authorization` of the request for a token. RegistryError when that would go to another host than `host`."""
        url = self._url()
        if url.netloc != host:
            raise RegistryError(f"realm host {quote(url.netloc)} does not match original host {quote(host)}")
        text = urlunsplit(url)
        empty = base64.b64encode(hashlib.sha256().hexdigest().encode()).decode()
        return text, signing.sign(key, f"GET,{text},{empty}".encode())

    def _url(self) -> SplitResult:
        try:
            url = urlsplit(self.realm)
        except ValueError as error:
            raise RegistryError(f"parse {quote(self.realm)}: {error}") from None
        nonce = secrets.token_urlsafe(16)
        more = [("service", self.service), *(("scope", scope) for scope in self.scope.split(" "))]
        values = [*parse_qsl(url.query, keep_blank_values=True), *more, ("ts", str(int(time.time()))), ("nonce", nonce)]
        return url._replace(query=urlencode(sorted(values, key=lambda pair: pair[0])))
