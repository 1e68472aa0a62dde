"""The trials of an Optuna study as arrays, and what is believed of its parameters; each trial is read once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from kneepoint.search.sampling.advice import Advice
from kneepoint.search.sampling.choice_codes import ChoiceCodes
from kneepoint.search.sampling.posterior import Codes, Floats, Posterior, Prior
from kneepoint.search.sampling.proposer import Evidence, Proposer
from kneepoint.search.sampling.warps import PLAIN, RATIOS, SATURATING, WARPS

Parameters = dict[str, Any]
Identity = Callable[[Mapping[str, Any]], Hashable]
STANDARD_ERRORS = "standard_errors"
"""The user attribute of a trial that lists one standard error of each of its values, or None."""
_SURE = 0.01
"""Added to what is believed of a contribution, as the doubt of it."""
_OF_COSTS = (PLAIN, RATIOS)
_SINGLES, _RANDOM = 192, 64
"""Settings that are priced, to learn what others cost."""
_IDENTITIES = 20_000
_TOLD = 256
"""Of the settings that were priced since, the latest are remembered: they lie where the search is."""
_BEST, _RANGE = 0.05, 0.9
"""Where losses of unknown scale lie: the best value so far, and the range of all values so far."""


@dataclass(frozen=True, eq=False)
class _Measured:
    """Finished trials with finite values: (trials,) numbers, (trials, ...) the rest."""

    numbers: npt.NDArray[np.int64]
    codes: Codes
    values: Floats
    errors: Floats
    feasible: npt.NDArray[np.bool_]

    @classmethod
    def one(cls, number: int, codes: Codes, values: Floats, errors: Floats, feasible: bool) -> _Measured:
        """A single trial."""
        return cls(np.array([number]), codes[None], values[None], errors[None], np.array([feasible]))

    @classmethod
    def joined(cls, parts: Sequence[_Measured]) -> _Measured:
        """All of them, in order."""
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        return cls(*(np.concatenate(column) for column in columns))

    def before(self, number: int) -> _Measured:
        """Those below a number."""
        rows = self.numbers < number
        return self if rows.all() else _Measured(*(column[rows] for column in vars(self).values()))


class TrialMemory:
    """What a study has measured, for one search space.

    Args:
        space: The parameters, and what they may be.
        directions: Of the objectives.
        advice: What is known of them beforehand, if anything.
        identity: What a setting stands for; by default the setting itself.
    """

    def __init__(
        self,
        space: Mapping[str, BaseDistribution],
        directions: Sequence[StudyDirection],
        advice: Advice | None,
        identity: Identity | None,
    ) -> None:
        self.space = dict(space)
        self.codes = ChoiceCodes(space)
        self._signs = np.array([-1.0 if way == StudyDirection.MAXIMIZE else 1.0 for way in directions])
        self._advice = advice
        self._identity = identity
        self._count = 0
        self._open: dict[int, Codes | None] = {}  # by number, what is not finished, with its setting if it has one
        self._known: dict[Hashable, Hashable] = {}
        self._first_seen: dict[Hashable, int] = {}
        self._measured: list[_Measured] = []
        self._fixed: Parameters = {}
        self._told: list[tuple[Codes, Floats]] = []

    def read(self, study: Study, trial: FrozenTrial) -> None:
        """Take in what was begun or finished since the last time, but for ``trial`` itself."""
        trials = study.get_trials(deepcopy=False)
        for entry in [*(trials[number] for number in self._open), *trials[self._count :]]:
            if self._open.get(entry.number) is not None and not entry.state.is_finished():
                continue  # still running
            if entry.number != trial.number and self.space.keys() <= entry.params.keys():
                self._take(entry)
            elif entry.state.is_finished():
                self._open.pop(entry.number, None)
            else:
                self._open[entry.number] = None
        self._count = len(trials)

    def evidence(self, before: int) -> Evidence | None:
        """What the trials below a number say; None if none of them has finite values."""
        if not self._measured:
            return None
        self._measured = [_Measured.joined(self._measured)]  # what is new beside all that was joined before
        found = self._measured[0].before(before)
        if not len(found.numbers):
            return None
        losses, errors = self._losses(found.values), found.errors
        pending = [codes for number, codes in self._open.items() if number < before and codes is not None]
        return Evidence(
            codes=found.codes,
            losses=losses,
            errors=np.abs(self._losses(found.values + errors) - losses) if errors.any() else np.zeros_like(losses),
            feasible=found.feasible,
            pending=np.stack(pending) if pending else np.zeros((0, len(self.codes.names)), np.int64),
        )

    def identify(self, codes: Codes, before: int) -> Hashable:
        """What a setting stands for; None where a trial below a number has one that stands for the same."""
        identity = self._of(codes)
        return None if self._first_seen.get(identity, before) < before else identity

    def _of(self, codes: Codes) -> Hashable:
        """What a setting stands for; remembered, because it may take as long as to build the policy."""
        key: Hashable = codes.tobytes()
        if self._identity is None:
            return key
        if key not in self._known:
            if len(self._known) >= _IDENTITIES:
                self._known.clear()
            self._known[key] = self._identity({**self._fixed, **self.codes.decode(codes)})
        return self._known[key]

    def anything(self, random: np.random.Generator, count: int) -> Codes:
        """(count, parameters) uniformly random settings."""
        return np.floor(random.random((count, len(self.codes.counts))) * self.codes.counts).astype(np.int64)

    def proposer(self) -> Proposer:
        """By what is known of the objectives."""
        count, advice = len(self._signs), self._advice
        if advice is None:
            flat = Prior.flat(self.codes.counts)
            everything = [list(range(count))]
            return Proposer(self.codes.counts, everything, [flat] * count, [WARPS] * count, np.ones(count), hidden=True)
        return Proposer(
            self.codes.counts,
            advice.fronts,
            priors=[self._prior(known) for known in advice.contributions],
            warps=[(SATURATING,) if entry else _OF_COSTS for entry in advice.saturating],
            limits=np.array(advice.limits, np.float64),
            price=self._price if advice.price is not None else None,
            priced=self._priced_now(),
            hidden=advice.hidden,
        )

    def _priced_now(self) -> Mapping[int, Posterior]:
        """The models of told losses, with the settings that were priced last beside those all over the space."""
        if not self._told:
            return self._priced
        codes, losses = (np.concatenate(parts)[-_TOLD:] for parts in zip(*self._told, strict=True))
        self._told = [(codes, losses)]
        known = np.isfinite(losses)
        return {
            column: model.beside(codes[known[:, column]], losses[known[:, column], column])
            for column, model in self._priced.items()
        }

    @cached_property
    def _priced(self) -> Mapping[int, Posterior]:
        """Models of the losses that are told without measuring, learned once from settings all over the space."""
        if self._advice is None or self._advice.price is None:
            return {}
        codes = self._design()
        losses = self._price(codes)
        self._told.clear()
        flat, models = Prior.flat(self.codes.counts), {}
        for column, told in enumerate(losses.T):
            known = np.isfinite(told)
            if known.any():
                none = np.zeros(int(known.sum()))
                models[column] = Posterior.of(self.codes.counts, flat, codes[known], told[known], none, _OF_COSTS)
        return models

    def _design(self) -> Codes:
        """Every single change of the setting with all last choices, some of them if they are many; and random ones."""
        random, counts = np.random.default_rng(0), np.array(self.codes.counts)
        singles = [(column, choice) for column, count in enumerate(counts) for choice in range(count - 1)]
        if len(singles) > _SINGLES:
            singles = [singles[row] for row in random.choice(len(singles), _SINGLES, replace=False)]
        codes = np.repeat((counts - 1)[None, :], 1 + len(singles), axis=0)
        for row, (column, choice) in enumerate(singles):
            codes[1 + row, column] = choice
        return np.unique(np.concatenate((codes, self.anything(random, _RANDOM))), axis=0)

    def _take(self, entry: FrozenTrial) -> None:
        codes = self.codes.encode([entry.params])[0]
        self._fixed = {name: value for name, value in entry.params.items() if name not in self.space}
        identity = self._of(codes)
        self._first_seen[identity] = min(entry.number, self._first_seen.get(identity, entry.number))
        if not entry.state.is_finished():
            self._open[entry.number] = codes
            return
        self._open.pop(entry.number, None)
        values = np.array(entry.values if entry.state == TrialState.COMPLETE else [np.nan], np.float64)
        if np.isfinite(values).all():
            feasible = all(value <= 0.0 for value in entry.constraints.values())
            errors = entry.user_attrs.get(STANDARD_ERRORS) or [None] * len(values)
            known = np.array([error or 0.0 for error in errors], np.float64)
            self._measured.append(_Measured.one(entry.number, codes, values, known, feasible))

    def _prior(self, known: Mapping[str, Sequence[float]]) -> Prior:
        """Contributions by name as a prior; a choice of which nothing is known may be anything."""
        flat = Prior.flat(self.codes.counts)
        mean, spread, told = flat.mean.copy(), flat.spread.copy(), flat.told.copy()
        places = itertools.count()
        for name, choices in zip(self.codes.names, self.codes.choices, strict=True):
            values = known.get(name, ())
            for choice, place in zip(choices, places, strict=False):
                if isinstance(choice, int) and 0 <= choice < len(values):
                    mean[place], told[place] = values[choice], True
                    spread[place] = abs(values[choice]) + _SURE
        return Prior(mean, spread, told)

    def _price(self, codes: Codes) -> Floats:
        assert self._advice is not None and self._advice.price is not None  # noqa: S101,PT018 - given where both are
        settings = [{**self._fixed, **self.codes.decode(row)} for row in codes]
        losses = self._losses(self._advice.price(settings))
        self._told.append((codes, losses))
        return losses

    def _losses(self, values: Floats) -> Floats:
        """(settings, objectives): by the job's scales, or between the best and the worst value so far."""
        if self._advice is not None:
            losses = np.empty(values.shape)
            for column, scale in enumerate(self._advice.scales):
                losses[:, column] = [scale(value) for value in values[:, column].tolist()]
            return losses
        signed = values * self._signs
        known = np.concatenate([part.values for part in self._measured]) * self._signs
        low, span = known.min(axis=0), np.ptp(known, axis=0)
        return np.asarray(_BEST + _RANGE * (signed - low) / np.where(span > 0, span, 1.0))
