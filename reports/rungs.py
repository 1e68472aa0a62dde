"""How far a cheap measurement tells what a dear one will say: rank correlation between fidelities of a run."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from kneepoint.reports.run_view import RunView, TrialEntry

PROXY = "proxy"
FIDELITIES = (PROXY, "ptq", "recovered", "full")
"""From cheap to dear: a sum of sensitivities, without training, after a short one, after a long one."""
_FEWEST = 3
"""Candidates that an order is spoken of."""


@dataclass(frozen=True)
class Rung:
    """Candidates that were measured at two fidelities.

    Attributes:
        lower: The cheap one.
        upper: The dear one.
        candidates: How many were measured at both.
        tau: Kendall's tau-b of their quality at the two; NaN where one of them does not tell any two apart.
        gain: The median change of their quality, positive for better; NaN where the cheap one has another unit.
    """

    lower: str
    upper: str
    candidates: int
    tau: float
    gain: float

    def to_json(self) -> dict[str, Any]:
        """The facts; what is not a number is null."""
        return {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in asdict(self).items()
        }


def rungs(view: RunView) -> list[Rung]:
    """Every pair of neighbouring fidelities that three candidates at least were measured at."""
    return list(_rungs(view))


def _rungs(view: RunView) -> Iterator[Rung]:
    measured = _measured(view)
    climbed = [fidelity for fidelity in FIDELITIES if measured[fidelity]]
    for lower, upper in itertools.pairwise(climbed):
        both = sorted(measured[lower].keys() & measured[upper].keys())
        if len(both) >= _FEWEST:
            before, after = ([measured[fidelity][one] for one in both] for fidelity in (lower, upper))
            gain = statistics.median(late - early for early, late in zip(before, after, strict=True))
            yield Rung(lower, upper, len(both), _tau(before, after), math.nan if lower == PROXY else gain)


def _measured(view: RunView) -> dict[str, dict[str, float]]:
    """By fidelity and policy the quality, larger for better; a proxy of those that were measured at another, too."""
    name, sign = view.quality.name, view.quality.sign
    found: dict[str, dict[str, float]] = {fidelity: {} for fidelity in FIDELITIES}
    for trial in view.trials:
        if trial.scores is not None and name in trial.scores and trial.fidelity in found:
            found[trial.fidelity][trial.policy_id] = sign * trial.scores[name].value
            if (harm := _harm(view, trial)) is not None:
                found[PROXY][trial.policy_id] = -harm
    return found


def _harm(view: RunView, trial: TrialEntry) -> float | None:
    """The sum of the sensitivities of a setting of the teacher; None where they do not cover it."""
    chosen = {name: choice for name, choice in (trial.parameters or {}).items() if isinstance(choice, int)}
    if trial.policy.student != "teacher" or not chosen or not chosen.keys() <= view.sensitivities.keys():
        return None
    harms = [view.sensitivities[name][choice : choice + 1] for name, choice in chosen.items() if choice >= 0]
    return sum(harm[0] for harm in harms) if len(harms) == len(chosen) and all(harms) else None


def _tau(before: list[float], after: list[float]) -> float:
    if len(set(before)) == 1 or len(set(after)) == 1:
        return math.nan
    from scipy.stats import kendalltau  # takes half a second to import

    return float(kendalltau(before, after).statistic)
