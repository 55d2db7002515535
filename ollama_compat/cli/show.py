"""show: one part of a model as it is, or all of it in sections."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard

from ollama_compat.cli import human
from ollama_compat.cli.command import Call
from ollama_compat.cli.errors import CommandError
from ollama_compat.cli.json_output import print_json
from ollama_compat.cli.table import CELL_WIDTH, render
from ollama_compat.cli.width import text_width

PARTS = ("license", "modelfile", "parameters", "system", "template")
ONE_PART = "only one of '--license', '--modelfile', '--parameters', '--system', or '--template' can be specified"
NO_IMAGES = "image generation models are not currently supported"
LONG_TEXT_WIDTH = 100
HEAD_LINES = 2  # of the system message and of the licence
LIST_WIDTH = 10  # columns of a list's first items

Row = list[str]


def show(call: Call) -> None:
    """`show MODEL` with at most one of the part flags, or everything with --json."""
    parts = [part for part in PARTS if call.flags.on(part)]
    if len(parts) > 1:
        raise CommandError(ONE_PART)
    verbose = call.flags.on("verbose")
    answer = call.client.show(call.words[0], verbose=verbose)
    if "image" in (answer.get("capabilities") or ()):
        raise CommandError(NO_IMAGES)
    if call.flags.on("json"):
        print_json({part: answer.get(part, "") for part in parts} or answer)
    elif parts:
        print(answer.get(parts[0], ""), end="" if parts[0] in ("system", "template") else "\n")
    else:
        print(sections(answer, verbose=verbose), end="")


def sections(answer: Mapping[str, Any], *, verbose: bool = False) -> str:
    """The text of all sections that the model has."""
    info = answer.get("model_info")
    text = _section("Model", _model_rows(answer))
    if capabilities := answer.get("capabilities"):
        text += _section("Capabilities", [["", name] for name in capabilities])
    if (projector := answer.get("projector_info")) is not None:
        text += _section("Projector", _projector_rows(projector))
    if parameters := answer.get("parameters"):
        text += _section("Parameters", [["", *line.split()] for line in parameters.split("\n") if line])
    if info is not None and verbose:
        text += _section("Metadata", [["", key, _metadata(info[key])] for key in sorted(info)])
    if verbose and (tensors := answer.get("tensors")):
        text += _section("Tensors", [["", t["name"], t["type"], human.values(t["shape"])] for t in tensors])
    for title, part in (("System", "system"), ("License", "license")):
        if answer.get(part):
            text += _section(title, _head(answer[part]), LONG_TEXT_WIDTH)
    return text


def _section(title: str, rows: Iterable[Row], cell_width: int = CELL_WIDTH) -> str:
    return f"  {title}\n{render(list(rows), cell_width=cell_width)}\n"


def _model_rows(answer: Mapping[str, Any]) -> list[Row]:
    details, info = answer.get("details") or {}, answer.get("model_info")
    rows = []
    if answer.get("remote_host"):
        rows += [["", "Remote model", answer.get("remote_model", "")], ["", "Remote URL", answer["remote_host"]]]
    if info is None:
        rows += [["", "architecture", details.get("family", "")], ["", "parameters", details.get("parameter_size", "")]]
    else:
        rows += _info_rows(info, details.get("parameter_size", ""))
    rows.append(["", "quantization", details.get("quantization_level", "")])
    if answer.get("requires"):
        rows.append(["", "requires", answer["requires"]])
    return rows


def _info_rows(info: Mapping[str, Any], parameters: str) -> list[Row]:
    arch = info.get("general.architecture") or ""
    if not parameters and _is_number(count := info.get("general.parameter_count")):
        parameters = human.number(int(count))
    rows = [["", "architecture", arch]] if arch else []
    rows += [["", "parameters", parameters]] if parameters else []
    lengths = ((name, info.get(f"{arch}.{name.replace(' ', '_')}")) for name in ("context length", "embedding length"))
    return rows + [["", name, _number(length)] for name, length in lengths if _is_number(length)]


def _projector_rows(projector: Mapping[str, Any]) -> list[Row]:
    arch = projector.get("general.architecture") or ""
    rows = [["", "architecture", arch]] if arch else []
    if _is_number(count := projector.get("general.parameter_count")):
        rows.append(["", "parameters", human.number(int(count))])
    for name, key in (("embedding length", "embedding_length"), ("dimensions", "projection_dim")):
        values = (projector.get(f"{arch}.{modality}.{key}") for modality in ("vision", "audio"))
        rows += [["", name, _number(value)] for value in values if _is_number(value)][:1]
    return rows


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _number(value: float) -> str:
    """A number written out, without an exponent."""
    return str(int(value)) if value == int(value) else repr(value)


def _metadata(value: Any) -> str:
    """A metadata value in a few columns."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if _is_number(value):
        return human.general(value)
    if isinstance(value, list):
        return _list(value)
    return "<nil>" if value is None else "map[string]interface {}"


def _list(items: list[Any]) -> str:
    """The first items, as many as fit, and how many more there are."""
    shown, width = 0, 1
    for item in items:
        width += text_width(human.value(item)) + (2 if shown else 0)
        if width > LIST_WIDTH and shown:
            break
        shown += 1
    if shown == len(items):
        return human.values(items)
    return f"{human.values(items[:shown])[:-1]} ...+{len(items) - shown} more]"


def _head(text: str) -> list[Row]:
    """The first lines that are not empty, and dots for the others."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    return [["", line] for line in lines[:HEAD_LINES]] + ([["", "..."]] if len(lines) > HEAD_LINES else [])
