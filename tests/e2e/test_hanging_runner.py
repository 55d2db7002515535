"""A runner that is there and does nothing any more, behind the real server."""

from __future__ import annotations

import http.client
import json
import os
import signal
from pathlib import Path

from serving import Server


def test_a_runner_stopped_in_an_answer_is_replaced(tmp_path: Path) -> None:
    server = Server(tmp_path)
    try:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        ask = {"model": "demo-moe", "prompt": "Once", "options": {"num_predict": -1, "temperature": 0}}
        for _ in range(5):  # where this process gets no time, an answer may be over before its runner is stopped
            connection.request("POST", "/api/generate", json.dumps(ask))
            response = connection.getresponse()
            first = json.loads(response.readline())
            assert "response" in first
            (stopped,) = runners(server.process.pid)
            os.kill(stopped, signal.SIGSTOP)
            last = json.loads(response.read().splitlines()[-1])
            if "error" in last:
                break
            os.kill(stopped, signal.SIGCONT)
        assert last["error"].startswith("model runner has unexpectedly stopped")
        connection.request("POST", "/api/generate", json.dumps(ask | {"stream": False, "options": {"num_predict": 4}}))
        answer = json.loads(connection.getresponse().read())
        assert answer["done"], answer
        assert runners(server.process.pid) != [stopped]
        connection.close()
    finally:
        server.stop()


def runners(server: int) -> list[int]:
    children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    return [int(pid) for pid in children if b"runtime.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]
