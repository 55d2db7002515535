"""What is wrong with a model that should be converted."""

from __future__ import annotations

from runtime.core import ModelError


class ConvertError(ModelError):
    """The files are no model that can be converted; the message names what is wrong, in Ollama's words where it has some."""
