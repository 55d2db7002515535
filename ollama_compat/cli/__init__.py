"""The `moellama` command: Ollama's words, flags, tables and exit codes, spoken over HTTP like the original.

Client commands import nothing heavy: no aiohttp, no jinja2, no numba.
"""
