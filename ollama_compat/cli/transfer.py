"""pull and push, and showing a server's progress: a spinner for each status, a bar for each file."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from ollama_compat.cli.account import explain
from ollama_compat.cli.client import Client
from ollama_compat.cli.command import Call
from ollama_compat.cli.errors import CommandError, SignInNeeded
from ollama_compat.cli.json_output import print_lines
from ollama_compat.cli.progress import Bar, Progress, Spinner

NOT_AUTHORIZED = "you are not authorized to push to this namespace, create the model under a namespace you own"


class Steps:
    """Draws the progress objects of create, pull and push. `unnamed` is what a bar without a status is called."""

    def __init__(self, progress: Progress, unnamed: str, status: str = "") -> None:
        self._progress, self._unnamed, self._status = progress, unnamed, status
        self._bars: dict[str, Bar] = {}
        self._spinner: Spinner | None = None

    def show(self, answer: Mapping[str, Any], label: str = "") -> None:
        """One object; `label` is the name of a new bar, its status by default."""
        digest, status = answer.get("digest", ""), answer.get("status", "")
        if digest:
            self._bar(digest, label or status, answer).set(answer.get("completed", 0))
        elif status != self._status:
            self._finish_spinner()
            self._status, self._spinner = status, Spinner(status)
            self._progress.add(self._spinner)

    def _bar(self, digest: str, label: str, answer: Mapping[str, Any]) -> Bar:
        self._finish_spinner()
        if digest not in self._bars:
            label = label or self._unnamed.format(digest[7:19])
            self._bars[digest] = Bar(label, answer.get("total", 0), answer.get("completed", 0))
            self._progress.add(self._bars[digest])
        return self._bars[digest]

    def _finish_spinner(self) -> None:
        if self._spinner is not None:
            self._spinner.finish()


def pull(call: Call) -> None:
    """`pull MODEL [--insecure] [--json]`."""
    if call.flags.on("json"):
        print_lines(call.client.stream("/api/pull", _body(call.words[0], call.flags.on("insecure"))))
        return
    pull_model(call.client, call.words[0], insecure=call.flags.on("insecure"))


def pull_model(client: Client, name: str, *, insecure: bool) -> None:
    """Have the server fetch a model, with bars for its files."""
    with Progress(sys.stderr) as progress:
        steps = Steps(progress, "")
        for answer in client.stream("/api/pull", _body(name, insecure)):
            digest = answer.get("digest", "")
            if digest and not answer.get("completed"):
                continue  # announced, not begun
            steps.show(answer, f"pulling {_short(digest)}:")


def _body(name: str, insecure: bool) -> dict[str, Any]:
    return {"model": name, **({"insecure": True} if insecure else {})}


def _short(digest: str) -> str:
    kind, _, name = digest.rpartition("sha256:")
    return digest if kind or not name or name == digest else name.strip()[:12]


def push(call: Call) -> None:
    """`push MODEL [--insecure] [--json]`; models of ollama.com need an account."""
    name = call.words[0]
    official, page = _page(name)
    try:
        if official:
            call.client.whoami()
        if call.flags.on("json"):
            print_lines(call.client.stream("/api/push", _body(name, call.flags.on("insecure"))))
            return
        _push(call.client, name, insecure=call.flags.on("insecure"))
    except SignInNeeded as error:
        explain(error, "to push models to ollama.com")
        return
    print(f"\nYou can find your model at:\n\n\t{page}")


def _page(name: str) -> tuple[bool, str]:
    """Whether a name belongs to ollama.com, and where the model can be found then."""
    from ollama_compat.store.names import InvalidName, ModelName  # only here: the store takes long to import

    try:
        parsed = ModelName.parse(name)
    except InvalidName:
        return False, name
    if parsed.host.endswith((".ollama.ai", ".ollama.com")):
        return True, f"https://ollama.com/{parsed.short().removesuffix(':latest')}"
    return False, parsed.full()


def _push(client: Client, name: str, *, insecure: bool) -> None:
    with Progress(sys.stderr) as progress:
        steps = Steps(progress, "pushing {}...")
        try:
            for answer in client.stream("/api/push", _body(name, insecure)):
                steps.show(answer)
        except SignInNeeded:
            raise
        except CommandError as error:
            if any(word in str(error).lower() for word in ("access denied", "unauthorized")):
                raise CommandError(NOT_AUTHORIZED) from error
            raise
