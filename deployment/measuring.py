"""How fast models are on this machine: in a fresh process, on pinned cores, in rounds until the interval is tight."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kneepoint.deployment.measuring_process import MeasuringProcess, Timed
from kneepoint.deployment.timing import CONFIDENCE, Interval, Noise, median_interval, noise_of, ratio_interval
from kneepoint.tasks.errors import InputError

SECONDS = 5.0
TIGHT = 0.005
"""Half an interval, as a fraction of the median, that ends a measurement before its time is up."""
PLANNED_ROUNDS = 20
"""In the time; where models take long to open there are fewer."""
FEWEST_ROUNDS = 10
"""Before an interval is judged: with fewer, a narrow one may be luck."""


@dataclass(frozen=True)
class Measurement:
    """The latency of one model on the machine it was measured on.

    Attributes:
        latency_ms: Median of the rounds' medians, with its confidence interval; milliseconds of one inference.
        runs: Timed runs.
        rounds: Sessions they were timed in, each opened anew.
        threads: Threads inside an operator.
        batch: Samples a run: the first dimension of the first input.
        noise: How steady the machine was.
    """

    latency_ms: Interval
    runs: int
    rounds: int
    threads: int
    batch: int
    noise: Noise

    @property
    def median_ms(self) -> float:
        """The median."""
        return self.latency_ms.value

    def to_json(self) -> dict[str, Any]:
        """The facts as ``kneepoint measure --json`` prints them; ``error_ms`` is one standard error."""
        interval = self.latency_ms
        return {
            "median_ms": interval.value,
            "low_ms": interval.low,
            "high_ms": interval.high,
            "confidence": interval.confidence,
            "error_ms": interval.error,
            "runs": self.runs,
            "rounds": self.rounds,
            "threads": self.threads,
            "batch": self.batch,
            "noise": self.noise.to_json(),
        }


@dataclass(frozen=True)
class Comparison:
    """Two models, measured in turns.

    Attributes:
        first: The first model.
        second: The second.
        ratio: The second's latency over the first's, with its confidence interval. Each round gives one ratio, that
            of blocks of runs that followed each other, so that what slows the machine for a while hits both.
    """

    first: Measurement
    second: Measurement
    ratio: Interval

    @property
    def enough(self) -> bool:
        """Whether there were rounds enough for an interval of the usual confidence."""
        return self.ratio.confidence >= CONFIDENCE

    @property
    def faster(self) -> int | None:
        """0 where the first is faster, 1 where the second is; None where noise explains the difference."""
        if not self.enough or self.ratio.holds(1.0):
            return None
        return int(self.ratio.value < 1)

    def to_json(self) -> dict[str, Any]:
        """The facts as ``kneepoint measure --json`` prints them."""
        models = [self.first.to_json(), self.second.to_json()]
        return {"models": models, "ratio": self.ratio.to_json(), "faster": self.faster}


def measure(
    model: str | Path | bytes,
    threads: int = 1,
    batch: int = 1,
    seconds: float = SECONDS,
    *,
    sizes: Mapping[str, int] | None = None,
    report: Callable[[Measurement], None] | None = None,
) -> Measurement:
    """Time ``model`` on this machine with made-up inputs.

    A fresh process, pinned to as many cores as there are threads, opens the model again and again, warms it up and
    times it, until half the interval is within 0.5 % of the median or the time is up. One measurement is made at a time
    on a machine; others wait.

    Args:
        model: A file, or the serialized model.
        threads: Threads inside an operator.
        batch: Size of free batch dimensions, which are the first.
        seconds: Time to spend; at least one round is made.
        sizes: Of other free dimensions, by name.
        report: Called with what is known after every round.

    Raises:
        InputError: If the model cannot be loaded or run, leaves a dimension free or was written for another batch, or
            an argument is out of range.
        JobFailed: If the process dies.
    """
    for rounds in _rounds([Timed(model, batch, sizes or {})], threads, seconds):
        found = rounds.measurement(0)
        if report is not None:
            report(found)
        if rounds.suffice(found.latency_ms):
            break
    return found


def compare_latency(
    first: str | Path | bytes,
    second: str | Path | bytes,
    threads: int = 1,
    batch: int = 1,
    seconds: float = 2 * SECONDS,
    *,
    sizes: Mapping[str, int] | None = None,
    report: Callable[[Comparison], None] | None = None,
) -> Comparison:
    """Time two models in turns, and say which is faster if that is more than noise.

    The arguments and errors are those of :func:`measure`. The measurement ends when the interval of the ratio is tight,
    never because a difference has shown itself, so that looking again and again does not find one by chance.
    """
    models = [Timed(model, batch, sizes or {}) for model in (first, second)]
    for rounds in _rounds(models, threads, seconds):
        found = rounds.comparison()
        if report is not None:
            report(found)
        if rounds.suffice(found.ratio):
            break
    return found


@dataclass
class _Rounds:
    """What was measured so far.

    Attributes:
        threads: Of one inference.
        batches: The batch that each model runs at.
        answers: One a round, as the worker's ``summary`` gives them.
    """

    threads: int
    batches: Sequence[int]
    answers: list[dict[str, list[float]]] = field(default_factory=list)

    def measurement(self, index: int) -> Measurement:
        """What is known of one model."""
        medians, means = self._column("medians", index), self._column("means", index)
        return Measurement(
            latency_ms=median_interval(medians),
            runs=int(sum(self._column("runs", index))),
            rounds=len(medians),
            threads=self.threads,
            batch=self.batches[index],
            noise=noise_of(medians, means),
        )

    def comparison(self) -> Comparison:
        """What is known of two."""
        ratio = ratio_interval(self._column("ratios", 0), self._column("ratios", 1))
        return Comparison(self.measurement(0), self.measurement(1), ratio)

    def suffice(self, interval: Interval) -> bool:
        """Whether the interval is tight, and rests on rounds enough to be believed."""
        return len(self.answers) >= FEWEST_ROUNDS and interval.half_width <= TIGHT

    def _column(self, key: str, index: int) -> list[float]:
        return [answer[key][index] for answer in self.answers]


def _rounds(models: Sequence[Timed], threads: int, seconds: float) -> Iterator[_Rounds]:
    """The rounds so far, after each; at least one."""
    batch = models[0].batch
    if batch < 1 or not 0 < seconds < math.inf:
        raise InputError(f"a measurement needs a batch of at least 1 and some seconds; got {batch} and {seconds}")
    with MeasuringProcess(models, threads) as process:
        _check_batches(models, process.batches)
        rounds = _Rounds(threads, process.batches)
        end = time.monotonic() + seconds
        while not rounds.answers or time.monotonic() < end:
            rounds.answers.append(process.round(seconds / PLANNED_ROUNDS))
            yield rounds


def _check_batches(models: Sequence[Timed], batches: Sequence[int]) -> None:
    for model, actual in zip(models, batches, strict=True):
        if actual != model.batch != 1:
            raise InputError(
                f"{model.prefix}the model was written for a batch of {actual}, and cannot be measured at {model.batch}"
            )
    if len(set(batches)) > 1:
        raise InputError(f"models are compared at one batch; these were written for {' and '.join(map(str, batches))}")
