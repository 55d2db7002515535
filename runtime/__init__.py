"""The token world: GGUF files, tokenizer, scheduler, model graphs and kernels.

Never imports aiohttp or `ollama_compat`; the server talks to it through `runtime.frames` alone.
"""
