"""What a job tells its sampler: scales, limits and prices at once, sensitivities for some seconds of work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kneepoint.objectives.view import View
from kneepoint.search.axis import quality_of
from kneepoint.search.goals import fronts_of, has_hidden_limits, limits_of
from kneepoint.search.progress import Progress
from kneepoint.search.sampling.advice import Advice, Floats, Settings
from kneepoint.search.sampling.sensitivity import sensitivities
from kneepoint.search.trials import Trials
from kneepoint.spaces.policy import Policy
from kneepoint.tasks.errors import InputError


def advice_of(trials: Trials, progress: Progress) -> Advice:
    """The advice for the job of ``trials``; sensitivities are measured now, unless the run directory has them."""
    quality = quality_of(trials.axes)
    contributions = _sensitivities(trials, progress)
    return Advice(
        scales=[axis.scale for axis in trials.axes],
        fronts=fronts_of(trials.axes),
        saturating=quality,
        contributions=[contributions if good else {} for good in quality],
        limits=limits_of(trials),
        hidden=has_hidden_limits(trials),
        price=Prices(trials),
    )


def _sensitivities(trials: Trials, progress: Progress) -> Mapping[str, Sequence[float]]:
    """Those of an earlier process of the run, or measured and kept."""
    known = trials.directory.read_sensitivities()
    names = trials.job.space.choices
    if known is None or {name: len(values) for name, values in known.items()} != dict(names):
        known = sensitivities(
            trials.job.space,
            trials.evaluator.compressor,
            report=lambda done, total: progress.tell("measuring sensitivities", done, total),
        )
        trials.directory.write_sensitivities(known)
    return known


class Prices:
    """Objectives that follow from a policy alone, for settings that nobody has measured.

    Args:
        trials: Of the run.
    """

    def __init__(self, trials: Trials) -> None:
        self._job = trials.job
        self._trials = trials
        self._known: dict[str, list[float]] = {}

    def __call__(self, settings: Settings) -> Floats:
        """(settings, objectives) values; NaN where only a measurement tells."""
        return np.array([self._price(entry) for entry in settings], np.float64).reshape(len(settings), -1)

    def _price(self, parameters: Mapping[str, Any]) -> Sequence[float]:
        policy = self._job.space.policy(parameters)
        if policy.id not in self._known:
            self._known[policy.id] = self._scored(policy)
        return self._known[policy.id]

    def _scored(self, policy: Policy) -> list[float]:
        """Nothing is told of a policy that cannot be priced: the evaluator finds out why, if it is ever proposed."""
        view = View(self._job.task, policy, self._job.space.network_of(policy), None, None)
        try:
            scores = {entry.name: entry.score(view) for entry in self._job.objectives if entry.predicted}
            if self._job.tight_devices:
                scores = self._trials.counted(scores, view.misfits(self._job.devices))
            return [scores[entry.name].value if entry.predicted else np.nan for entry in self._job.objectives]
        except InputError:
            raise  # the job is wrong, not the candidate
        except Exception:  # a bad candidate must not end the search
            return [np.nan] * len(self._job.objectives)
