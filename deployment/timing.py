"""Statistics of timed runs: intervals that assume no distribution, and how steady the machine was.

Latencies are skewed, cluster and drift, so nothing here assumes that they are normal: intervals are order statistics.
What they do assume is that samples are independent. Runs that follow each other are not (they share a clock frequency,
and where the buffers lie in memory), so a sample is the median of a whole round, for which everything was opened anew
(T. Kalibera, R. Jones, "Rigorous benchmarking in reasonable time", ISMM 2013; T. Mytkowicz et al., "Producing wrong
data without doing anything obviously wrong!", ASPLOS 2009).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95
NOISY_SPREAD = 0.05
"""Rounds that spread further are noise. Those on an idle machine spread by 1 to 3 %: buffers lie elsewhere in each."""
NOISY_INTERRUPTIONS = 0.1
"""Interruptions that take a larger share are noise. On an idle virtual machine they take 0 to 5 %, most of a model of
10 microseconds; the median hardly sees them, but who takes a tenth of the time uses the caches, too."""

Samples = npt.NDArray[np.float64] | Sequence[float]


@dataclass(frozen=True)
class Interval:
    """A median with its confidence interval, in the unit of the samples.

    Attributes:
        value: The median of the samples.
        low: Lower end.
        high: Upper end.
        confidence: The probability that such an interval holds the true median. Below what was asked for where there
            are too few samples: 0.97 takes six, and one sample alone has 0.
    """

    value: float
    low: float
    high: float
    confidence: float

    @property
    def error(self) -> float | None:
        """One standard error: that of a normal distribution with this interval; None of a single sample."""
        if self.confidence == 0:
            return None
        return (self.high - self.low) / (2 * NormalDist().inv_cdf((1 + self.confidence) / 2))

    @property
    def half_width(self) -> float:
        """Half the interval as a fraction of the median."""
        return (self.high - self.low) / (2 * self.value)

    def holds(self, value: float) -> bool:
        """Whether ``value`` lies inside, ends included."""
        return self.low <= value <= self.high

    def to_json(self) -> dict[str, float]:
        """The four numbers."""
        return {"value": self.value, "low": self.low, "high": self.high, "confidence": self.confidence}


def median_interval(samples: Samples, confidence: float = CONFIDENCE) -> Interval:
    """The median of independent samples between the two order statistics that hold it with ``confidence``.

    As many samples lie below the true median as a fair coin shows heads, whatever their distribution, so the k-th
    smallest and the k-th largest of n hold it with the probability 1 - 2 P(Binomial(n, 1/2) < k). The largest k that
    reaches ``confidence`` is taken (J.-Y. Le Boudec, "Performance Evaluation of Computer and Communication Systems",
    EPFL Press 2010, theorem 2.1).

    Args:
        samples: Of any unit, at least one.
        confidence: Above 0 and below 1.

    Raises:
        ValueError: If there are no samples, one is not finite, or the confidence is out of range.
    """
    ordered = np.sort(np.asarray(samples, dtype=np.float64))
    if ordered.ndim != 1 or not ordered.size or not np.isfinite(ordered).all():
        raise ValueError(f"a median is of a list of finite samples, at least one; got {samples!r}")
    rank, reached = _rank(ordered.size, confidence)
    low, high = ordered[rank - 1], ordered[-rank]
    return Interval(float(np.median(ordered)), float(low), float(high), reached)


def ratio_interval(first: Samples, second: Samples, confidence: float = CONFIDENCE) -> Interval:
    """The median of ``second / first`` over pairs that were measured together, so that drift cancels.

    The logarithms of the ratios are the samples: the ratio of the swapped arguments is the inverse.

    Args:
        first: Positive samples.
        second: As many, each measured beside the one of ``first``.
        confidence: Above 0 and below 1.

    Raises:
        ValueError: If the two are not pairs of positive samples.
    """
    below, above = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if below.shape != above.shape or not (below > 0).all() or not (above > 0).all():
        raise ValueError("a ratio is of pairs of positive samples")
    logs = median_interval(np.log(above) - np.log(below), confidence)
    return replace(logs, value=math.exp(logs.value), low=math.exp(logs.low), high=math.exp(logs.high))


@dataclass(frozen=True)
class Noise:
    """How steady the machine was, judged by the runs themselves.

    A reference kernel between them would see what hits the kernel, but not what the model's larger working set suffers
    from, and nothing while the model runs.

    Attributes:
        spread: Interquartile range of the rounds' medians over their median: drift, and placement in memory.
        interruptions: Mean over median of the runs of a round, minus 1, the mean over rounds: the share of time that
            runs lost to what interrupted a few of them.
    """

    spread: float
    interruptions: float

    @property
    def noisy(self) -> bool:
        """Whether either is beyond what an idle machine shows."""
        return self.spread > NOISY_SPREAD or self.interruptions > NOISY_INTERRUPTIONS

    def __str__(self) -> str:
        found = f"rounds spread by {self.spread:.1%}, interruptions took {self.interruptions:.1%}"
        if not self.noisy:
            return f"the machine was quiet: {found}"
        usual = f"usual are up to {NOISY_SPREAD:.0%} and {NOISY_INTERRUPTIONS:.0%}"
        return f"THE MACHINE WAS NOISY: {found} ({usual}); stop what else runs, or measure for longer"

    def to_json(self) -> dict[str, Any]:
        """The facts, whether they amount to noise, and that in a line."""
        return {"spread": self.spread, "interruptions": self.interruptions, "noisy": self.noisy, "verdict": str(self)}


def noise_of(medians: Samples, means: Samples) -> Noise:
    """The noise in rounds of runs.

    Args:
        medians: The median of every round, positive.
        means: The mean of every round, in the same unit.
    """
    middle, average = np.asarray(medians, dtype=np.float64), np.asarray(means, dtype=np.float64)
    lower, median, upper = np.quantile(middle, (0.25, 0.5, 0.75))
    return Noise(float((upper - lower) / median), max(0.0, float((average / middle).mean() - 1)))


@lru_cache(maxsize=1024)
def _rank(count: int, confidence: float) -> tuple[int, float]:
    """The order statistic, from 1, that the interval ends at, and the confidence it reaches."""
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence lies between 0 and 1; got {confidence}")
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, count + 1)))])
    heads = factorials[-1] - factorials - factorials[::-1] - count * math.log(2)  # log P(Binomial(count, 1/2) = k)
    reached = 1 - 2 * np.cumsum(np.exp(heads))  # of the order statistics 1, 2, ...
    rank = max(1, int((reached >= confidence).sum()))
    return rank, max(0.0, float(reached[rank - 1]))
