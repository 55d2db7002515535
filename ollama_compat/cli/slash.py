"""The commands of the interactive session that begin with a slash."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping
from typing import Any

from ollama_compat import modelfile
from ollama_compat.cli import human, texts
from ollama_compat.cli.editor import Reader
from ollama_compat.cli.errors import CommandError
from ollama_compat.cli.history import History
from ollama_compat.cli.load import load
from ollama_compat.cli.models import print_models
from ollama_compat.cli.session import Session
from ollama_compat.cli.show import sections
from ollama_compat.duration import quote


@dataclasses.dataclass(frozen=True, slots=True)
class Context:
    """What the commands may change."""

    session: Session
    reader: Reader
    history: History


def run(context: Context, line: str) -> None:
    """Do what a line says that begins with a slash. Like Ollama it looks at how the line begins: `/listing` is `/list`."""
    words = line.split()
    for prefix, action in _COMMANDS.items():
        if line.startswith(prefix):
            action(context, words[1:])
            return
    print(f"Unknown command '{words[0]}'. Type /? for help")


def _list(context: Context, words: list[str]) -> None:
    print_models(context.session.client, words)


def _load(context: Context, words: list[str]) -> None:
    """Another model; the messages so far are dropped."""
    if len(words) != 1:
        print("Usage:\n  /load <modelname>")
        return
    session, name = context.session, words[0]
    print(f"Loading model '{name}'")
    before = dataclasses.replace(session)
    session.model, session.messages, session.loaded_messages = name, [], []
    try:
        session.adopt(session.client.show(name))
        load(session.client, name, keep_alive=session.keep_alive, think=session.think)
    except CommandError as error:
        if "not found" in str(error):
            print(f"Couldn't find model '{name}'")
            _restore(session, before)
        elif "does not support thinking" in str(error):
            print(f"error: {error}")
        else:
            raise


def _restore(session: Session, before: Session) -> None:
    for field in dataclasses.fields(Session):
        setattr(session, field.name, getattr(before, field.name))


def _save(context: Context, words: list[str]) -> None:
    """The session as a new model: its parent, parameters, system message and messages."""
    if len(words) != 1:
        print("Usage:\n  /save <modelname>")
        return
    session, name = context.session, words[0]
    optional = {
        "system": session.system,
        "parameters": session.options,
        "messages": session.loaded_messages + session.messages,
    }
    body = {"model": name, "from": _parent(session), **{key: value for key, value in optional.items() if value}}
    try:
        for _ in session.client.stream("/api/create", body):
            pass
    except CommandError as error:
        if "invalid model name" not in str(error):
            raise
        print(f"error: The model name '{name}' is invalid")
        return
    print(f"Created new model '{name}'")


def _parent(session: Session) -> str:
    from ollama_compat.store.names import InvalidName, ModelName  # only here: the store takes long to import

    try:
        ModelName.parse(session.parent_model)
    except InvalidName:
        return session.model
    return session.parent_model


def _clear(context: Context, words: list[str]) -> None:
    system = context.session.system
    context.session.messages = [{"role": "system", "content": system}] if system else []
    print("Cleared session context")


def _set(context: Context, words: list[str]) -> None:
    if not words:
        _tell(texts.SET)
    elif words[0] in _SETTINGS:
        _SETTINGS[words[0]](context, words[1:])
    else:
        print(f"Unknown command '/set {words[0]}'. Type /? for help")


def _set_history(context: Context, words: list[str]) -> None:
    context.history.saving = True


def _set_no_history(context: Context, words: list[str]) -> None:
    context.history.saving = False


def _set_wrap(context: Context, words: list[str]) -> None:
    context.session.wrap = True
    print("Set 'wordwrap' mode.")


def _set_no_wrap(context: Context, words: list[str]) -> None:
    context.session.wrap = False
    print("Set 'nowordwrap' mode.")


def _set_verbose(context: Context, words: list[str]) -> None:
    context.session.verbose = True
    print("Set 'verbose' mode.")


def _set_quiet(context: Context, words: list[str]) -> None:
    context.session.verbose = False
    print("Set 'quiet' mode.")


def _set_think(context: Context, words: list[str]) -> None:
    _choose_thinking(context.session, words[0] if words else True)
    print(f"Set 'think' mode to '{words[0]}'." if words else "Set 'think' mode.")


def _set_no_think(context: Context, words: list[str]) -> None:
    _choose_thinking(context.session, False)
    print("Set 'nothink' mode.")


def _choose_thinking(session: Session, value: bool | str) -> None:
    session.think, session.think_chosen = value, True
    try:
        info = session.client.show(session.model)
    except CommandError:
        return
    if "thinking" not in (info.get("capabilities") or ()):
        print(f"warning: model {quote(session.model)} does not support thinking output", file=sys.stderr)


def _set_format(context: Context, words: list[str]) -> None:
    if words[:1] != ["json"]:
        print("Invalid or missing format. For 'json' mode use '/set format json'")
        return
    context.session.format = "json"
    print("Set format to 'json' mode.")


def _set_no_format(context: Context, words: list[str]) -> None:
    context.session.format = ""
    print("Disabled format.")


def _set_parameter(context: Context, words: list[str]) -> None:
    if len(words) < 2:
        _tell(texts.PARAMETERS)
        return
    name, values = words[0], words[1:]
    try:
        value = modelfile.parameter(name, values)
    except ValueError as error:
        print(f"Couldn't set parameter: {quote(str(error))}")
        return
    context.session.options[name] = value
    print(f"Set parameter '{name}' to '{', '.join(values)}'")


def _set_system_help(context: Context, words: list[str]) -> None:
    """Only reached without a text; with one the session collects it."""
    _tell(texts.SET)


def _show(context: Context, words: list[str]) -> None:
    if not words:
        _tell(texts.SHOW)
        return
    session = context.session
    try:
        answer = session.client.show(session.model, system=session.system, options=session.options)
    except CommandError:
        print("error: couldn't get model")
        raise
    if words[0] in _PARTS:
        _PARTS[words[0]](session, answer)
    else:
        print(f"Unknown command '/show {words[0]}'. Type /? for help")


def _show_info(session: Session, answer: Mapping[str, Any]) -> None:
    print(sections(answer), end="", file=sys.stderr)


def _show_license(session: Session, answer: Mapping[str, Any]) -> None:
    print(answer.get("license") or "No license was specified for this model.")


def _show_modelfile(session: Session, answer: Mapping[str, Any]) -> None:
    print(answer.get("modelfile", ""))


def _show_parameters(session: Session, answer: Mapping[str, Any]) -> None:
    own = answer.get("parameters") or "No additional parameters were specified for this model."
    print("Model defined parameters:\n" + "".join(f"  {line}\n" for line in own.split("\n")))
    if session.options:
        rows = (f"  {name:<30} {_parameter(value)}\n" for name, value in session.options.items())
        print("User defined parameters:\n" + "".join(rows))


def _parameter(value: Any) -> str:
    return human.float32(value) if isinstance(value, float) else human.value(value)


def _show_system(session: Session, answer: Mapping[str, Any]) -> None:
    system = session.system or answer.get("system")
    print(f"{system}\n" if system else "No system message was specified for this model.")


def _show_template(session: Session, answer: Mapping[str, Any]) -> None:
    print(answer.get("template") or "No prompt template was specified for this model.")


def _help(context: Context, words: list[str]) -> None:
    media = texts.MEDIA if context.session.takes_media else ""
    if not words:
        _tell(texts.HELP + media)
    elif words[0].removeprefix("/") in ("set", "show"):
        _tell(texts.SET if words[0].endswith("set") else texts.SHOW)
    elif words[0] in ("shortcut", "shortcuts"):
        _tell(texts.SHORTCUTS)


def _tell(text: str) -> None:
    """Help goes to stderr, with an empty line behind it."""
    print(text, file=sys.stderr)


_Action = Callable[[Context, list[str]], None]

_SETTINGS: Mapping[str, _Action] = {
    "history": _set_history,
    "nohistory": _set_no_history,
    "wordwrap": _set_wrap,
    "nowordwrap": _set_no_wrap,
    "verbose": _set_verbose,
    "quiet": _set_quiet,
    "think": _set_think,
    "nothink": _set_no_think,
    "format": _set_format,
    "noformat": _set_no_format,
    "parameter": _set_parameter,
    "system": _set_system_help,
}
_PARTS: Mapping[str, Callable[[Session, Mapping[str, Any]], None]] = {
    "info": _show_info,
    "license": _show_license,
    "modelfile": _show_modelfile,
    "parameters": _show_parameters,
    "system": _show_system,
    "template": _show_template,
}
_COMMANDS: Mapping[str, _Action] = {
    "/list": _list,
    "/load": _load,
    "/save": _save,
    "/clear": _clear,
    "/set": _set,
    "/show": _show,
    "/help": _help,
    "/?": _help,
}
PREFIXES = (*_COMMANDS, "/exit", "/bye")
