"""Checkpoints of Hugging Face (safetensors, config.json, tokenizer) to GGUF: one file a family, a line each in `file.py`."""
