"""What the server is told by its environment: one frozen object, read once, with Ollama's names, defaults and parsing habits."""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import math
from collections.abc import Mapping
from pathlib import Path

from ollama_compat import duration, keys

VERSION = "0.33.0"
"""What /api/version says. Clients compare it with the Ollama that they need, so it is Ollama's number and not ours."""

_LOCAL_HOSTS = ("localhost", "127.0.0.1", "0.0.0.0")
_APP_ORIGINS = ("app://*", "file://*", "tauri://*", "vscode-webview://*", "vscode-file://*")
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


@dataclasses.dataclass(frozen=True, slots=True)
class Address:
    """Where the server listens, or where a client finds it."""

    scheme: str = "http"
    host: str = "127.0.0.1"
    port: int = 11434
    path: str = ""

    @property
    def url(self) -> str:
        """As a URL; IPv6 hosts in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}" + (f"/{self.path}" if self.path else "")


EVERY_LAYER = 1 << 16


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """The server's configuration. Durations are seconds; `math.inf` is for ever."""

    address: Address = Address()
    models: Path = Path.home() / ".ollama" / "models"
    key: Path = Path.home() / ".ollama" / "id_ed25519"  # by which registries know this machine
    proxies: Mapping[str, str] = dataclasses.field(default_factory=dict)  # scheme, or "no", to its variable's text
    keep_alive: float = 300.0
    load_timeout: float = 300.0  # a load that makes no progress for so long is given up
    max_loaded_models: int = 0  # 0: three
    num_parallel: int = 0  # sequences a runner promises its whole context to; 0: as many as are cheap
    max_queue: int = 512
    context_length: int = 0  # num_ctx of whoever names none; 0: by memory
    kv_cache_type: str = "f16"  # one of KV_CACHE_TYPES
    gpu_overhead: int = 0  # bytes of a card that are left alone
    vram: int = 0  # bytes of a card that a model may take; 0: what is free
    pinned: int = -1  # bytes of RAM that a model may pin for a card; < 0: what the system allows
    pcie: bool = True  # the card may read experts from RAM beside the CPU
    num_cpu_moe: int = 0  # layers, from the first, whose experts stay in RAM
    origins: tuple[str, ...] = ()
    go_template: bool | None = None  # None: the better of a model's two templates
    repeat_limit: int = 30  # tokens in a row that may say what the one before said; 0: any number
    strict_tools: bool = False  # a model without a form for tools refuses them, as in Ollama
    no_prune: bool = False
    no_cloud_env: bool = False
    no_cloud_config: bool = False  # ~/.ollama/server.json says so
    debug: int = 0  # 1: debug, 2: trace
    log_json: bool = False  # one JSON object a line
    api_keys: tuple[str, ...] = ()  # one of which every request has to show; none: everybody may
    warnings: tuple[str, ...] = ()  # what of the environment was not taken as it stands, for the log

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """The settings that an environment asks for. Bad values are replaced by the defaults, with a warning, but a file of keys
        that cannot be read is a KeyFileError."""
        read = _Reader(environ)
        home = Path(environ.get("HOME") or Path.home())
        told = cls(
            address=address(read.text("OLLAMA_HOST"), read.warnings),
            models=Path(read.text("OLLAMA_MODELS") or home / ".ollama" / "models"),
            key=home / ".ollama" / "id_ed25519",
            proxies=proxies(environ),
            keep_alive=read.seconds("OLLAMA_KEEP_ALIVE", 300.0, endless_zero=False),
            load_timeout=read.seconds("OLLAMA_LOAD_TIMEOUT", 300.0, endless_zero=True),
            max_loaded_models=read.count("OLLAMA_MAX_LOADED_MODELS", 0),
            num_parallel=read.count("OLLAMA_NUM_PARALLEL", 0),
            max_queue=read.count("OLLAMA_MAX_QUEUE", 512),
            context_length=read.count("OLLAMA_CONTEXT_LENGTH", 0),
            kv_cache_type=cache_type(read.text("OLLAMA_KV_CACHE_TYPE"), read.warnings),
            gpu_overhead=read.count("OLLAMA_GPU_OVERHEAD", 0),
            vram=read.count("MOELLAMA_VRAM", 0),
            pinned=read.count("MOELLAMA_PINNED", -1),
            pcie=read.flag("MOELLAMA_PCIE") if read.text("MOELLAMA_PCIE") else True,
            num_cpu_moe=EVERY_LAYER if read.flag("LLAMA_ARG_CPU_MOE") else read.count("LLAMA_ARG_N_CPU_MOE", 0),
            origins=origins(read.text("OLLAMA_ORIGINS")),
            go_template=read.flag("OLLAMA_GO_TEMPLATE") if read.text("OLLAMA_GO_TEMPLATE") else None,
            repeat_limit=read.count("MOELLAMA_REPEAT_LIMIT", 30),
            strict_tools=read.flag("MOELLAMA_STRICT_TOOLS"),
            no_prune=read.flag("OLLAMA_NOPRUNE"),
            no_cloud_env=read.flag("OLLAMA_NO_CLOUD"),
            no_cloud_config=_cloud_off_in_config(home / ".ollama" / "server.json"),
            debug=read.level("OLLAMA_DEBUG"),
            log_json=read.text("MOELLAMA_LOG_FORMAT").lower() == "json",
            api_keys=keys.load(read.text("MOELLAMA_API_KEYS"), read.text("MOELLAMA_API_KEY_FILE")),
        )
        return dataclasses.replace(told, warnings=tuple(read.warnings))

    @property
    def cloud_source(self) -> str:
        """Who turned the cloud off: `none`, `env`, `config` or `both`."""
        if self.no_cloud_env:
            return "both" if self.no_cloud_config else "env"
        return "config" if self.no_cloud_config else "none"


class _Reader:
    """Reads variables as Ollama does: trimmed of spaces and quotes, empty is unset. Bad ones leave `warnings`."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.warnings: list[str] = []

    def text(self, key: str) -> str:
        return self._environ.get(key, "").strip().strip("\"'")

    def flag(self, key: str) -> bool:
        """Any text that is no boolean is true."""
        text = self.text(key)
        return bool(text) and text not in _FALSE

    def count(self, key: str, default: int) -> int:
        """A number without sign; anything else, and what no machine could mean, is the default."""
        text = self.text(key)
        if not text:
            return default
        if text.isascii() and text.isdigit() and len(text) <= 15:
            return int(text)
        self.warnings.append(f"invalid environment variable, using default: {key}={text}, default {default}")
        return default

    def seconds(self, key: str, default: float, *, endless_zero: bool) -> float:
        """A duration or whole seconds; negative, and zero where `endless_zero`, is for ever."""
        text = self.text(key)
        if not text:
            return default
        seconds = _seconds(text)
        if seconds is None:
            return default
        return math.inf if seconds < 0 or (endless_zero and seconds == 0) else seconds

    def level(self, key: str) -> int:
        text = self.text(key)
        if text in _TRUE:
            return 1
        return int(text) if text.isascii() and text.isdigit() and len(text) < 4 else 0


def _seconds(text: str) -> float | None:
    try:
        return duration.parse(text) / duration.SECOND
    except duration.DurationError:
        digits = text.removeprefix("-").removeprefix("+")
        return float(text) if digits.isascii() and digits.isdigit() and len(digits) < 19 else None


def address(text: str, warnings: list[str]) -> Address:
    """The address that OLLAMA_HOST means: scheme, host, port and path may each be absent. A bad port adds to the warnings."""
    scheme, found, hostport = text.partition("://")
    port = {"http": 80, "https": 443}.get(scheme, 11434) if found else 11434
    if not found:
        scheme, hostport = "http", text
        if text == "ollama.com":
            scheme, hostport = "https", "ollama.com:443"
    hostport, _, path = hostport.partition("/")
    host, port_text = _split(hostport)
    return Address(scheme, host, _port(port_text, port, warnings), path)


def _split(hostport: str) -> tuple[str, str | None]:
    """Host and port text; the port is None where there is none."""
    bare = hostport.strip("[]")
    if _is_ip(bare):
        return bare, None
    host, colon, port = hostport.rpartition(":")
    if colon and (":" not in host or (host.startswith("[") and host.endswith("]"))):
        return host.strip("[]"), port
    return bare or "127.0.0.1", None


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _port(text: str | None, default: int, warnings: list[str]) -> int:
    if text is None:
        return default
    if text.isascii() and text.isdigit() and len(text) < 6 and int(text) <= 65535:
        return int(text)
    warnings.append(f"invalid port, using default: {text}, default {default}")
    return default


KV_CACHE_TYPES = ("f16", "q8_0", "q4_0")  # that a runner knows
_OTHER_CACHE_TYPES = {"f32": "f16", "bf16": "f16", "q5_1": "q8_0", "q5_0": "q8_0", "q4_1": "q8_0", "iq4_nl": "q8_0"}
"""Types that Ollama hands on to llama.cpp and that are not here, and what stands in for each."""


def cache_type(text: str, warnings: list[str]) -> str:
    """The type of keys and values that OLLAMA_KV_CACHE_TYPE means, in whatever case. Ollama loads no model with one that
    llama.cpp does not know; here it adds to the warnings, and they are kept in f16."""
    asked = text.lower() or "f16"
    if asked in KV_CACHE_TYPES:
        return asked
    chosen = _OTHER_CACHE_TYPES.get(asked, "f16")
    warnings.append(f"no such type of keys and values: OLLAMA_KV_CACHE_TYPE={text}; they are kept in {chosen}")
    return chosen


def proxies(environ: Mapping[str, str]) -> dict[str, str]:
    """HTTP_PROXY, HTTPS_PROXY and NO_PROXY, in capitals or not, under "http", "https" and "no"."""
    found = {kind: environ.get(f"{kind}_proxy".upper()) or environ.get(f"{kind}_proxy") or "" for kind in ("http", "https", "no")}
    return {kind: value for kind, value in found.items() if value}


def origins(extra: str) -> tuple[str, ...]:
    """Patterns of the origins that may call: those of OLLAMA_ORIGINS, this machine's pages, and desktop applications."""
    listed = [origin.strip() for origin in extra.split(",") if origin.strip()]
    local = [f"{scheme}://{host}{port}" for host in _LOCAL_HOSTS for port in ("", ":*") for scheme in ("http", "https")]
    return (*listed, *local, *_APP_ORIGINS)


def _cloud_off_in_config(path: Path) -> bool:
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("disable_ollama_cloud") is True
