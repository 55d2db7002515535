"""Machine code on the CPU: ISA probe, SIMD primitives, leaves, drivers, the thread pool and the cache of compiled kernels."""
