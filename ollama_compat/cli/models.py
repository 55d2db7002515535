"""list, ps, cp, rm and stop: what the store and the memory hold."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ollama_compat.cli import human
from ollama_compat.cli.client import Client
from ollama_compat.cli.command import Call
from ollama_compat.cli.errors import CommandError
from ollama_compat.cli.json_output import print_json
from ollama_compat.cli.load import unload
from ollama_compat.cli.table import render

LIST_HEADER = ("NAME", "ID", "SIZE", "MODIFIED")
PS_HEADER = ("NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL")


def list_models(call: Call) -> None:
    """`list [PREFIX] [--json]`."""
    if call.flags.on("json"):
        print_json(_stored(call.client, call.words))
    else:
        print_models(call.client, call.words)


def print_models(client: Client, words: Sequence[str]) -> None:
    """The table of stored models whose names begin with the first word, if there is one."""
    print(render([_list_row(model) for model in _stored(client, words)], LIST_HEADER), end="")


def _stored(client: Client, words: Sequence[str]) -> list[dict[str, Any]]:
    prefix = words[0].lower() if words else ""
    return [model for model in client.models() if model.get("name", "").lower().startswith(prefix)]


def _list_row(model: Mapping[str, Any]) -> list[str]:
    size = "-" if model.get("remote_model") else human.size(model.get("size", 0))
    return [model["name"], model.get("digest", "")[:12], size, human.moment(model.get("modified_at", ""))]


def list_running(call: Call) -> None:
    """`ps [PREFIX] [--json]`."""
    prefix = call.words[0] if call.words else ""
    models = [model for model in call.client.running() if model.get("name", "").startswith(prefix)]
    if call.flags.on("json"):
        print_json(models)
    else:
        print(render([_ps_row(model) for model in models], PS_HEADER), end="")


def _ps_row(model: Mapping[str, Any]) -> list[str]:
    size, context = model.get("size", 0), model.get("context_length", 0)
    until = human.moment(model.get("expires_at", ""))
    until = "Stopping..." if until.endswith(" ago") or until == "Never" else until
    processor = _processor(size, model.get("size_vram", 0))
    return [model["name"], model.get("digest", "")[:12], human.size(size), processor, str(context), until]


def _processor(size: int, on_gpu: int) -> str:
    """Where a model lies: all, or which part, on the CPU."""
    if on_gpu == 0:
        return "100% CPU"
    if on_gpu == size:
        return "100% GPU"
    if on_gpu > size or size == 0:
        return "Unknown"
    on_cpu = math.floor((size - on_gpu) / size * 100 + 0.5)
    return f"{on_cpu}%/{100 - on_cpu}% CPU/GPU"


def copy(call: Call) -> None:
    """`cp SOURCE DESTINATION`."""
    source, destination = call.words
    call.client.copy(source, destination)
    print(f"copied '{source}' to '{destination}'")


def remove(call: Call) -> None:
    """`rm MODEL...`: each is unloaded first."""
    for name in call.words:
        try:
            unload(call.client, name)
        except CommandError as error:
            if "not found" not in str(error).lower():
                print(f"Warning: unable to stop model '{name}'", file=sys.stderr)
        call.client.delete(name)
        print(f"deleted '{name}'", flush=True)


def stop(call: Call) -> None:
    """`stop MODEL`."""
    name = call.words[0]
    try:
        unload(call.client, name)
    except CommandError as error:
        if "not found" in str(error):
            raise CommandError(f'couldn\'t find model "{name}" to stop') from error
        raise
