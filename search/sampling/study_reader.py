"""The trials of an Optuna study, told to a memory as they begin and end; each is read once."""

from __future__ import annotations

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from kneepoint.search.sampling.trial_memory import TrialMemory

STANDARD_ERRORS = "standard_errors"
"""The user attribute of a trial that lists one standard error of each of its values, or None."""


class StudyReader:
    """Follows a study.

    Args:
        memory: Told of the trials that have all parameters of its space.
    """

    def __init__(self, memory: TrialMemory) -> None:
        self._memory = memory
        self._count = 0
        self._open: dict[int, bool] = {}  # by number what is not finished, and whether the memory knows its setting

    def read(self, study: Study, trial: FrozenTrial) -> None:
        """Take in what was begun or finished since the last time, but for ``trial`` itself."""
        trials = study.get_trials(deepcopy=False)
        for entry in [*(trials[number] for number in self._open), *trials[self._count :]]:
            has_setting = self._open.get(entry.number, False)
            if not has_setting and entry.number != trial.number:
                has_setting = self._memory.space.keys() <= entry.params.keys()
                if has_setting:
                    self._memory.begin(entry.number, entry.params)
            if not entry.state.is_finished():
                self._open[entry.number] = has_setting
                continue
            self._open.pop(entry.number, None)
            if has_setting:
                self._end(entry)
        self._count = len(trials)

    def _end(self, entry: FrozenTrial) -> None:
        values = entry.values if entry.state == TrialState.COMPLETE else None
        errors = entry.user_attrs.get(STANDARD_ERRORS) or [None] * len(values or ())
        feasible = all(value <= 0.0 for value in entry.constraints.values())
        self._memory.end(entry.number, values, errors, feasible)
