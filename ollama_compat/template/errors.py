"""What goes wrong in a chat template."""

from __future__ import annotations

from ollama_compat.errors import BadRequest


class TemplateError(BadRequest):
    """A template that does not parse, refuses the conversation (`raise_exception`), fails while running or costs too much.

    `message` is one line for the client: the template's own words where it has some.
    """
