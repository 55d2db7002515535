"""The text world: HTTP, JSON, names, blobs, templates and tool calls, exactly as Ollama speaks them.

Never imports torch, numba or numpy. Of `runtime` it imports `gguf_file` (the header reader) and `frames` (the border).
"""
