"""run: one answer to a prompt, or an interactive session."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from ollama_compat import duration
from ollama_compat.cli import human, media
from ollama_compat.cli.account import explain
from ollama_compat.cli.client import Client
from ollama_compat.cli.command import Call
from ollama_compat.cli.errors import CommandError, SignInNeeded, StatusError
from ollama_compat.cli.json_output import print_json
from ollama_compat.cli.session import Session
from ollama_compat.cli.show import NO_IMAGES
from ollama_compat.cli.transfer import pull_model

LEVELS = ("high", "medium", "low", "max")


def run(call: Call) -> None:
    """`run MODEL [PROMPT]`: without a prompt, on a terminal, a session."""
    try:
        _run(call)
    except SignInNeeded as error:
        explain(error)


def _run(call: Call) -> None:
    model, *words = call.words
    session = _session(call, model)
    if not sys.stdin.isatty():
        piped = sys.stdin.buffer.read().decode("utf-8", "replace")
        words = [piped, *words] if piped else words
    as_json = call.flags.on("json")
    interactive = not as_json and not words and sys.stdin.isatty() and sys.stdout.isatty()
    info = show_or_pull(call.client, model, insecure=call.flags.on("insecure"))
    session.adopt(info)
    prompt = " ".join(words)
    capabilities = info.get("capabilities") or ()
    if "embedding" in capabilities:
        _embed(call, session, prompt)
    elif "image" in capabilities:
        raise CommandError(NO_IMAGES)
    elif interactive:
        from ollama_compat.cli.interactive import converse  # needs much that a prompt does not

        converse(session, call.environment, info)
    else:
        prompt, images = media.extract(prompt) if session.takes_media else (prompt, [])
        if as_json:
            print_json(session.answer(prompt, images))
        else:
            session.generate(prompt, images)


def _session(call: Call, model: str) -> Session:
    """What the flags ask for."""
    flags = call.flags
    return Session(
        call.client,
        model,
        format=flags.text("format"),
        think=read_think(flags.text("think")) if "think" in flags.given else None,
        think_chosen="think" in flags.given,
        hide_thinking=flags.on("hidethinking"),
        keep_alive=read_keep_alive(flags.text("keepalive")),
        wrap=not flags.on("nowordwrap"),
        verbose=flags.on("verbose"),
    )


def read_think(text: str) -> bool | str:
    """The value of --think."""
    if text in LEVELS:
        return text
    if text in ("", "true", "false"):
        return text != "false"
    raise CommandError(f"invalid value for --think: {duration.quote(text)} (must be true, false, high, medium, low, or max)")


def read_keep_alive(text: str) -> str | int | None:
    """The value of --keepalive as the API takes it: a duration, -1 for ever, None when it was not given."""
    if not text:
        return None
    try:
        ns = duration.parse(text)
    except duration.DurationError as error:
        raise CommandError(str(error)) from error
    return -1 if ns < 0 else duration.text(ns)


def show_or_pull(client: Client, model: str, *, insecure: bool) -> Mapping[str, Any]:
    """What /api/show says about a model, which is pulled first when it is missing."""
    try:
        return client.show(model)
    except StatusError as error:
        if error.status != 404:
            raise
    pull_model(client, model, insecure=insecure)
    return client.show(model)


def _embed(call: Call, session: Session, text: str) -> None:
    """An embedding model answers with a JSON array."""
    if not text:
        usage = f'ollama run {session.model} "your text here"'
        raise CommandError(f"embedding models require input text. Usage: {usage}")
    body: dict[str, Any] = {"model": session.model, "input": text}
    if session.keep_alive is not None:
        body["keep_alive"] = session.keep_alive
    if "truncate" in call.flags.given:
        body["truncate"] = call.flags.on("truncate")
    if call.flags.count("dimensions") > 0:
        body["dimensions"] = call.flags.count("dimensions")
    vectors = session.client.embed(body).get("embeddings")
    if not vectors:
        raise CommandError("no embeddings returned")
    print("[" + ",".join(human.json_float32(number) for number in vectors[0]) + "]")
