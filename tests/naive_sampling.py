"""A plain twin of runtime.sampling: one thing after the other, in Python floats and lists."""

from __future__ import annotations

import collections
import math
from collections.abc import Iterable

from runtime.frames import Sampling

Candidate = tuple[int, float]


def softmax(candidates: list[Candidate]) -> list[float]:
    top = max(logit for _, logit in candidates)
    weights = [math.exp(logit - top) for _, logit in candidates]
    return [weight / sum(weights) for weight in weights]


def falling(candidates: list[Candidate]) -> list[Candidate]:
    return sorted(candidates, key=lambda candidate: (-candidate[1], candidate[0]))


def penalised(values: list[float], options: Sampling, history: list[int]) -> list[float]:
    last = history if options.repeat_last_n < 0 else history[len(history) - min(options.repeat_last_n, len(history)) :]
    values = list(values)
    for token, count in collections.Counter(last).items():
        value = values[token]
        value = value * options.repeat_penalty if value <= 0 else value / options.repeat_penalty
        values[token] = value - count * options.frequency_penalty - options.presence_penalty
    return values


def repeated(history: list[int], options: Sampling, breakers: set[int]) -> dict[int, int]:
    """Token -> the longest end of the text that it followed before; breakers are single tokens."""
    recent = history[-options.dry_penalty_last_n :]
    since = 0
    while since < len(recent) and recent[-1 - since] not in breakers:
        since += 1
    longest: dict[int, int] = {}
    if len(recent) <= options.dry_allowed_length or since < options.dry_allowed_length:
        return {}
    for place in range(1, len(recent)):
        length = 0
        while length < min(place, since) and recent[place - 1 - length] == recent[-1 - length]:
            length += 1
        if length >= options.dry_allowed_length and recent[place] not in breakers:
            longest[recent[place]] = max(longest.get(recent[place], 0), length)
    return longest


def dried(values: list[float], options: Sampling, history: list[int], breakers: set[int]) -> list[float]:
    values = list(values)
    if not options.dry_multiplier:
        return values
    for token, length in repeated(history, options, breakers).items():
        values[token] -= options.dry_multiplier * options.dry_base ** (length - options.dry_allowed_length)
    return values


def typical(candidates: list[Candidate], p: float) -> list[Candidate]:
    chances = softmax(candidates)
    entropy = -sum(chance * math.log(chance) for chance in chances if chance)
    order = sorted((i for i in range(len(chances)) if chances[i]), key=lambda i: abs(-math.log(chances[i]) - entropy))
    total, kept = 0.0, []
    for i in order:
        kept.append(candidates[i])
        total += chances[i]
        if total > p:
            break
    return kept


def nucleus(candidates: list[Candidate], p: float) -> list[Candidate]:
    candidates = falling(candidates)
    total, kept = 0.0, []
    for candidate, chance in zip(candidates, softmax(candidates), strict=True):
        kept.append(candidate)
        total += chance
        if total >= p:
            break
    return kept


def within_sigmas(candidates: list[Candidate], n: float) -> list[Candidate]:
    values = [logit for _, logit in candidates]
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
    return [(token, logit if logit >= max(values) - n * deviation else -math.inf) for token, logit in candidates]


def without_top(candidates: list[Candidate], threshold: float) -> list[Candidate]:
    candidates = falling(candidates)
    above = sum(chance >= threshold for chance in softmax(candidates))
    return candidates[max(above - 1, 0) :]


def filtered(values: list[float], options: Sampling) -> list[Candidate]:
    """What the filters leave; XTC not counted."""
    candidates = list(enumerate(values))
    if options.top_n_sigma > 0:
        candidates = within_sigmas(candidates, options.top_n_sigma)
    if options.top_k > 0:
        candidates = falling(candidates)[: options.top_k]
    if options.typical_p < 1:
        candidates = typical(candidates, options.typical_p)
    if options.top_p < 1:
        candidates = nucleus(candidates, options.top_p)
    if options.min_p > 0:
        best = max(softmax(candidates))
        candidates = [c for c, chance in zip(candidates, softmax(candidates), strict=True) if chance >= options.min_p * best]
    return candidates


def temperature(candidates: list[Candidate], options: Sampling) -> float:
    if options.dynatemp_range <= 0 or len(candidates) < 2:
        return options.temperature
    entropy = -sum(chance * math.log(chance) for chance in softmax(candidates) if chance) / math.log(len(candidates))
    low = max(0.0, options.temperature - options.dynatemp_range)
    return low + (options.temperature + options.dynatemp_range - low) * entropy**options.dynatemp_exponent


def draws(candidates: list[Candidate], options: Sampling) -> dict[int, float]:
    """Token -> its probability at the temperature."""
    warmth = temperature(candidates, options)
    if warmth <= 0:
        return {falling(candidates)[0][0]: 1.0}
    warm = [(token, logit / warmth) for token, logit in candidates if logit > -math.inf]
    return dict(zip([token for token, _ in warm], softmax(warm), strict=True))


def distribution(
    logits: Iterable[float], options: Sampling, history: list[int], breakers: set[int] | None = None
) -> dict[int, float]:
    """What may come, with its probability."""
    values = list(map(float, logits))
    for token, bias in options.logit_bias:
        values[token] += bias
    values = dried(penalised(values, options, history), options, history, breakers or set())
    candidates = filtered(values, options)
    chance = options.xtc_probability if options.xtc_threshold <= 0.5 else 0.0
    found: dict[int, float] = collections.defaultdict(float)
    for weight, left in ((1 - chance, candidates), (chance, without_top(candidates, options.xtc_threshold))):
        for token, share in draws(left, options).items() if weight else ():
            found[token] += weight * share
    return dict(found)
