"""`make demo`: a server on a free port and an empty store answers one question with the embedded model."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time

from ollama_compat.compare.processes import free_port

QUESTION = "Tell me a short story about a fox and a lantern."


def main() -> int:
    """Ask, print the answer as it comes, stop the server; 0 when there was an answer."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="moellama-demo-") as store:
        environ = os.environ | {"OLLAMA_HOST": f"127.0.0.1:{port}", "OLLAMA_MODELS": store}
        server = subprocess.Popen([sys.executable, "-m", "ollama_compat", "serve"], env=environ, stderr=subprocess.PIPE)
        try:
            _wait(port, server)
            print(f"$ moellama run demo-moe {QUESTION!r}\n", flush=True)
            return 0 if _ask(port) else 1
        finally:
            server.terminate()
            server.communicate(timeout=30)


def _wait(port: int, server: subprocess.Popen[bytes]) -> None:
    """Until the server accepts connections; SystemExit with its log when it does not start."""
    for _ in range(600):
        if server.poll() is not None:
            raise SystemExit(f"the server ended with status {server.returncode}:\n{(server.communicate()[1] or b'').decode()}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit("the server did not start within 30 seconds")


def _ask(port: int) -> bool:
    """POST /api/chat and print the stream; True when some text came and the answer was complete."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    body = {
        "model": "demo-moe",
        "messages": [{"role": "user", "content": QUESTION}],
        "think": False,
        "options": {"temperature": 0, "num_predict": 200},
    }
    connection.request("POST", "/api/chat", json.dumps(body))
    answer, last = "", {}
    for line in connection.getresponse():
        last = json.loads(line)
        if "error" in last:
            raise SystemExit(f"the server answered: {last['error']}")
        answer += last["message"]["content"]
        print(last["message"]["content"], end="", flush=True)
    speed = last["eval_count"] / last["eval_duration"] * 1e9 if last.get("eval_duration") else 0
    print(f"\n\n{last.get('eval_count', 0)} tokens, {speed:.0f} a second", flush=True)
    return bool(answer.strip()) and bool(last.get("done"))


if __name__ == "__main__":
    raise SystemExit(main())
