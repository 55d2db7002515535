"""The chain of samplers of one answer: what its options touch, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from runtime.core import FloatArray
from runtime.frames import Sampling
from runtime.sampling import filters
from runtime.sampling.candidates import Candidates, highest
from runtime.sampling.dry import Breakers, Dry
from runtime.sampling.masks import Mask
from runtime.sampling.mirostat import Mirostat
from runtime.sampling.penalties import Window, penalise
from runtime.sampling.usual import COLDEST, Usual, is_usual

_RANDOM_SEED = 0xFFFFFFFF  # what -1 is among the 32 bits of a seed
_XTC_OFF = 0.5  # thresholds above which XTC can never drop anything

Stage = Callable[[Candidates], Candidates]


class SamplingError(Exception):
    """The request asks for a sampling that does not exist."""


class NotANumber(Exception):
    """The model computed logits that are no numbers."""


class Sampler:
    """Chooses the tokens of one answer. `accept` it every token of the prompt and of the answer."""

    def __init__(self, options: Sampling, num_ctx: int, breakers: Breakers | None = None) -> None:
        """`breakers`: of the vocabulary; without them DRY knows no breakers."""
        _check(options)
        self._options = options
        self._changes: list[Callable[[FloatArray], None]] = []  # of logits, in place
        self._listeners: list[Callable[[Sequence[int]], None]] = []
        self._mirostat: Mirostat | None = None
        self._is_usual = is_usual(options)
        self._usual: Usual | None = None
        self._xtc = options.xtc_probability > 0 and options.xtc_threshold <= _XTC_OFF and not options.mirostat
        self._add_biases()
        if not options.mirostat:
            self._add_penalties(num_ctx)
            self._add_dry(breakers)
        self._head = 0 if options.mirostat else options.top_k
        self._filters = [] if options.mirostat else _filters(options)
        # without a temperature the best token comes, unless something can drop it or there is a range of temperatures
        drops = options.typical_p < 1 or self._xtc or options.dynatemp_range > 0
        self.greedy = options.temperature <= 0 and (bool(options.mirostat) or not drops)
        seed = options.seed & 0xFFFFFFFF
        self._random = None if self.greedy else np.random.Generator(np.random.PCG64(None if seed == _RANDOM_SEED else seed))

    def _add_biases(self) -> None:
        if biases := self._options.logit_bias:
            ids = np.array([token for token, _ in biases], np.int64)
            values = np.array([bias for _, bias in biases], np.float32)

            def change(logits: FloatArray) -> None:
                known = ids < len(logits)
                np.add.at(logits, ids[known], values[known])

            self._changes.append(change)

    def _add_penalties(self, num_ctx: int) -> None:
        options = self._options
        penalised = options.repeat_penalty != 1.0 or options.presence_penalty != 0.0 or options.frequency_penalty != 0.0
        length = num_ctx if options.repeat_last_n < 0 else options.repeat_last_n
        if penalised and length:
            window = Window(length)
            self._listeners.append(window.extend)
            self._changes.append(lambda logits: penalise(logits, window, options))

    def _add_dry(self, breakers: Breakers | None) -> None:
        options = self._options
        if options.dry_multiplier and options.dry_base >= 1 and options.dry_penalty_last_n > 0:
            assert breakers is not None
            dry = Dry(options, breakers.breaks(options.dry_sequence_breakers))
            self._listeners.append(dry.accept)
            self._changes.append(dry.penalise)

    @property
    def depends_on(self) -> int:
        """How many of the highest logits decide; 0: all."""
        options = self._options
        if self._changes or options.mirostat or options.top_n_sigma > 0:
            return 0
        return 1 if self.greedy else max(self._head, 0)

    def accept(self, tokens: Sequence[int]) -> None:
        """Take notice of tokens that now precede the next one."""
        for listener in self._listeners:
            listener(tokens)

    def sample(self, logits: FloatArray) -> int:
        """The next token. `logits`: (vocabulary,), left as they are. Raises NotANumber."""
        return self.choose(self.changed(logits))

    def changed(self, logits: FloatArray) -> FloatArray:
        """The logits with biases and penalties; the same array where there are none."""
        if self._changes:
            logits = logits.copy()
            for change in self._changes:
                change(logits)
        return logits

    def choose(self, logits: FloatArray, mask: Mask | None = None) -> int:
        """A token by changed logits. `mask`: the tokens to choose from. Raises NotANumber."""
        if self._is_usual and self._random is not None:
            self._usual = self._usual or Usual(self._options, self._random)
            if self._usual.can(logits, mask):
                token = self._usual.choose(logits, mask)
                if token < 0:
                    raise NotANumber
                return token
        if self._options.mirostat and self._mirostat is None:
            options = self._options
            self._mirostat = Mirostat(options.mirostat, options.mirostat_tau, options.mirostat_eta, len(logits))
        if mask is None:
            return self._choose(logits)
        from runtime.kernels import masked  # numba comes with the first mask and not with this module

        if self._random is None:
            best: int = masked.best(logits, mask)
            if best == masked.MANY:
                return self._choose(masked.without_refused(logits, mask)[0])
            if best < 0 or not math.isfinite(logits[best]):
                raise NotANumber
            return best
        if self._head > 0 >= self._options.top_n_sigma:  # as many as these are all that counts
            values, count = masked.without_refused(logits, mask)
            if count >= self._head:
                return self._choose(values)
        ids, permitted = masked.permitted(logits, mask)
        if not len(ids):
            raise NotANumber
        return int(ids[self._choose(permitted)])

    def _choose(self, logits: FloatArray) -> int:
        best = int(logits.argmax())  # or the place of a NaN
        if not math.isfinite(logits[best]):
            raise NotANumber
        return best if self._random is None else self._draw(logits, self._random)

    def _draw(self, logits: FloatArray, random: np.random.Generator) -> int:
        candidates = self.candidates(logits, drops_top=self._xtc and random.random() <= self._options.xtc_probability)
        ids, logits, _ = candidates
        temperature = self.temperature(candidates)
        if temperature <= 0:
            return int(ids[logits.argmax()])
        warm = (logits - (logits[0] if candidates.falling else logits.max())) / np.float32(max(temperature, COLDEST))
        if self._mirostat is not None:
            ids, warm, _ = self._mirostat.truncate(Candidates(ids, warm, candidates.falling))
        weights = np.exp(warm)
        sums = weights.cumsum(dtype=np.float64)
        place = int(sums.searchsorted(random.random() * sums[-1]))
        if self._mirostat is not None:
            self._mirostat.observe(float(weights[place] / sums[-1]))
        return int(ids[place])

    def candidates(self, logits: FloatArray, *, drops_top: bool) -> Candidates:
        """What the filters leave. `drops_top`: XTC, whose turn chance decides, does its work."""
        if 0 < self._head < len(logits):
            candidates = Candidates(*highest(logits, self._head), True)
        else:
            candidates = Candidates(np.arange(len(logits)), logits)
        if self._options.top_n_sigma > 0 and not self._options.mirostat:  # top_k before it keeps the same ones
            candidates = filters.above(candidates, filters.sigma_bound(logits, self._options.top_n_sigma))
        for stage in self._filters:
            candidates = stage(candidates)
        return filters.without_top(candidates, self._options.xtc_threshold) if drops_top else candidates

    def temperature(self, candidates: Candidates) -> float:
        """The temperature for these candidates; a dynamic one rises with their entropy."""
        options = self._options
        if options.dynatemp_range <= 0 or options.mirostat or len(candidates.ids) < 2:
            return options.temperature
        probabilities = candidates.probabilities()
        probabilities = probabilities[probabilities > 0]
        entropy = -float((probabilities * np.log(probabilities)).sum()) / math.log(len(candidates.ids))
        low = max(0.0, options.temperature - options.dynatemp_range)
        high = options.temperature + options.dynatemp_range
        return low + (high - low) * math.pow(max(entropy, 0.0), options.dynatemp_exponent)


def _filters(options: Sampling) -> list[Stage]:
    """The filters that the options touch, in order, after top_n_sigma and top_k."""
    stages: list[Stage] = []
    if options.typical_p < 1.0:
        stages.append(lambda candidates: filters.typical(candidates, options.typical_p))
    if options.top_p < 1.0:
        stages.append(lambda candidates: filters.nucleus(candidates, options.top_p))
    if options.min_p > 0.0:
        stages.append(lambda candidates: filters.at_least(candidates, options.min_p))
    return stages


def _check(options: Sampling) -> None:
    repeat = options.repeat_penalty
    if not math.isfinite(repeat) or repeat <= 0 or repeat < 1e-38:
        raise SamplingError("penalty_repeat must be finite and greater than 0")
    if not math.isfinite(options.frequency_penalty):
        raise SamplingError("penalty_freq must be finite")
    if not math.isfinite(options.presence_penalty):
        raise SamplingError("penalty_present must be finite")
    if options.mirostat not in (0, 1, 2):
        raise SamplingError("mirostat must be 0 (off), 1 or 2")
