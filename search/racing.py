"""A validation that ends when it is lost: of a candidate that others surely dominate, no more needs to be known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kneepoint.objectives.objective import Objective
from kneepoint.objectives.quality import Accuracy
from kneepoint.tasks.metrics import Direction, Metric, Score

SURE = 3.0
"""Standard errors; more than the usual two, because the question is put again after every batch."""
FEWEST = 64
"""Samples before the question is put."""


@dataclass(frozen=True)
class Race:
    """What a candidate has to beat; picklable.

    Attributes:
        metric: What is raced: a metric that is the mean of its values on the samples.
        directions: Of the other objectives, all of which are known before the candidate is run.
        samples: Of the whole validation data.
        rivals: Values by objective of the front so far.
    """

    metric: Metric
    directions: Mapping[str, Direction]
    samples: int
    rivals: Sequence[Mapping[str, float]]

    def heat(self, costs: Mapping[str, Score]) -> Heat | None:
        """The race of a candidate with these costs; None where no rival is as cheap in everything."""
        values = [rival[self.metric.name] for rival in self.rivals if self._as_cheap(rival, costs)]
        if not values:
            return None
        best = max(values) if self.metric.direction == "maximize" else min(values)
        return Heat(self.metric, best, self.samples)

    def _as_cheap(self, rival: Mapping[str, float], costs: Mapping[str, Score]) -> bool:
        return all(
            rival[name] >= costs[name].value if direction == "maximize" else rival[name] <= costs[name].value
            for name, direction in self.directions.items()
        )


@dataclass
class Heat:
    """One candidate's race: told its batches, it says when it is lost.

    Attributes:
        metric: What is raced.
        bar: The best value of a rival that is no dearer.
        samples: Of the whole validation data.
        seen: Of them so far.
    """

    metric: Metric
    bar: float
    samples: int
    seen: int = 0
    _sum: float = field(default=0.0, repr=False)
    _squares: float = field(default=0.0, repr=False)

    def is_lost(self, outputs: Any, targets: Any) -> bool:
        """Take a batch in; whether the candidate can no longer reach the bar.

        The bound is the mean and :data:`SURE` standard errors, with one sample of the metric's ideal value added, so
        that a candidate that got nothing right until now has one, too.
        """
        assert self.metric.per_sample is not None  # noqa: S101 - a race is of no other metric
        values = self.metric.per_sample(outputs, targets).double()
        self.seen += len(values)
        self._sum += float(values.sum())
        self._squares += float(values.square().sum())
        return self.seen >= FEWEST and self._is_beyond_reach()

    @property
    def stopped_after(self) -> int | None:
        """Samples that were seen; None for all of them."""
        return self.seen if self.seen < self.samples else None

    def _is_beyond_reach(self) -> bool:
        ideal = self.metric.ideal
        extra = [] if ideal is None else [ideal]
        count = self.seen + len(extra)
        mean = (self._sum + sum(extra)) / count
        variance = (self._squares + sum(value**2 for value in extra)) / count - mean**2
        margin = SURE * math.sqrt(max(variance, 0.0) / count)
        if margin == 0.0 or not math.isfinite(margin):
            return False
        best = mean + margin if self.metric.direction == "maximize" else mean - margin
        return best < self.bar if self.metric.direction == "maximize" else best > self.bar


def raced_metric(objectives: Sequence[Objective]) -> Metric | None:
    """The metric that candidates may be raced by: the only thing that is measured, and known sample by sample."""
    measured = [entry for entry in objectives if not entry.predicted]
    if len(measured) != 1 or type(measured[0]) is not Accuracy or measured[0].metric is None:
        return None
    return measured[0].metric if measured[0].metric.per_sample is not None else None
