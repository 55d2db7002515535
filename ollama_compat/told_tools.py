"""Tools for models whose template has no place for them: told in the system message, called as JSON between tags.

Ollama answers such a request with a 400. Clients that always send tools, whatever a model can do, then show nothing but that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ollama_compat.settings import Settings
from ollama_compat.store import StoredModel
from ollama_compat.store.model import DEFAULT_TEMPLATE

Message = dict[str, Any]

_TOLD = """# Tools

You can call functions. Each JSON object between the <tools> tags describes one:
<tools>
{tools}
</tools>

To call a function, answer with its name and its arguments as a JSON object between <tool_call> tags, like this:
<tool_call>
{{"name": "function-name", "arguments": {{"parameter": "value"}}}}
</tool_call>
Use these tags once for each call, and then wait for the results. Where no function helps, answer as you would without them."""


def apply(settings: Settings, stored: StoredModel) -> bool:
    """Whether the model is told of tools in this way: it can hold a conversation, and its template knows of no tools."""
    if settings.strict_tools or stored.prompt_source not in ("go", "jinja"):
        return False
    template = stored.shown_template.strip()
    capabilities = stored.capabilities()
    # some templates show calls and results, and so pass for able, but not the tools
    shows_tools = "tools" in capabilities and (stored.prompt_source == "go" or "tools" in template)
    return "completion" in capabilities and not shows_tools and template != DEFAULT_TEMPLATE


def spoken(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> list[Message]:
    """The messages with tools, calls and results in their text. Neighbouring results are one message of the user."""
    told = _TOLD.format(tools="\n".join(_json(tool["function"]) for tool in tools))
    first = messages[0] if messages and messages[0]["role"] == "system" else None
    rest = messages if first is None else messages[1:]
    system = {"role": "system", "content": told if first is None else f"{first['content']}\n\n{told}"}
    found: list[Message] = [system if first is None else first | system]
    was_result = False
    for message in rest:
        is_result = message["role"] == "tool"
        if is_result and was_result:
            found[-1]["content"] += f"\n{_result(message)}"
        elif is_result:
            found.append({"role": "user", "content": _result(message)})
        else:
            found.append(_with_calls(message) if message.get("tool_calls") else message)
        was_result = is_result
    return found


def _result(message: Message) -> str:
    return f"<tool_response>\n{message['content']}\n</tool_response>"


def _with_calls(message: Message) -> Message:
    functions = (call["function"] for call in message["tool_calls"])
    shown = ({"name": function["name"], "arguments": function["arguments"]} for function in functions)
    parts = [message["content"], *(f"<tool_call>\n{_json(call)}\n</tool_call>" for call in shown)]
    kept = {key: value for key, value in message.items() if key != "tool_calls"}
    return kept | {"content": "\n".join(part for part in parts if part)}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
