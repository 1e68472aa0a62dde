"""Timing micro-networks until the time is up, one thread count after the other, where the model is least sure."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kneepoint.deployment.calibration.executed import pair
from kneepoint.deployment.calibration.fitting import Fit, fit
from kneepoint.deployment.calibration.micro_networks import MicroNetwork, draw
from kneepoint.deployment.calibration.samples import Sample, SampleTable, TimedKernel
from kneepoint.deployment.calibration.stopwatch import Stopwatch, Timing, stopwatch
from kneepoint.deployment.device_program import pinned
from kneepoint.hardware_models.features import variants
from kneepoint.hardware_models.fusion import fuse
from kneepoint.hardware_models.kernels import Kernel
from kneepoint.hardware_models.onnx_reader import read_onnx
from kneepoint.tasks.errors import DeviceError

HELD_OUT = 10
"""One network in so many judges, and is never fitted to."""
_TRIES = 3
_MOST_REFUSED = 20
_TURN_SECONDS = 15.0
"""Thread counts take turns, so that a machine that drifts does not favour one."""
_POOL = 3
_FIRST_ERROR = 0.3
_MEMORY = 0.9
_REFIT_AT = (0.2, 0.5)
"""Shares of the time after which a first model is fitted, and fitted again, to say where it is least sure."""


@dataclass(frozen=True)
class Progress:
    """How far a campaign is.

    Attributes:
        seconds: Spent timing.
        networks: Timed, at all thread counts.
        kernels: In them.
        repeated: The share of timings that were thrown away because the machine was not quiet.
    """

    seconds: float
    networks: int
    kernels: int
    repeated: float


@dataclass
class Campaign:
    """Timed micro-networks, and the next ones.

    Attributes:
        seed: Of the networks.
        threads: The thread counts.
        rules: The fusion rules of the runtime on this machine.
        seconds: To spend in all.
        samples: So far, those of an interrupted campaign included.
        tries: Timings so far, thrown away ones included.
        wasted: Seconds of timings that were thrown away since the last sample.
        refused: Networks that the runtime does not run.
    """

    seed: int
    threads: Sequence[int]
    rules: Collection[str]
    seconds: float
    samples: list[Sample] = field(default_factory=list)
    tries: int = 0
    wasted: float = 0.0
    refused: int = 0
    _interest: dict[int, _Interest] = field(default_factory=dict, repr=False)

    def run(self, file: Path, report: Callable[[Progress], None]) -> None:
        """Time networks until the time is spent; every one of them is in ``file`` before the next begins.

        Args:
            file: Takes a line for every network.
            report: Hears of every one of them.
        """
        with file.open("a", encoding="utf-8") as stream:
            while (spent := self.spent) < self.seconds:
                threads = min(self.threads, key=lambda count: self.spent_at(count))
                self._refit(threads)
                for sample in self._turn(threads, min(_TURN_SECONDS, self.seconds - spent)):
                    self.samples.append(sample)
                    stream.write(sample.to_line() + "\n")
                    stream.flush()
                    report(self.progress)

    @property
    def spent(self) -> float:
        """Seconds of timing so far."""
        return sum(sample.seconds for sample in self.samples) + self.wasted

    def spent_at(self, threads: int) -> float:
        """Seconds of timing so far at one thread count."""
        return sum(sample.seconds for sample in self.samples if sample.threads == threads)

    @property
    def progress(self) -> Progress:
        """How far it is."""
        kernels = sum(len(sample.kernels) for sample in self.samples)
        repeated = 1 - len(self.samples) / self.tries if self.tries else 0.0
        return Progress(self.spent, len(self.samples), kernels, max(0.0, repeated))

    def table(self, threads: int, *, held_out: bool) -> SampleTable:
        """The samples of a thread count: those to fit to, or those that judge."""
        return SampleTable.of([s for s in self.samples if s.threads == threads and s.held_out is held_out])

    # --- one turn --------------------------------------------------------------------------------------------------

    def _turn(self, threads: int, seconds: float) -> Iterator[Sample]:
        with pinned(threads) as others:
            watch = stopwatch(threads, others)
            index = max((s.index for s in self.samples if s.threads == threads), default=-1) + 1
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                sample = self._sample(index, watch)
                index += 1
                if sample is not None:
                    yield sample

    def _sample(self, index: int, watch: Stopwatch) -> Sample | None:
        """The network of that number, timed; None if the machine never got quiet."""
        start = time.monotonic()
        held_out = index % HELD_OUT == 0
        network, kernels, random = self._choose(index, 1 if held_out else _POOL, watch.threads)
        model, feeds = network.model.SerializeToString(), network.feeds(random)
        timing = self._timing(watch, model, feeds)
        if timing is None:
            self.wasted += time.monotonic() - start
            return None
        pairs = {place: node.microseconds for place, node in pair(kernels, timing.nodes)}
        sample = Sample(
            index=index,
            threads=watch.threads,
            held_out=held_out,
            style=network.style,
            batch=network.batch,
            total_us=timing.total_us,
            complete=len(pairs) == len(kernels) == len(timing.nodes),
            seconds=time.monotonic() - start + self.wasted,
            kernels=TimedKernel.all(kernels, pairs),
        )
        self.wasted = 0.0
        if watch.threads in self._interest and not held_out:
            self._interest[watch.threads].learn(sample)
        return sample

    def _timing(self, watch: Stopwatch, model: bytes, feeds: Mapping[str, Any]) -> Timing | None:
        """A timing on a quiet machine; None if there is none, or the runtime does not run the network."""
        for _ in range(_TRIES):
            self.tries += 1
            try:
                timing = watch.time(model, feeds)
            except Exception as error:  # onnxruntime raises its own unrelated types
                self._refuse(error)
                return None
            if timing.quiet:
                return timing
        return None

    def _refuse(self, error: Exception) -> None:
        """Go on without a network that the runtime does not run, as long as they are few.

        Raises:
            DeviceError: If they are not.
        """
        self.refused += 1
        if self.refused > max(_MOST_REFUSED, len(self.samples) // _MOST_REFUSED):
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            raise DeviceError(f"ONNX Runtime does not run {self.refused} of the networks to be timed: {reason}")

    # --- which network next ----------------------------------------------------------------------------------------

    def _choose(
        self, index: int, pool: int, threads: int
    ) -> tuple[MicroNetwork, tuple[Kernel, ...], np.random.Generator]:
        """Of several random networks the one whose latency is least certain; the first while nothing is known."""
        interest = self._interest.get(threads)
        drawn = []
        for member in range(pool if interest else 1):
            random = np.random.default_rng([self.seed, index, member])
            network = draw(random)
            drawn.append((network, fuse(read_onnx(network.model, batch=network.batch), self.rules), random))
        return max(drawn, key=lambda entry: interest.of(entry[1])) if interest else drawn[0]

    def _refit(self, threads: int) -> None:
        """A new look at where the model errs, at certain points of the campaign."""
        share = self.spent / self.seconds
        known = self._interest.get(threads)
        due = sum(share >= point for point in _REFIT_AT)
        if due > (known.round if known else 0):
            self._interest[threads] = _Interest(fit(self.table(threads, held_out=False)), due)


class _Interest:
    """How uncertain the latency of a network is, by the errors that its variants showed in networks not fitted to."""

    def __init__(self, fitted: Fit, round_: int) -> None:
        self.round = round_
        self._fit = fitted
        self._errors: dict[str, float] = defaultdict(lambda: _FIRST_ERROR)

    def of(self, kernels: Sequence[Kernel]) -> float:
        """The mean relative error to expect of its kernels, those that take long counting more."""
        sample = SampleTable.of([_untimed(kernels)])
        latency, priced = self._fit.model.predict(sample.workload)
        errors = [
            self._errors[name] if known else 1.0 for name, known in zip(variants(sample.workload), priced, strict=True)
        ]
        weights = np.sqrt(np.where(priced, latency, 1.0)) + 0.1
        return float(np.average(errors, weights=weights)) if len(weights) else 0.0

    def learn(self, sample: Sample) -> None:
        """Remember how far off the kernels of a new sample were."""
        table = SampleTable.of([sample])
        latency, _ = self._fit.model.predict(table.workload)
        true, _ = self._fit.ruler.latency(table)
        for name, predicted, found in zip(variants(table.workload), latency, true, strict=True):
            if np.isfinite(found) and predicted > 0:
                error = min(1.0, abs(float(np.log(predicted / found))))
                self._errors[name] = _MEMORY * self._errors[name] + (1 - _MEMORY) * error


def _untimed(kernels: Sequence[Kernel]) -> Sample:
    return Sample(0, 1, False, "", 1, 0.0, False, 0.0, TimedKernel.all(kernels, {}))
