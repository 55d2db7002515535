"""Quantisers: float values to the blocks of GGUF types, the same bytes as llama.cpp's without an importance matrix."""
