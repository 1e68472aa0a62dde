"""Where the axes of the front's figure begin and end, so that hopeless trials do not squash the front."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from kneepoint.reports.run_view import RunView

_LOG_FROM = 8.0
_MARGIN = 0.06


def is_logarithmic(values: Sequence[float]) -> bool:
    """Whether costs are so far apart that a linear axis would squash the small ones."""
    return bool(values) and min(values) > 0 and max(values) / min(values) > _LOG_FROM


def cost_range(values: Sequence[float], log: bool) -> list[float] | None:
    """The range of the cost axis, in powers of ten where it is logarithmic."""
    if not values:
        return None
    low, high = min(values), max(values)
    if log:
        low, high = math.log10(low), math.log10(high)
    margin = _MARGIN * (high - low) or 0.5 * abs(high) or 1.0
    return [low - margin, high + margin]


def quality_range(view: RunView) -> list[float] | None:
    """The range in which the quality axis opens: all of the front but for outliers, with its error bars and the knee.

    Outliers are members more than 1.5 interquartile ranges below the lower quartile (Tukey's fences). The best baseline
    is always in it. Trials and baselines that are worse than all of these lie outside.

    Returns:
        The two ends, the lower first; None where there is nothing to show.
    """
    name, sign = view.quality.name, view.quality.sign
    goods = [sign * one.scores[name].value for one in view.members()]
    if not goods:
        goods = [sign * one.scores[name].value for one in view.front.candidates]
    if not goods:
        return None
    top = max(sign * one.scores[name].value + (one.scores[name].error or 0.0) for one in view.front.candidates)
    knee = [sign * view.knee.scores[name].value] if view.knee is not None else []
    shown = [good for good in goods if good >= _fence(goods)] + knee
    errors = [one.scores[name].error or 0.0 for one in view.members() if sign * one.scores[name].value in shown]
    bottom = min(shown) - max(errors, default=0.0)
    margin = _MARGIN * (top - bottom) or 0.05 * abs(top) or 1.0
    ends = (sign * (bottom - margin), sign * (top + margin))
    return [min(ends), max(ends)]


def _fence(values: Sequence[float]) -> float:
    """Tukey's lower fence."""
    if len(values) < 4:
        return min(values)
    lower, _, upper = statistics.quantiles(values, n=4, method="inclusive")
    return lower - 1.5 * (upper - lower)


def out_of_sight(view: RunView) -> int:
    """How many trials and baselines lie outside :func:`quality_range`."""
    ends = quality_range(view)
    if ends is None:
        return 0
    name = view.quality.name
    trials = [one.scores[name].value for one in view.searched if not one.failed and one.scores and name in one.scores]
    baselines = [one.scores[name].value for candidates in view.baselines.values() for one in candidates]
    return sum(not ends[0] <= value <= ends[1] for value in (*trials, *baselines))
