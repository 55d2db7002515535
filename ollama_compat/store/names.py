"""Model names: `[scheme://][host/][namespace/]model[:tag]`, with Ollama's limits, defaults and short form."""

from __future__ import annotations

import dataclasses
import enum
import re

from ollama_compat import duration
from ollama_compat.errors import BadRequest, InvalidModelName

DEFAULT_HOST = "registry.ollama.ai"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"

_MISSING = "!MISSING!"  # stands where a separator promised a part that is not there; no part may hold a `!`
_HOST = re.compile(r"[A-Za-z0-9_][-A-Za-z0-9_.:]{0,349}")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][-A-Za-z0-9_]{0,79}")
_PART = re.compile(r"[A-Za-z0-9_][-A-Za-z0-9_.]{0,79}")
_PATTERNS = (_HOST, _NAMESPACE, _PART, _PART)


class InvalidName(InvalidModelName):
    """The text cannot be the name of a model."""


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class ModelName:
    """A complete, valid name. Comparing minds the case; `same` does not. The scheme only says how to reach the registry."""

    host: str
    namespace: str
    model: str
    tag: str
    scheme: str = dataclasses.field(default="https", compare=False)

    def __post_init__(self) -> None:
        if not all(pattern.fullmatch(part) for pattern, part in zip(_PATTERNS, self.parts, strict=True)):
            raise InvalidName

    @classmethod
    def parse(cls, text: str) -> ModelName:
        """The name that `text` means, defaults filled in; InvalidName when it is none."""
        return cls(*_filled(text))

    @property
    def parts(self) -> tuple[str, str, str, str]:
        """Host, namespace, model and tag: also the manifest's path below `manifests`."""
        return self.host, self.namespace, self.model, self.tag

    @property
    def folded(self) -> tuple[str, ...]:
        """The parts in lower case, equal for names that mean the same model."""
        return tuple(part.lower() for part in self.parts)

    def same(self, other: ModelName) -> bool:
        """Whether both mean the same model."""
        return self.folded == other.folded

    def short(self) -> str:
        """For people: without the default host and namespace, always with the tag."""
        if self.host.lower() != DEFAULT_HOST:
            return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"
        namespace = "" if self.namespace.lower() == DEFAULT_NAMESPACE else f"{self.namespace}/"
        return f"{namespace}{self.model}:{self.tag}"

    def full(self) -> str:
        """With every part: `registry.ollama.ai/library/x:latest`."""
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"

    def __str__(self) -> str:
        return self.full()


def _filled(text: str) -> tuple[str, str, str, str, str]:
    """Host, namespace, model, tag and scheme that `text` names or leaves to their defaults, valid or not."""
    tag = ""
    if text.rfind(":") > text.rfind("/"):
        text, tag = _cut(text, ":")
    rest, model = _cut(text, "/") if "/" in text else ("", text)
    rest, namespace = _cut(rest, "/") if "/" in rest else ("", rest)
    scheme, separator, host = rest.partition("://")
    if not separator:
        scheme, host = "", rest
    return host or DEFAULT_HOST, namespace or DEFAULT_NAMESPACE, model, tag or DEFAULT_TAG, scheme or "https"


def spelled_out(text: str) -> str:
    """With every part, as `ModelName.full`, also what is no valid name: for an error that shows what was understood."""
    host, namespace, model, tag, _ = _filled(text)
    return f"{host}/{namespace}/{model}:{tag}"


def _cut(text: str, separator: str) -> tuple[str, str]:
    """What stands before and after the last separator; an empty side is a part that is missing."""
    before, _, after = text.rpartition(separator)
    return before or _MISSING, after or _MISSING


class Source(enum.Enum):
    """Where a request wants its model to run."""

    ANY = ""
    LOCAL = "local"
    CLOUD = "cloud"


@dataclasses.dataclass(frozen=True, slots=True)
class ModelRef:
    """A name as a client wrote it: trimmed, and with the suffix that says where the model has to run taken off."""

    base: str
    source: Source
    name: ModelName

    @classmethod
    def parse(cls, text: str) -> ModelRef:
        """BadRequest with Ollama's words when there is no name, two suffixes, or a name that is none."""
        text = text.strip()
        base, source = _source(text)
        if not text:
            raise BadRequest("model is required")
        if source is not Source.ANY and _source(base)[1] is not Source.ANY:
            raise BadRequest(f"use either :local or :cloud, not both: {duration.quote(text)}")
        return cls(base, source, ModelName.parse(base))

    @property
    def stored_name(self) -> ModelName:
        """The name under which a pull stores the model: `x:cloud` is kept as the tag of a stub."""
        if self.source is not Source.CLOUD:
            return self.name
        tagged = self.base.rfind(":") > self.base.rfind("/")
        return ModelName.parse(f"{self.base}-cloud" if tagged else f"{self.base}:cloud")


def _source(text: str) -> tuple[str, Source]:
    head, colon, tail = text.rpartition(":")
    suffix = tail.strip().lower()
    if not colon:
        return text, Source.ANY
    if suffix in ("cloud", "local"):
        return head, Source(suffix)
    if "/" not in suffix and suffix.endswith("-cloud"):
        return f"{head}:{tail.strip()[: -len('-cloud')]}", Source.CLOUD
    return text, Source.ANY
