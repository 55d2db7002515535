"""Go's text/template with Ollama's functions: the language of the templates in Ollama's models.

`Template.parse(text).execute(values)` is all that most callers need; `nodes` is the parse tree for those who look into it.
"""

from __future__ import annotations

from ollama_compat.template.errors import TemplateError
from ollama_compat.template.gotemplate.template import Template

__all__ = ["Template", "TemplateError"]
