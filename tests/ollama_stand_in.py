"""A stand-in for a server that `ab` measures: given figures, and answers in the API of Ollama and of llama-server.

As a program (`python tests/ollama_stand_in.py serve`) it takes its address from OLLAMA_HOST, as Ollama does, and writes what it
was told by its environment and its requests into the folder of STAND_IN_NOTES, a file each process.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ANY = 1000  # requests at a time
VARIABLES = ("LLAMA_ARG_CPU_MOE", "OLLAMA_MODELS")


def token(text: str, *top: tuple[str, float]) -> dict[str, Any]:
    """As both APIs report it with its log probabilities."""
    return {"token": text, "top_logprobs": [{"token": name, "logprob": value} for name, value in top]}


class StandIn(BaseHTTPRequestHandler):
    """A server of Ollama's API that answers with given figures, and llama-server's completions."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self._reply({"data": [{"id": name} for name in self.server.models]})  # type: ignore[attr-defined]
        else:
            self._reply({"version": "0.33.0", "models": []})

    def do_POST(self) -> None:
        self.server.keys.add(self.headers.get("Authorization"))  # type: ignore[attr-defined]
        with self.server.busy():  # type: ignore[attr-defined]
            self._answer()

    def _answer(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body.get("options"))  # type: ignore[attr-defined]
        if self.server.users > self.server.most:  # type: ignore[attr-defined]
            self._reply({"error": "server busy, please try again.  maximum pending requests exceeded"}, 503)
        elif self.path == "/api/show":
            self._reply({"capabilities": ["completion", "tools"], "modelfile": self.server.modelfile})  # type: ignore[attr-defined]
        elif self.path == "/v1/chat/completions" and body.get("stream"):
            self._completion()
        elif self.path == "/v1/chat/completions":
            told = {"content": [token("a", ("a", -0.5), ("x", -0.6)), token("c", ("c", -0.7), ("b", -0.8))]}
            self._reply({"choices": [{"message": {"content": "ac"}, "logprobs": told}]})
        elif self.path == "/api/generate":  # loads, or unloads
            self._reply({"done": True})
        elif body.get("stream", True):
            self._chat(body)
        elif body.get("_debug_render_only"):
            self._reply({"_debug_info": {"rendered_template": str(body["messages"])}})
        else:
            message = {"content": "ab", "tool_calls": [{"function": {"name": "f", "arguments": {}}}] if "tools" in body else []}
            self._reply({"message": message, "logprobs": [token("a"), token("b", ("b", -0.6), ("c", -0.7))], "done": True})

    def _chat(self, body: dict[str, Any]) -> None:
        words = len(body["messages"][0]["content"].split())
        counts = {"prompt_eval_count": words, "prompt_eval_duration": words * 10**5, "eval_count": 8, "eval_duration": 8 * 10**6}
        lines = [{"message": {"thinking": "a "}}, {"message": {"content": "b"}}, {"message": {}, "done": True} | counts]
        self._chunks([json.dumps(line).encode() + b"\n" for line in lines])

    def _completion(self) -> None:
        last = {
            "choices": [],
            "usage": {"prompt_tokens": 80, "completion_tokens": 8},  # 16 of them were known
            "timings": {"prompt_n": 64, "prompt_ms": 6.4},
        }
        events = [{"choices": [{"delta": {"content": text}}]} for text in ("a ", "b")] + [last]
        self._chunks([*(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events), b"data: [DONE]\n\n"])

    def _chunks(self, parts: list[bytes]) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for part in parts:
            self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            self.wfile.flush()
            time.sleep(0.001)
        self.wfile.write(b"0\r\n\r\n")

    def _reply(self, value: Any, status: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Quietly."""


class Server(ThreadingHTTPServer):
    """`asked`: the options of every request; `notes`: where that and the environment are written, again and again; `most`:
    requests at a time, of which one more gets an error; `models`: names in OpenAI's API; `keys`: what requests showed."""

    request_queue_size = 64  # more than there are users who come at once

    def __init__(self, address: tuple[str, int], notes: Path | None = None) -> None:
        super().__init__(address, StandIn)
        self.asked: list[Any] = []
        self.most, self.users = ANY, 0
        self.models, self.modelfile = ["other"], ""
        self.keys: set[str | None] = set()
        self._lock = threading.Lock()
        self._notes = notes

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """While a request is answered."""
        with self._lock:
            self.users += 1
        try:
            if self.most < ANY:
                time.sleep(0.05)  # those who come together are here together
            yield
        finally:
            with self._lock:
                self.users -= 1

    def service_actions(self) -> None:
        if self._notes:
            told = {name: os.environ[name] for name in VARIABLES if name in os.environ}
            part = self._notes.with_suffix(".part")  # whoever ends the process may come at any time
            part.write_text(json.dumps({"environ": told, "asked": self.asked}))
            part.replace(self._notes)


def main() -> None:
    """Serve until killed."""
    host, _, port = os.environ["OLLAMA_HOST"].rpartition(":")
    Server((host, int(port)), Path(os.environ["STAND_IN_NOTES"]) / f"{os.getpid()}.json").serve_forever(0.05)


if __name__ == "__main__":
    main()
