"""A scripted Ollama server, and ways to run the command line against it."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import sys
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from unittest import mock

from ollama_compat.cli.root import main

NDJSON = "application/x-ndjson"
JSON = "application/json"
SHOW = {"details": {}, "capabilities": ["completion"], "model_info": {}}


def lines(*objects: Any) -> bytes:
    """NDJSON."""
    return b"".join(json.dumps(item).encode() + b"\n" for item in objects)


@dataclasses.dataclass(frozen=True, slots=True)
class Reply:
    """What the server says."""

    body: Any = b""  # bytes as they are, anything else as JSON
    status: int = 200
    kind: str = JSON

    @property
    def data(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


def stream(*objects: Any) -> Reply:
    """A streamed reply."""
    return Reply(lines(*objects), kind=NDJSON)


_USUAL: Mapping[str, Reply] = {
    "POST /api/create": stream({"status": "success"}),
    "POST /api/pull": stream({"status": "pulling manifest"}, {"status": "success"}),
    "POST /api/show": Reply(SHOW),
    "POST /api/generate": stream({"response": "Hi"}, {"response": "", "done": True}),
    "POST /api/chat": stream(
        {"message": {"role": "assistant", "content": "Hi"}}, {"message": {"role": "assistant", "content": ""}, "done": True}
    ),
}


class FakeOllama:
    """Answers what `replies` says for `METHOD /path`, else something harmless, and remembers the requests."""

    def __init__(self, replies: Mapping[str, Reply] | None = None) -> None:
        self.replies: dict[str, Reply] = dict(replies or {})
        self.requests: list[tuple[str, str, Any]] = []
        self.endless: dict[str, tuple[bytes, threading.Event]] = {}  # what comes again and again, and who is told of the end
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def script(self, replies: Mapping[str, Reply]) -> None:
        """Begin anew with other replies."""
        self.replies, self.requests = dict(replies), []

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    def reply(self, method: str, path: str) -> Reply:
        key = f"{method} {path}"
        if key in self.replies:
            return self.replies[key]
        if path.startswith("/api/blobs/"):
            return Reply(status=404 if method == "HEAD" else 201)
        return _USUAL.get(key, Reply())

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments: Any) -> None:
                pass

            def handle_one(self) -> None:
                body = self._body()
                try:
                    value = json.loads(body) if body else None
                except ValueError:
                    value = body.decode("latin-1")
                fake.requests.append((self.command, self.path, value))
                if f"{self.command} {self.path}" in fake.endless:
                    self._pour(*fake.endless[f"{self.command} {self.path}"])
                    return
                reply = fake.reply(self.command, self.path)
                self.send_response(reply.status)
                self.send_header("Content-Type", reply.kind)
                self.send_header("Content-Length", str(len(reply.data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(reply.data)

            def _pour(self, line: bytes, gone: threading.Event) -> None:
                self.send_response(200)
                self.end_headers()
                self.close_connection = True
                try:
                    while not gone.wait(0.02):
                        self.wfile.write(line)
                except OSError:
                    gone.set()

            def _body(self) -> bytes:
                if self.headers.get("Transfer-Encoding") != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                data = b""
                while size := int(self.rfile.readline(), 16):
                    data += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return data

            do_GET = do_POST = do_HEAD = do_DELETE = handle_one

        return Handler


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """How a command ended."""

    status: int
    out: str
    err: str


def run(*args: str, host: str, stdin: bytes = b"", folder: Path | None = None, **environ: str) -> Result:
    """Run the command line in this process; stdin, stdout and stderr are no terminals."""
    out, err = io.BytesIO(), io.BytesIO()
    streams = {
        "stdin": io.TextIOWrapper(io.BytesIO(stdin)),
        "stdout": io.TextIOWrapper(out, write_through=True),
        "stderr": io.TextIOWrapper(err, write_through=True),
    }
    before = Path.cwd()
    with mock.patch.dict(os.environ, {"OLLAMA_HOST": host, **environ}), mock.patch.multiple(sys, **streams):
        try:
            os.chdir(folder or before)
            status = main(args)
        finally:
            os.chdir(before)
    return Result(status, out.getvalue().decode(), err.getvalue().decode())


def without_frames(text: str) -> str:
    """What Ollama's progress leaves on a screen: only the last frame, nothing when it was wiped away."""
    text = re.sub(r"\x1b\[\?2026h.*?\x1b\[\?2026l(?=.*\x1b\[\?2026h)", "", text, flags=re.DOTALL)
    if "\x1b[2K" in text:
        text = re.sub(r"\x1b\[\?2026h.*?\x1b\[\?2026l", "", text, flags=re.DOTALL)
    text = re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", text)
    told = [line.rstrip() for line in text.split("\n") if line.strip()]
    files = sorted(line for line in told if line.startswith("copying file"))  # which are sent in any order
    return "\n".join(files.pop(0) if line.startswith("copying file") else line for line in told)


def meaning(requests: list[tuple[str, str, Any]]) -> list[Any]:
    """Requests without what means nothing: looks at whether something is there, zero fields, the order of the files."""
    told = [[method, path, _meaning(body)] for method, path, body in requests if method != "HEAD"]
    blobs = sorted(request for request in told if "/blobs/" in request[1])
    return [*blobs, *(request for request in told if "/blobs/" not in request[1])]


def _meaning(body: Any) -> Any:
    if not isinstance(body, dict):
        return body
    told = {key: value for key, value in body.items() if key == "think" or value not in (None, "", [], {}, False)}
    if "name" in told and "model" not in told:
        told["model"] = told.pop("name")
    return told
