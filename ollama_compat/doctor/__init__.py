"""`moellama doctor`: what this machine can do, and what a model would do on it."""
