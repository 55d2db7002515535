"""The parts of a transformer in terms of `Ops`; each holds its tensors under their GGUF names and is called once."""
