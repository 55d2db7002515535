"""The interactive session: lines become messages or commands until the user leaves."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Literal

from ollama_compat.cli import media, slash
from ollama_compat.cli.answer import Wrapped
from ollama_compat.cli.compose import compose
from ollama_compat.cli.editor import Compose, bracketed_paste, open_reader
from ollama_compat.cli.environment import Environment
from ollama_compat.cli.errors import CommandError
from ollama_compat.cli.history import History
from ollama_compat.cli.load import load
from ollama_compat.cli.session import Session

FENCE = '"""'
TRY_AGAIN = "An error occurred while processing your message. Please try again.\n"
_MENDABLE = ("does not support thinking", "invalid think value")


def converse(session: Session, environment: Environment, info: Mapping[str, Any]) -> None:
    """Load the model, show its own messages, and talk until Ctrl+D or /bye."""
    load(session.client, session.model, keep_alive=session.keep_alive, think=session.think)
    for message in info.get("messages") or ():
        _print_message(session, message)
    history = History(environment.home / ".ollama" / "history", saving=not environment.no_history)
    with bracketed_paste():
        Conversation(session, history, environment.editor).run()


def _print_message(session: Session, message: Mapping[str, Any]) -> None:
    if message.get("role") == "user":
        print(f">>> {message.get('content', '')}")
    elif message.get("role") == "assistant":
        Wrapped(sys.stdout, wrap=session.wrap).write(message.get("content", ""))
        print("\n")


class Conversation:
    """Collects lines into messages. `_open` is what an unfinished `\"\"\"` will become."""

    def __init__(self, session: Session, history: History, editor: str) -> None:
        self._session, self._history, self._editor = session, history, editor
        self._reader = open_reader(history)
        self._text = ""
        self._open: Literal["", "prompt", "system"] = ""

    def run(self) -> None:
        """Until the user leaves; CommandError when the server fails."""
        while True:
            try:
                line = self._reader.read()
            except EOFError:
                print()
                return
            except KeyboardInterrupt:
                print("\nUse Ctrl + d or /bye to exit.")
                self._forget()
                continue
            except Compose as request:
                self._compose(request.text)
                continue
            if self._is_end(line):
                return
            self._take(line)

    def _is_end(self, line: str) -> bool:
        return not self._open and not self._reader.pasting and line.startswith(("/exit", "/bye"))

    def _forget(self) -> None:
        self._text, self._open, self._reader.more = "", "", False

    def _compose(self, text: str) -> None:
        self._forget()
        try:
            written = compose(text, self._editor)
        except CommandError as error:
            print(f"error: {error}", file=sys.stderr)
            return
        self._reader.prefill = written if written.strip() else ""

    def _take(self, line: str) -> None:
        """One line: the rest of something open, a command, or text."""
        if self._open:
            self._continue(line)
        elif line.startswith(FENCE):
            self._begin(line, "prompt")
        elif self._reader.pasting:
            self._text += f"{line}\n"
            return
        elif line.startswith("/") and not (self._session.takes_media and self._names_file(line)):
            self._command(line)
        else:
            self._text += line
        if self._text and not self._open:
            self._send()

    def _names_file(self, line: str) -> bool:
        word = line.split()[0]
        is_command = line.startswith(slash.PREFIXES)
        return not is_command and any(path.startswith(word) for path in media.paths(line))

    def _begin(self, line: str, purpose: Literal["prompt", "system"]) -> None:
        """A line that starts with the fence: all of the text, or its first line."""
        text = line.removeprefix(FENCE)
        closed = text.endswith(FENCE)
        self._text += text.removesuffix(FENCE) if closed else f"{text}\n"
        self._open = "" if closed else purpose
        self._reader.more = not closed

    def _continue(self, line: str) -> None:
        if not line.endswith(FENCE):
            self._text += f"{line}\n"
            self._reader.more = True
            return
        self._text += line.removesuffix(FENCE)
        if self._open == "system":
            self._set_system()
        self._open = ""

    def _command(self, line: str) -> None:
        words = line.split()
        if words[:2] != ["/set", "system"] or len(words) < 3:
            slash.run(slash.Context(self._session, self._reader, self._history), line)
            return
        text = " ".join(words[2:])
        if text.startswith(FENCE):
            self._begin(text, "system")
        else:
            self._text += text
        if not self._open:
            self._set_system()

    def _set_system(self) -> None:
        """The collected text is the system message from now on."""
        session = self._session
        session.system, self._text = self._text, ""
        if session.messages and session.messages[-1]["role"] == "system":
            session.messages.pop()
        session.messages.append({"role": "system", "content": session.system})
        print("Set system message.")

    def _send(self) -> None:
        """Ask the model; the answer joins the messages."""
        session, text = self._session, self._text
        self._text = ""
        text, images = media.extract(text) if session.takes_media else (text, [])
        session.messages.append({"role": "user", "content": text, **({"images": images} if images else {})})
        try:
            answer = session.chat()
        except CommandError as error:
            if "upstream error" in str(error):
                print(TRY_AGAIN)
            elif any(words in str(error) for words in _MENDABLE):
                print(f"error: {error}")
            else:
                raise
            return
        if answer is not None:
            session.messages.append(answer)
