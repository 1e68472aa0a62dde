"""What a setting loses in one objective: a sum over its parameters' choices, and a smooth rest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError, solve_triangular
from scipy.linalg.lapack import dpotrf, dpotrs

from kneepoint.search.sampling.warps import LEAST, WARPS, Warp

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
_INTERCEPT = 0.3
_FEWEST_TO_SCALE = 3
_SPREADS = (0.3, 1.0, 3.0)
"""Factors of the prior's spread that are tried."""
_COMPARED = 128
"""Settings by which scales are compared."""
_NOWHERE = 1e-4
"""Places that are nearer to each other than this are one, but for rounding."""
_NEARER = 0.3
"""Half of what is smooth reaches less far, by this factor: far from all measurements something stays unknown."""
_TRIED: Mapping[str, Sequence[float]] = {
    "reach": (0.25, 0.5, 2.0),
    "misfit": (0.03, 0.1, 0.8),
    "rough": (0.1, 1.0),
}
"""What else is tried, one after the other, beside the defaults of :class:`Posterior`."""


@dataclass(frozen=True, eq=False)
class Prior:
    """What is believed of every (parameter, choice) before anything is measured.

    Attributes:
        mean: (choices of all parameters, end to end) float64.
        spread: The same shape, one standard deviation of each; positive.
        told: The same shape, which of them are in a unit of their own; of the others nothing is known.
    """

    mean: Floats
    spread: Floats
    told: npt.NDArray[np.bool_]

    @classmethod
    def flat(cls, counts: Sequence[int]) -> Prior:
        """Nothing is known, but that all choices together make the whole range of losses."""
        total = int(np.sum(counts))
        return cls(np.zeros(total), np.full(total, 1 / np.sqrt(max(1, len(counts)))), np.zeros(total, np.bool_))

    def scaled_to(self, sums: Floats, values: Floats) -> Prior:
        """The same in the unit of what was measured: sums of contributions say which is more, not how much.

        Args:
            sums: (settings,) of the believed contributions.
            values: (settings,) measured.
        """
        telling = (sums > LEAST) & (values > LEAST)
        if telling.sum() < _FEWEST_TO_SCALE:
            return self
        factor = float(np.exp(np.median(np.log(values[telling] / sums[telling]))))
        spread = np.where(self.told, np.maximum(factor * self.spread, LEAST / 10), self.spread)
        return Prior(factor * self.mean, spread, self.told)


@dataclass(frozen=True, eq=False)
class _Shared:
    """What posteriors of the same settings have in common; None for what has to be computed when it is needed.

    Attributes:
        rows: (settings, choices of all parameters) one-hot.
        gram: (settings, settings) the covariance of their sums.
        apart: (settings, settings) the squared distances of their places.
        kernels: (settings, settings) how alike they are, by reach.
    """

    rows: Floats | None = None
    gram: Floats | None = None
    apart: Floats | None = None
    kernels: dict[float, Floats] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Posterior:
    """Contributions of every choice, and what their sum misses, given measured settings.

    A Gaussian process (Rasmussen & Williams, "Gaussian Processes for Machine Learning", 2006, chapter 2) on a scale
    where contributions add up. Its covariance is that of a sum of independent contributions, and beside it a share of
    the value: errors of layers do not simply add up. Two settings miss alike where their contributions are alike, by
    squared-exponential kernels; some of it is rough. The scale, the share, its reach and how far contributions may be
    from the prior are those under which the measurements are most likely, among a few of each.

    Attributes:
        counts: Choices of every parameter.
        prior: Of their contributions, on the scale.
        warp: The scale.
        codes: (settings, parameters) measured, the position of every choice.
        values: (settings,) on the scale.
        errors: (settings,) one standard error of each.
        contributions: (choices of all parameters) that places of settings are made of; None where nothing is smooth.
        base: What their sum is added to.
        misfit: The share of a value that its sum may miss.
        reach: Length scale of what is smooth of it, in units of ``usual``.
        rough: Standard deviation of what is not smooth of it, over that of what is.
        usual: The median distance of two places.
        shared: What others that are about the same settings computed already.
    """

    counts: tuple[int, ...]
    prior: Prior
    warp: Warp
    codes: Codes
    values: Floats
    errors: Floats
    contributions: Floats | None = None
    base: float = 0.0
    misfit: float = 0.3
    reach: float = 1.0
    rough: float = 0.3
    usual: float = 1.0
    shared: _Shared = field(default_factory=_Shared)

    @classmethod
    def of(
        cls,
        counts: Sequence[int],
        prior: Prior,
        codes: Codes,
        losses: Floats,
        errors: Floats,
        warps: Sequence[Warp] = WARPS,
    ) -> Posterior:
        """The most likely one of those tried.

        Args:
            counts: Choices of every parameter.
            prior: Of their contributions, in any unit.
            codes: (settings, parameters), the position of every choice.
            losses: (settings,) finite; at least one.
            errors: (settings,) one standard error of each.
            warps: The scales to choose from.
        """
        some = np.unique(np.linspace(0, len(codes) - 1, _COMPARED).astype(np.int64))
        shared = _Shared(_one_hot(codes[some], counts))
        rough = [
            entry
            for warp in warps
            for entry in cls._rough(counts, prior, codes[some], losses[some], errors[some], warp, shared)
        ]
        best = max(rough, key=lambda entry: entry.likelihood + float(np.log(entry.warp.slope(losses[some])).sum()))
        values, slope = best.warp.forth(losses), best.warp.slope(losses)
        return replace(best, codes=codes, values=values, errors=errors * slope, shared=_Shared())._smoothed()

    @classmethod
    def _rough(
        cls,
        counts: Sequence[int],
        prior: Prior,
        codes: Codes,
        losses: Floats,
        errors: Floats,
        warp: Warp,
        shared: _Shared,
    ) -> list[Posterior]:
        """Without a smooth rest, with priors in the unit of the losses on the scale, of little to much spread."""
        start = cls(tuple(counts), prior, warp, codes, warp.forth(losses), errors * warp.slope(losses), shared=shared)
        scaled = replace(start, prior=prior.scaled_to(start._rows @ prior.mean, start.values))
        gram = scaled._gram
        return [
            replace(
                scaled,
                prior=replace(scaled.prior, spread=factor * scaled.prior.spread),
                shared=replace(scaled.shared, gram=factor**2 * gram),
            )
            for factor in _SPREADS
        ]

    def beside(self, codes: Codes, losses: Floats) -> Posterior:
        """With more settings, measured without error; the scale and all shares stay."""
        return replace(
            self,
            codes=np.concatenate((self.codes, codes)),
            values=np.concatenate((self.values, self.warp.forth(losses))),
            errors=np.concatenate((self.errors, np.zeros(len(codes)))),
            shared=_Shared(),
        )

    @property
    def mean(self) -> Floats:
        """(choices of all parameters) what each is expected to contribute, on the scale."""
        return self.prior.mean + self.prior.spread**2 * (self._rows.T @ self._weights)

    @cached_property
    def likelihood(self) -> float:
        """Of the values, its logarithm but for a constant; minus infinity where rounding leaves no covariance."""
        try:
            determinant = np.log(np.diag(self._root)).sum()
        except LinAlgError:
            return -math.inf
        return float(-0.5 * self._surprise @ self._weights - determinant)

    def predict(self, codes: Codes) -> tuple[Floats, Floats]:
        """The expected losses of settings, and one standard deviation of each; both (settings,)."""
        _, base = self._expected
        told = _one_hot(codes, self.counts) @ self._by_choice
        covariance, (sums, variance, believed) = told[:, :-3] + _INTERCEPT**2, told[:, -3:].T
        sizes = self.warp.sizes(sums + base)
        own = variance + _INTERCEPT**2 + (self.misfit * sizes) ** 2 * (1 + self.rough**2 * self._is_smooth)
        if self.contributions is not None:
            apart = _squared(self._places(codes), self._places(self.codes))
            covariance += self._alike(apart) * np.outer(sizes, self._sizes)
        expected = believed + covariance @ self._weights
        known = solve_triangular(self._root, covariance.T, lower=True, check_finite=False)
        spread = np.sqrt(np.maximum(own - (known**2).sum(axis=0), (LEAST * sizes) ** 2))
        losses = self.warp.back(expected)
        return losses, spread / self.warp.slope(losses)

    def draw(self, random: np.random.Generator, count: int) -> Floats:
        """(count, choices of all parameters): contributions that could as well be true, on the scale.

        One drawn from the prior is corrected by what it says of the measured settings (Matheron's rule: Wilson et al.,
        "Efficiently sampling functions from Gaussian process posteriors", ICML 2020).
        """
        drawn = self.prior.mean + random.standard_normal((count, len(self.prior.mean))) * self.prior.spread
        noise = random.standard_normal((count, len(self.values))) @ self._rest_root.T
        missed = self.values - (drawn @ self._rows.T + noise)
        correction = _solved(self._root, missed.T).T @ self._rows
        return np.asarray(drawn + self.prior.spread**2 * correction)

    def _smoothed(self) -> Posterior:
        """The most likely one with a smooth rest, at places that this one's contributions give."""
        contributions, base = self._expected
        places = np.asarray(contributions[self.codes + _starts(self.counts)])
        apart = _squared(places, places)
        usual = float(np.sqrt(np.median(apart)))
        best = replace(
            self,
            contributions=contributions,
            base=base,
            usual=usual if usual > _NOWHERE else 1.0,
            shared=_Shared(self._rows, self._gram, apart),
        )
        for name, values in _TRIED.items():
            for value in values:
                changes: dict[str, Any] = {name: value}
                best = max(best, replace(best, **changes), key=lambda entry: entry.likelihood)
        return best

    @cached_property
    def _root(self) -> Floats:
        """The Cholesky factor of the measured settings' covariance."""
        return _cholesky(self._gram + self._rest)

    @cached_property
    def _gram(self) -> Floats:
        if self.shared.gram is not None:
            return self.shared.gram
        return np.asarray((self._rows * self.prior.spread**2) @ self._rows.T)

    @cached_property
    def _by_choice(self) -> Floats:
        """What adds up over a setting's choices: covariances with all measured sums, what is expected, variance, prior.

        Shape (choices of all parameters, settings + 3).
        """
        variance = self.prior.spread**2
        return np.column_stack(((self._rows * variance).T, self._expected[0], variance, self.prior.mean))

    @cached_property
    def _rest(self) -> Floats:
        """The covariance of all but the sum."""
        count = len(self.values)
        rest = np.full((count, count), _INTERCEPT**2)
        rough = self.misfit
        if self.contributions is not None:
            rest += self.misfit**2 * self._kernel * np.outer(self._sizes, self._sizes)
            rough *= self.rough
        rest[np.diag_indices(count)] += self.errors**2 + (rough * self._sizes) ** 2 + LEAST**4
        return rest

    @cached_property
    def _rest_root(self) -> Floats:
        return _cholesky(self._rest.copy())

    @cached_property
    def _weights(self) -> Floats:
        """The inverse covariance times what the prior did not expect."""
        return _solved(self._root, self._surprise)

    @cached_property
    def _surprise(self) -> Floats:
        return np.asarray(self.values - self._rows @ self.prior.mean)

    @cached_property
    def _sizes(self) -> Floats:
        """The unit of what is missed at the measured settings: of what is expected, once that is known."""
        sums = self.values if self.contributions is None else self._rows @ self.contributions + self.base
        return self.warp.sizes(np.asarray(sums))

    @cached_property
    def _expected(self) -> tuple[Floats, float]:
        """Contributions, and what their sum is added to."""
        if self.contributions is not None:
            return self.contributions, self.base
        return self.mean, float(_INTERCEPT**2 * self._weights.sum())

    @cached_property
    def _kernel(self) -> Floats:
        """(settings, settings) how alike they are; those that differ in other things than the reach have the same."""
        if self.reach not in self.shared.kernels:
            self.shared.kernels[self.reach] = _kernel(self._apart / (2 * (self.reach * self.usual) ** 2))
        return self.shared.kernels[self.reach]

    @property
    def _is_smooth(self) -> bool:
        return self.contributions is not None

    def _alike(self, apart: Floats) -> Floats:
        """The covariance of what is missed, in units of the sizes, at these squared distances of places."""
        squared = apart / (2 * (self.reach * self.usual) ** 2)
        return np.asarray(self.misfit**2 * _kernel(squared))

    @cached_property
    def _apart(self) -> Floats:
        if self.shared.apart is not None:
            return self.shared.apart
        places = self._places(self.codes)
        return _squared(places, places)

    def _places(self, codes: Codes) -> Floats:
        """(settings, parameters): what every choice contributes, as coordinates."""
        assert self.contributions is not None  # noqa: S101 - only asked for where something is smooth
        return np.asarray(self.contributions[codes + _starts(self.counts)])

    @cached_property
    def _rows(self) -> Floats:
        return _one_hot(self.codes, self.counts) if self.shared.rows is None else self.shared.rows


def _one_hot(codes: Codes, counts: Sequence[int]) -> Floats:
    """(settings, choices of all parameters), 1 for what is chosen."""
    rows = np.zeros((len(codes), int(np.sum(counts))))
    np.put_along_axis(rows, codes + _starts(counts), 1.0, axis=1)
    return rows


def _starts(counts: Sequence[int]) -> Codes:
    """Where the choices of every parameter begin."""
    return np.asarray(np.concatenate(([0], np.cumsum(counts)))[:-1], np.int64)


def _kernel(squared: Floats) -> Floats:
    """Two squared-exponential kernels, one of which reaches less far."""
    return np.asarray((np.exp(-squared) + np.exp(-squared / _NEARER**2)) / 2)


def _squared(first: Floats, second: Floats) -> Floats:
    """(first, second) squared distances."""
    norms = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1)[None, :]
    return np.asarray(np.maximum(norms - 2 * first @ second.T, 0.0))


def _cholesky(matrix: Floats) -> Floats:
    """The lower Cholesky factor; LAPACK's own routine, because SciPy's costs more than small matrices do.

    Args:
        matrix: Symmetric, of which the lower triangle is read; may be overwritten.

    Raises:
        LinAlgError: If it is not positive definite.
    """
    factor, failure = dpotrf(matrix.T, lower=1, clean=1, overwrite_a=1)
    if failure:
        raise LinAlgError(f"a covariance of {len(matrix)} settings is not positive definite")
    return np.asarray(factor)


def _solved(factor: Floats, right: Floats) -> Floats:
    """The solution x of ``factor factor^T x = right``."""
    return np.asarray(dpotrs(factor, right, lower=1)[0])
