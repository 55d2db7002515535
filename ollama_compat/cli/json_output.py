"""--json: what the server said, for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any


def print_json(value: Any) -> None:
    """One value, laid out for people as well."""
    print(json.dumps(value, ensure_ascii=False, indent=2))


def print_lines(values: Iterable[Any]) -> None:
    """One line for each value as it comes."""
    for value in values:
        print(json.dumps(value, ensure_ascii=False, separators=(",", ":")), flush=True)
