"""What a run is made with: the model, the messages so far, and how answers are asked for and shown."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

from ollama_compat.cli.answer import Answer, print_statistics
from ollama_compat.cli.client import Client, decode, encode_text
from ollama_compat.cli.errors import CommandError
from ollama_compat.cli.loading import spinner
from ollama_compat.cli.progress import Progress

Message = dict[str, Any]
MEDIA = frozenset({"vision", "audio"})


@dataclasses.dataclass(slots=True)
class Session:
    """State of `run`; the interactive commands change it."""

    client: Client
    model: str
    parent_model: str = ""
    loaded_messages: list[Message] = dataclasses.field(default_factory=list)  # those of the model itself
    messages: list[Message] = dataclasses.field(default_factory=list)
    system: str = ""
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    format: str = ""  # "", "json" or a schema
    keep_alive: str | int | None = None
    think: bool | str | None = None
    think_chosen: bool = False  # by the user, who is then believed more than the model's capabilities
    hide_thinking: bool = False
    wrap: bool = True
    verbose: bool = False
    takes_media: bool = False

    def adopt(self, info: Mapping[str, Any]) -> None:
        """Take over what /api/show says about the model."""
        self.parent_model = (info.get("details") or {}).get("parent_model", "")
        self.loaded_messages = list(info.get("messages") or ())
        capabilities = info.get("capabilities") or ()
        vision_keys = any(".vision." in key for key in info.get("model_info") or ())
        self.takes_media = bool(MEDIA.intersection(capabilities) or info.get("projector_info") or vision_keys)
        if not self.think_chosen:
            self.think = True if "thinking" in capabilities else None

    def generate(self, prompt: str, images: list[str]) -> None:
        """One-shot: ask /api/generate and print the answer. Ctrl+C ends it quietly."""
        body = self._prompt(prompt, images)
        answer = Answer(wrap=self.wrap, plain=not sys.stdout.isatty(), hide_thinking=self.hide_thinking)
        last = self._ask("/api/generate", body, answer)
        if last is None:
            return
        if prompt:
            print("\n")
        if last.get("done") and self.verbose:
            print_statistics(last)

    def answer(self, prompt: str, images: list[str]) -> Mapping[str, Any]:
        """One-shot: the whole answer of /api/generate."""
        answer = self.client.call("POST", "/api/generate", self._prompt(prompt, images) | {"stream": False})
        return answer if isinstance(answer, dict) else {}

    def _prompt(self, prompt: str, images: list[str]) -> dict[str, Any]:
        return {"prompt": prompt} | ({"images": images} if images else {}) | self._request()

    def chat(self) -> Message | None:
        """Ask /api/chat to answer the messages, print it and return it; None when Ctrl+C stopped it."""
        answer = Answer(wrap=self.wrap, plain=False, hide_thinking=self.hide_thinking)
        last = self._ask("/api/chat", {"messages": self.messages} | self._request(), answer)
        if last is None:
            answer.abandon()
            return None
        print("\n")
        if self.verbose:
            print_statistics(last)
        thinking = {"thinking": answer.thinking} if answer.thinking else {}
        return {"role": "assistant", "content": answer.content, **thinking}

    def _request(self) -> dict[str, Any]:
        """What every request says; what nobody set is left out."""
        optional = {"keep_alive": self.keep_alive, "think": self.think, "format": read_format(self.format)}
        chosen = {key: value for key, value in optional.items() if value is not None}
        return {"model": self.model, "options": self.options, **chosen}

    def _ask(self, path: str, body: Mapping[str, Any], answer: Answer) -> Mapping[str, Any] | None:
        """Stream an answer; its last object, None when it was interrupted."""
        last: Mapping[str, Any] = {}
        with Progress(sys.stderr, clear=True) as progress:
            progress.add(spinner(self.client, live=sys.stderr.isatty()))
            pieces = self.client.stream(path, body)
            try:
                for last in pieces:
                    piece = last.get("message") or last
                    content = piece.get("content", piece.get("response", ""))
                    if content or not self.hide_thinking:
                        progress.stop()
                    answer.show(content, piece.get("thinking", ""), piece.get("tool_calls") or ())
            except KeyboardInterrupt:
                return None
            finally:
                pieces.close()
        return last


def read_format(text: str) -> Any:
    """The value of `format`: the word json, or a schema given as JSON; None for nothing."""
    if text in ("", "json"):
        return text or None
    try:
        return decode(encode_text(text))
    except CommandError as error:
        raise CommandError(f"json: error calling MarshalJSON for type json.RawMessage: {error}") from error
