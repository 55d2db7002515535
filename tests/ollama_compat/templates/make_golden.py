#!/usr/bin/env python3
"""Writes golden.json: what llama.cpp's server makes of conversations.json with each template of this folder.

    ./make_golden.py path/to/llama-server path/to/any-model.gguf [folder of more templates]

llama.cpp of September 2026 made the file in the repository, with the demo model (its BOS and EOS stand in golden.json).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PORT = 18973


def call(path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}{path}", data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        return json.load(error)


def wait_until_ready() -> None:
    for _ in range(200):
        try:
            if call("/health").get("status") == "ok":
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise SystemExit("llama-server did not start")


def openai(message: dict[str, Any]) -> dict[str, Any]:
    """An Ollama message as Ollama sends it to llama-server."""
    body = {"role": message["role"], "content": message["content"]}
    for ours, theirs in (("tool_name", "name"), ("tool_call_id", "tool_call_id")):
        if ours in message:
            body[theirs] = message[ours]
    if calls := message.get("tool_calls"):
        body["tool_calls"] = [{"id": call["id"], "type": "function", "function": function(call["function"])} for call in calls]
    return body


def function(called: dict[str, Any]) -> dict[str, str]:
    arguments = json.dumps(called["arguments"], separators=(",", ":"), ensure_ascii=False)
    for character in "<>&":  # Go's encoder does this
        arguments = arguments.replace(character, f"\\u{ord(character):04x}")
    return {"name": called["name"], "arguments": arguments}


def render(conversation: dict[str, Any], think: bool) -> str | None:
    body: dict[str, Any] = {
        "messages": [openai(message) for message in conversation["messages"]],
        "chat_template_kwargs": {"enable_thinking": think},
    }
    if "tools" in conversation:
        body["tools"] = conversation["tools"]
    prompt: str | None = call("/apply-template", body).get("prompt")
    return prompt


def record(server: str, model: str, template: Path, conversations: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    command = [server, "-m", model, "--port", str(PORT), "--jinja", "--chat-template-file", str(template), "-c", "512"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until_ready()
        prompts = {
            f"{name} think={think}": render(conversations[name], think) for name in conversations for think in (True, False)
        }
        return call("/props"), prompts
    finally:
        process.kill()
        process.wait()


def main() -> None:
    server, model, *more = sys.argv[1:]
    conversations = json.loads((HERE / "conversations.json").read_text())
    golden: dict[str, Any] = {}
    for template in sorted(Path(more[0] if more else HERE).glob("*.jinja")):
        props, prompts = record(server, model, template, conversations)
        golden |= {"bos_token": props["bos_token"], "eos_token": props["eos_token"], template.name: prompts}
    text = json.dumps(golden, indent=1, ensure_ascii=False)
    (HERE / "golden.json").write_text(text + "\n") if not more else print(text)


if __name__ == "__main__":
    main()
