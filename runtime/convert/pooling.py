"""How an embedding model makes one vector of a text: the modules of `sentence-transformers` beside the model."""

from __future__ import annotations

from typing import Any

from runtime.convert.errors import ConvertError
from runtime.convert.metadata import Values
from runtime.convert.source import Source

MEAN, CLS, LAST = 1, 2, 3

_FLAGS = {"pooling_mode_mean_tokens": MEAN, "pooling_mode_cls_token": CLS, "pooling_mode_lasttoken": LAST}
_MODES = {"mean": MEAN, "cls": CLS, "lasttoken": LAST}


def pooling(source: Source) -> Values:
    """`pooling_type` as modules.json has it, or nothing; ConvertError for a kind that GGUF has no number for."""
    modules = source.json_value("modules.json") if "modules.json" in source else []
    entries = [module for module in modules if isinstance(module, dict)] if isinstance(modules, list) else []
    found = next((module for module in entries if str(module.get("type")).endswith("Pooling")), None)
    if found is None:
        return {}
    folder = str(found.get("path", "")).strip("/")
    return {"pooling_type": _kind(source.json(f"{folder}/config.json" if folder else "config.json"))}


def _kind(config: dict[str, Any]) -> int:
    for flag, kind in _FLAGS.items():
        if config.get(flag) is True:
            return kind
    mode = config.get("pooling_mode")
    if isinstance(mode, str) and mode in _MODES:
        return _MODES[mode]
    raise ConvertError("only mean, cls and last-token pooling are supported")
