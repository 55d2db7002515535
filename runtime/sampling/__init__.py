"""From logits to the next token, in llama.cpp's order: one file for each family of samplers.

Logit biases, penalties, DRY, top_n_sigma, top_k, typical_p, top_p, min_p, XTC, (dynamic) temperature, draw. Mirostat takes the
place of all but biases and temperature. Only ties and the random numbers themselves differ from llama.cpp: of equal logits the
lowest id comes first.
"""

from runtime.sampling.candidates import log_probabilities
from runtime.sampling.dry import Breakers
from runtime.sampling.sampler import NotANumber, Sampler, SamplingError

__all__ = ["Breakers", "NotANumber", "Sampler", "SamplingError", "log_probabilities"]
