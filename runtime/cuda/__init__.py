"""Kernels for NVIDIA GPUs: CUDA C++ in `source/`, compiled by the NVRTC that comes with torch; no C compiler is needed."""
