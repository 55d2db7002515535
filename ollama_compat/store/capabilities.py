"""What a model can do, found by Ollama's heuristics in its file, its templates and its config.

From Ollama's `server/images.go` (one model) and `server/model_list_cache.go` (lists, which look at less).
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable

from ollama_compat.output.go_tags import thinking_tags
from ollama_compat.store.config import ModelConfig
from ollama_compat.store.header import UNKNOWN, ModelHeader
from ollama_compat.template.gotemplate import Template, TemplateError

_LOG = logging.getLogger(__name__)

_BOTH = ("tools", "thinking")
_TOOLS = ("tools",)
_THINKING = ("thinking",)
PARSERS: dict[str, tuple[str, ...]] = {
    "cogito": _BOTH,
    "cohere": _BOTH,
    "deepseek3": _BOTH,
    "functiongemma": _TOOLS,
    "gemma4": _BOTH,
    "gemma4-no-thinking": _TOOLS,
    "glimmer": _BOTH,
    "glm-4.7": _BOTH,
    "glm-ocr": _TOOLS,
    "harmony": _BOTH,
    "laguna": _BOTH,
    "lfm2": _TOOLS,
    "lfm2-thinking": _BOTH,
    "ministral": _TOOLS,
    "nemotron-3-nano": _BOTH,
    "nemotron-3.5-nano": _BOTH,
    "olmo3": _TOOLS,
    "olmo3-think": _THINKING,
    "ornith": _BOTH,
    "passthrough": (),
    "poolside-v1": _BOTH,
    "qwen3": _TOOLS,
    "qwen3-coder": _TOOLS,
    "qwen3-thinking": _BOTH,
    "qwen3-vl-instruct": _TOOLS,
    "qwen3-vl-thinking": _BOTH,
    "qwen3.5": _BOTH,
}
"""What models that name one of Ollama's built-in parsers can do."""

_TOOL_RESULTS = (
    "tool_response",
    "tool_results",
    "role'] == 'tool'",
    'role\'] == "tool"',
    "role\"] == 'tool'",
    'role"] == "tool"',
    "message.role == 'tool'",
    'message.role == "tool"',
    "ipython",
)
_GO_TOOL_RESULTS = ('eq .Role "tool"', "tool_response", "TOOL_RESULTS")


def unique(names: Iterable[str]) -> list[str]:
    """Without repetitions, in order."""
    return list(dict.fromkeys(names))


# ---------------------------------------------------------------- templates


def jinja_capabilities(source: str) -> list[str]:
    """What a Jinja template shows itself able to do."""
    tools = "tools" in source or "tool_call" in source
    return ["tools"] * tools + ["thinking"] * _jinja_thinks(source)


def _jinja_thinks(source: str) -> bool:
    if "<think>" in source and "</think>" in source:
        return True
    # templates that only strip earlier reasoning: the engine still finds it in the answers
    strips = "content.split('</think>')" in source or 'content.split("</think>")' in source
    return strips and "reasoning_content" not in source and "<SPECIAL_12>" not in source


def jinja_returns_tools(source: str) -> bool:
    """Whether a Jinja template writes tool calls and their results back into the prompt."""
    return ("tool_calls" in source or "assistant_tool_call" in source) and any(text in source for text in _TOOL_RESULTS)


@dataclasses.dataclass(frozen=True, slots=True)
class GoTemplate:
    """What is asked about a Go template."""

    source: str = ""
    variables: frozenset[str] = frozenset()  # lower case
    has_thinking_tags: bool = False

    @classmethod
    def of(cls, source: str) -> GoTemplate:
        """Facts of the template; none of one that does not parse, which fails when it is used."""
        try:
            template = Template.parse(source)
        except TemplateError as error:
            _LOG.warning("a model's template does not parse: %s", error)
            return cls(source)
        return cls(source, template.variables(), all(thinking_tags(template.root)))

    def capabilities(self) -> list[str]:
        """What it shows itself able to do."""
        named = [name for name, variable in (("tools", "tools"), ("insert", "suffix")) if variable in self.variables]
        return named + ["thinking"] * self.has_thinking_tags

    @property
    def returns_tools(self) -> bool:
        """Whether it writes tool calls and their results back into the prompt."""
        return {"tools", "toolcalls"} <= self.variables and any(text in self.source for text in _GO_TOOL_RESULTS)


def prefer_jinja(jinja: str, go: GoTemplate) -> bool:
    """Which of a model's two templates serves better: the one that can do more, or takes tool results back."""
    of_jinja, of_go = jinja_capabilities(jinja), go.capabilities()
    if len(of_jinja) > len(of_go):
        return not go.returns_tools or jinja_returns_tools(jinja)
    if set(of_jinja) != set(of_go) or "tools" not in of_go:
        return False
    return jinja_returns_tools(jinja) and not go.returns_tools


# ---------------------------------------------------------------- models


def of_model(
    config: ModelConfig, header: ModelHeader | None, projectors: list[ModelHeader | None], jinja: str, go: GoTemplate | None
) -> list[str]:
    """Capabilities of one model, in Ollama's order. `jinja`, `go`: the templates that its prompts are made with."""
    found = list(config.capabilities or ())
    if header is not None:
        found += jinja_capabilities(jinja) if jinja else []
        found.append("embedding" if header.has("pooling_type") else "completion")
        found += [name for name in ("vision", "audio") if header.has(f"{name}.block_count")]
    if projectors:
        found.append("vision")
        found += ["audio"] * any(projector is not None and _hears(projector) for projector in projectors)
    found += go.capabilities() if go else []
    found += PARSERS.get(config.parser, ())
    found += ["thinking"] * _is_gpt_oss(config)
    return [name for name in unique(found) if name not in _suppressed(config, header)]


def of_list_entry(config: ModelConfig, header: ModelHeader | None, has_projector: bool, go: GoTemplate) -> list[str]:
    """Capabilities as lists show them: the Go template counts whether or not it is used, Jinja does not."""
    found: list[str] = []
    if header is not None:
        seen = keys_for_lists(header)
        found += [name for name in ("vision", "audio") if f"{header.architecture}.{name}.block_count" in seen]
        found.append("embedding" if f"{header.architecture}.pooling_type" in seen else "completion")
    found += config.capabilities or ()
    parser = PARSERS.get(config.parser, ())
    found += [name for name in ("tools", "insert") if name in go.capabilities() or name in parser]
    found += ["thinking"] * (go.has_thinking_tags or _is_gpt_oss(config) or "thinking" in parser)
    found += ["vision"] * has_projector
    hidden = _hidden_in_safetensors(config) if config.model_format == "safetensors" else set()
    return [name for name in unique(found) if name and name not in hidden]


def keys_for_lists(header: ModelHeader) -> set[str]:
    """Keys of a file that lists see: they stop at the tokenizer, and do not know keys in front of the architecture."""
    seen: set[str] = set()
    named = False
    for key in header.types:
        named = named or key == "general.architecture"
        if named and key.startswith("tokenizer."):
            break
        if named or key == "general.file_type":
            seen.add(key)
    return seen


def uses_harmony(config: ModelConfig, go_source: str) -> bool:
    """Whether prompts are written in the format of gpt-oss."""
    return _is_gpt_oss(config) and "<|start|>" in go_source and "<|end|>" in go_source


def _is_gpt_oss(config: ModelConfig) -> bool:
    return config.model_family in ("gptoss", "gpt-oss")


def _hears(projector: ModelHeader) -> bool:
    if projector.text("vision.projector_type") == "gemma3nv":
        return False
    keys = [key for key in projector.metadata if key.endswith(".has_audio_encoder")]
    return projector.flag("has_audio_encoder") or any(projector.metadata[key] is True for key in keys)


def _suppressed(config: ModelConfig, header: ModelHeader | None) -> set[str]:
    """What the file promises and the engine does not keep."""
    architectures = {header.architecture if header else UNKNOWN, config.model_family, *(config.model_families or ())}
    audio = {"audio"} if "nemotron_h_omni" in architectures else set()
    return audio | (_hidden_in_safetensors(config) if config.model_format == "safetensors" else set())


def _hidden_in_safetensors(config: ModelConfig) -> set[str]:
    families = {config.model_family, *(config.model_families or ())}
    is_nemotron = "nemotron-3-nano" in (config.parser, config.renderer) or "nemotron_h_omni" in families
    if config.renderer in ("gemma4", "gemma4-small", "gemma4-large") or is_nemotron:
        return {"vision", "audio"}
    return {"audio"} if config.renderer == "glimmer" else set()
