"""Measurements: what a machine's memory and cores give, how fast the kernels are on it, and how fast a model runs."""
