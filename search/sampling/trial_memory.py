"""What a search knows of its trials and of its objectives: the evidence that proposals are made from."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution

from kneepoint.search.sampling.advice import Advice
from kneepoint.search.sampling.choice_codes import ChoiceCodes
from kneepoint.search.sampling.evidence import Evidence
from kneepoint.search.sampling.measurements import Measurements
from kneepoint.search.sampling.posterior import Codes, Floats, Posterior, Prior
from kneepoint.search.sampling.proposer import Proposer
from kneepoint.search.sampling.warps import PLAIN, RATIOS, SATURATING, WARPS

Parameters = dict[str, Any]
Identity = Callable[[Mapping[str, Any]], Hashable]
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


class TrialMemory:
    """What a search has begun and measured, for one space.

    Args:
        space: The parameters that vary, and what they may be.
        signs: For every objective 1 where it is minimized, and -1 where it is maximized.
        advice: What is known of the objectives beforehand, if anything.
        identity: What a setting stands for; by default the setting itself.
        fixed: Parameters beside those of the space, which are the same in every setting; taken from the trials, too.
    """

    def __init__(
        self,
        space: Mapping[str, BaseDistribution],
        signs: Sequence[float],
        advice: Advice | None = None,
        identity: Identity | None = None,
        fixed: Mapping[str, Any] | None = None,
    ) -> None:
        self.space = dict(space)
        self.codes = ChoiceCodes(space)
        self._signs = np.array(signs, np.float64)
        self._advice = advice
        self._identity = identity
        self._running: dict[int, Codes] = {}
        self._known: dict[Hashable, Hashable] = {}
        self._first_seen: dict[Hashable, int] = {}
        self._measured = Measurements(len(self.codes.names), self._signs)
        self._fixed: Parameters = dict(fixed or {})
        self._told: list[tuple[Codes, Floats]] = []

    def advise(self, advice: Advice | None) -> None:
        """Take advice, before any evidence is asked for."""
        self._advice = advice

    def begin(self, number: int, setting: Mapping[str, Any]) -> None:
        """A trial has this setting, with a value for every parameter of the space; others are fixed."""
        codes = self.codes.encode([setting])[0]
        self._fixed.update((name, value) for name, value in setting.items() if name not in self.space)
        identity = self._of(codes)
        self._first_seen[identity] = min(number, self._first_seen.get(identity, number))
        self._running[number] = codes

    def end(self, number: int, values: Sequence[float] | None, errors: Sequence[float | None], feasible: bool) -> None:
        """A trial that had begun has these values, with one standard error of each, or None for a failure."""
        codes = self._running.pop(number)
        if values is not None and np.isfinite(values).all():
            noise = np.array([error or 0.0 for error in errors], np.float64)
            self._measured.append(number, codes, np.array(values, np.float64), noise, feasible)

    def evidence(self, before: int) -> Evidence | None:
        """What the trials below a number say; None if none of them has finite values."""
        pending = [codes for number, codes in self._running.items() if number < before]
        under_way = np.stack(pending) if pending else np.zeros((0, len(self.codes.names)), np.int64)
        return self._measured.evidence(before, under_way, self._losses, fixed=self._advice is not None)

    def identify(self, codes: Codes, before: int) -> Hashable:
        """What a setting stands for; None where a trial below a number has one that stands for the same."""
        identity = self._of(codes)
        return None if self._first_seen.get(identity, before) < before else identity

    def setting(self, codes: Codes) -> Parameters:
        """The setting of a row of codes, with fixed parameters as far as they are known."""
        return {**self._fixed, **self.codes.decode(codes)}

    def _of(self, codes: Codes) -> Hashable:
        """What a setting stands for; remembered, because it may take as long as to build the policy."""
        key: Hashable = codes.tobytes()
        if self._identity is None:
            return key
        if key not in self._known:
            if len(self._known) >= _IDENTITIES:
                self._known.clear()
            self._known[key] = self._identity(self.setting(codes))
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
            flats, warps = [flat] * count, [WARPS] * count
            return Proposer(
                self.codes.counts,
                everything,
                flats,
                warps,
                np.ones(count),
                hidden=True,
                categories=self.codes.categories,
            )
        return Proposer(
            self.codes.counts,
            advice.fronts,
            priors=[self._prior(known) for known in advice.contributions],
            warps=[(SATURATING,) if entry else _OF_COSTS for entry in advice.saturating],
            limits=np.array(advice.limits, np.float64),
            price=self._price if advice.price is not None else None,
            priced=self._priced_now(),
            hidden=advice.hidden,
            categories=self.codes.categories,
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
        settings = [self.setting(row) for row in codes]
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
        known = self._measured.values * self._signs
        low, span = known.min(axis=0), np.ptp(known, axis=0)
        return np.asarray(_BEST + _RANGE * (signed - low) / np.where(span > 0, span, 1.0))
