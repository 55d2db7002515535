"""Executors: what runs a model's forward pass."""
