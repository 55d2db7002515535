"""The `moellama` command."""

from __future__ import annotations

import sys

from ollama_compat.cli.root import main

if __name__ == "__main__":
    sys.exit(main())
