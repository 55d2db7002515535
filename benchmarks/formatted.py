"""What `format` costs an answer as a client sees it: `python benchmarks/formatted.py [URL] [--model demo-moe] [--rounds 40]`.

A running server is asked for the same in turns: free text, `json`, JSON schemas, and a GBNF grammar. Tokens a second are those
after the first one over eval_duration, which begins with it: else short answers, as free ones often are, would seem faster than
long ones. Told are medians: of these, and of how much longer a token takes than in the free text of the same round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import urllib.request
from typing import Any

TEXT = {"type": "string"}
SENTENCES = r"""
root ::= sentence+ "@"
sentence ::= [A-Z] [a-z]+ (" " [a-z]+)* [.!?] " "
"""


def object_of(**properties: dict[str, Any]) -> dict[str, Any]:
    """The format of objects with all of these."""
    return {"format": {"type": "object", "properties": properties, "required": [*properties]}}


KINDS: dict[str, dict[str, Any]] = {
    "free": {},
    "json": {"format": "json"},
    "schema": object_of(name=TEXT, age={"type": "integer"}, tags={"type": "array", "items": TEXT}, city=TEXT),
    "patterns": object_of(
        name={"type": "string", "pattern": "^[A-Z][a-z]+( [A-Z][a-z]+)*$"},
        phone={"type": "string", "pattern": "^[0-9]{3}-[0-9]{4}$"},
        mail={"type": "string", "pattern": "^[a-z.]+@[a-z]+[.](com|org)$"},
    ),
    "bounds": object_of(title=TEXT | {"maxLength": 40}, story=TEXT | {"minLength": 20, "maxLength": 300}),
    "GBNF": {"options": {"grammar": SENTENCES}},
}
LEAST = 6  # tokens of an answer that counts


def answer(url: str, model: str, number: int, temperature: float, fields: dict[str, Any]) -> dict[str, Any]:
    """The last line of an answer to the prompt of that number."""
    options = {"temperature": temperature, "seed": number, "num_predict": 100} | fields.get("options", {})
    prompt = f"Tell me about person {number} as JSON with name, age, tags, city."
    body = {"model": model, "stream": False, "prompt": prompt} | fields | {"options": options}
    request = urllib.request.Request(f"{url}/api/generate", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        found: dict[str, Any] = json.load(response)
    return found


def one_round(given: argparse.Namespace, number: int, temperature: float) -> dict[str, float]:
    """Tokens a second of each kind, where there were enough."""
    found = {}
    for name, fields in KINDS.items():
        said = answer(given.url, given.model, number, temperature, fields)
        if said.get("eval_count", 0) >= LEAST:  # an answer that breaks off has no numbers
            found[name] = 1e9 * (said["eval_count"] - 1) / said["eval_duration"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:11434")
    parser.add_argument("--model", default="demo-moe")
    parser.add_argument("--rounds", type=int, default=40)
    given = parser.parse_args()
    for temperature in (0.0, 0.8):
        rounds = [one_round(given, number, temperature) for number in range(given.rounds)]
        for name in KINDS:
            speed = statistics.median(found[name] for found in rounds if name in found)
            ratios = [found["free"] / found[name] - 1 for found in rounds if name in found and "free" in found]
            low, middle, high = statistics.quantiles(ratios, n=4)
            print(f"temperature {temperature}  {name:8} {speed:8.0f} tokens/s  {middle:+.1%} ({low:+.1%} to {high:+.1%})")


if __name__ == "__main__":
    main()
