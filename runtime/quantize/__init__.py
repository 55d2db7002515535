"""Quantisers: float values to the blocks of GGUF types, the same bytes as llama.cpp's with and without an importance matrix."""
