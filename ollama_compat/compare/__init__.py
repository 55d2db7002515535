"""`moellama ab`: the same model, prompts and options on two servers in turns, and what comes of it."""
