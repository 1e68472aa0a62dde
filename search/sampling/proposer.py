"""Settings worth measuring next: additive models propose along the whole front, expected hypervolume decides."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from kneepoint.search.sampling.evidence import Evidence
from kneepoint.search.sampling.expected_improvement import Guesses, MissingVolume, best_batch
from kneepoint.search.sampling.posterior import Codes, Floats, Posterior, Prior
from kneepoint.search.sampling.warps import PLAIN, Warp

Price = Callable[[Codes], Floats]
"""(settings, parameters) to (settings, losses), NaN in losses that only a measurement tells."""
Identify = Callable[[Codes], Hashable]
_DRAWS, _DIRECTIONS = 6, 32
_MUTANTS = 256
_POINTS = 384
_FINALISTS = 6
"""Settings that are priced exactly for each that is proposed."""
_MOST_PRICED = 24
"""Of a batch: where many workers wait for a large one, the rest is proposed at the price that the model expects."""
_RANKED = 2
"""For each finalist settings that are ranked: some of them stand for what was measured already."""
_REFINED = 1
"""How often the best of the pool are changed once more."""
_MOST_FITTED = 160
_LEAST_CHANCE = 0.02
_WIDEST = 4.0
"""Weights of losses differ by up to exp(8)."""
_CROSSED, _FROM_OTHER = 0.3, 0.5
_STEP = 0.7
"""Chance that a mutated choice is a neighbouring one, rather than any."""
_MOST_CHANGES = 3


@dataclass(frozen=True, eq=False)
class Proposer:
    """Proposes settings from what was measured.

    Attributes:
        counts: Choices of every parameter.
        fronts: For every front of the job, the columns of the losses it is about.
        priors: Of the contributions to every loss.
        warps: For every loss, the scales on which they may add up.
        limits: (losses,) beyond which no setting is wanted; at most 1.
        price: Tells losses without measuring; None if it tells none.
        priced: What was learned of the losses that it tells, by column.
        hidden: Whether settings may be infeasible for reasons that no limit states.
        categories: Columns of parameters whose choices have no order: architectures.
    """

    counts: tuple[int, ...]
    fronts: Sequence[Sequence[int]]
    priors: Sequence[Prior]
    warps: Sequence[Sequence[Warp]]
    limits: Floats
    price: Price | None = None
    priced: Mapping[int, Posterior] = field(default_factory=dict)
    hidden: bool = False
    categories: Sequence[int] = ()

    def propose(
        self, evidence: Evidence, identify: Identify, random: np.random.Generator, count: int
    ) -> list[tuple[Codes, float]]:
        """Settings to measure next, each with the hypervolume it is expected to add to the sum over all fronts.

        Args:
            evidence: What was measured; at least one setting.
            identify: What a setting stands for; None for what was proposed before.
            random: Draws.
            count: How many.
        """
        beliefs = self._beliefs(evidence)
        pool, guesses = self._hopeful(evidence, beliefs, self._pool(evidence, beliefs, random))
        volumes = self._missing(evidence, beliefs, guesses, random)
        finalists = count if self.price is None else max(count, min(_FINALISTS * count, _MOST_PRICED))
        for _ in range(_REFINED):
            best = [row for row, _ in best_batch(volumes, guesses, _RANKED * finalists)]
            pool = np.unique(np.concatenate((pool[best], self._mutants(pool[best], random))), axis=0) if best else pool
            pool, guesses = self._hopeful(evidence, beliefs, evidence.unknown(pool))
        ranked = [row for row, _ in best_batch(volumes, guesses, _RANKED * finalists)]
        chosen = _unseen(pool, ranked, identify, finalists)
        if not chosen:
            return []
        pool, guesses = pool[chosen], guesses.of(chosen)
        if self.price is not None:
            guesses = guesses.told(self._prices(pool))
            volumes = self._missing(evidence, beliefs, guesses, random)
        return [(pool[row], gain) for row, gain in best_batch(volumes, guesses, count)]

    def _prices(self, pool: Codes) -> Floats:
        """Exact losses of the first settings; NaN, which leaves the guess, of those beyond what a batch may cost."""
        assert self.price is not None  # noqa: S101 - asked where there is one
        told = np.full((len(pool), len(self.priors)), np.nan)
        told[:_MOST_PRICED] = self.price(pool[:_MOST_PRICED])
        return told

    # --- what is known ---------------------------------------------------------------------------------------------

    def _beliefs(self, evidence: Evidence) -> _Beliefs:
        rows = evidence.most_telling(_MOST_FITTED)
        codes, losses, errors = evidence.codes[rows], evidence.losses[rows], evidence.errors[rows]
        models = [
            self.priced.get(column)
            or Posterior.of(self.counts, prior, codes, losses[:, column], errors[:, column], warps)
            for column, (prior, warps) in enumerate(zip(self.priors, self.warps, strict=True))
        ]
        missed = np.asarray(~evidence.feasible[rows], np.float64)
        if not self.hidden or not missed.any():
            return _Beliefs(models, None, self.limits)
        flat = Prior.flat(self.counts)
        return _Beliefs(models, Posterior.of(self.counts, flat, codes, missed, 0 * missed, (PLAIN,)), self.limits)

    def _hopeful(self, evidence: Evidence, beliefs: _Beliefs, pool: Codes) -> tuple[Codes, Guesses]:
        """The settings that may well add to a front, and what is expected of them."""
        guesses = beliefs.guesses(pool)
        rows = np.flatnonzero(guesses.may_add(self._front(evidence), self.fronts))
        return pool[rows], guesses.of(rows)

    def _front(self, evidence: Evidence) -> Floats:
        """(members, losses); empty while nothing is feasible."""
        rows = evidence.front if evidence.feasible.any() else np.zeros(0, np.int64)
        return np.asarray(evidence.losses[rows])

    def _missing(
        self, evidence: Evidence, beliefs: _Beliefs, guesses: Guesses, random: np.random.Generator
    ) -> list[MissingVolume]:
        """What every front lacks, less what is under way and will probably fill it."""
        front = self._front(evidence)
        volumes = [MissingVolume.of(front, guesses, columns, random, _POINTS) for columns in self.fronts]
        if not len(evidence.pending):
            return volumes
        pending = beliefs.guesses(evidence.pending)
        pending = pending.of(np.flatnonzero(pending.may_add(front, self.fronts)))  # of a thousand a few dozen
        return [volume.without(pending) for volume in volumes]

    # --- what may be proposed --------------------------------------------------------------------------------------

    def _pool(self, evidence: Evidence, beliefs: _Beliefs, random: np.random.Generator) -> Codes:
        """Points of drawn additive models' fronts, and neighbours of the measured front; none that was measured."""
        front = evidence.codes[evidence.front]
        drawn = np.unique(np.concatenate((self._swept(beliefs.losses, random), self._mutants(front, random))), axis=0)
        return evidence.unknown(drawn)

    def _swept(self, models: Sequence[Posterior], random: np.random.Generator) -> Codes:
        """Minima of weighted sums of losses: additive, so that every parameter is chosen alone (Shoham & Gersho 1988).

        One sweep follows what is expected, the others what could as well be true. Every other weighting is swept for a
        single category, each in its turn: what is best of a student that is not the best itself may be so elsewhere.
        """
        draws = [np.concatenate((model.mean[None, :], model.draw(random, _DRAWS))) for model in models]
        weights = self._weights(random, _DIRECTIONS * (1 + _DRAWS))
        sums = np.zeros((len(weights), int(np.sum(self.counts))))
        for column, draw in enumerate(draws):
            sums += weights[:, column, None] * np.repeat(draw, _DIRECTIONS, axis=0)
        parts = np.split(sums, np.cumsum(self.counts)[:-1], axis=1)
        swept = np.stack([part.argmin(axis=1) for part in parts], axis=1).astype(np.int64)
        for column in self.categories:
            swept[1::2, column] = np.arange(len(swept) // 2) % self.counts[column]
        return swept

    def _weights(self, random: np.random.Generator, count: int) -> Floats:
        """(sweeps, losses): of one front each, spread over orders of magnitude."""
        about = np.zeros((len(self.fronts), len(self.priors)))
        for row, columns in enumerate(self.fronts):
            about[row, list(columns)] = 1.0
        exponents = random.uniform(-_WIDEST, _WIDEST, (count, len(self.priors)))
        weights: Floats = about[random.integers(len(about), size=count)] * np.exp(exponents)
        return weights

    def _mutants(self, settings: Codes, random: np.random.Generator) -> Codes:
        """Settings with one to three choices changed, some after a crossing with another."""
        parents, others = (settings[random.integers(len(settings), size=_MUTANTS)] for _ in range(2))
        crossed = (random.random(parents.shape) < _FROM_OTHER) & (random.random((_MUTANTS, 1)) < _CROSSED)
        children = np.where(crossed, others, parents)
        changes = random.integers(1, _MOST_CHANGES + 1, size=(_MUTANTS, 1))
        ranks = random.random(children.shape).argsort(axis=1).argsort(axis=1)
        return np.asarray(np.where(ranks < changes, self._changed(children, random), children), np.int64)

    def _changed(self, codes: Codes, random: np.random.Generator) -> Codes:
        """Every choice replaced by a neighbouring one, or now and then by any."""
        counts = np.array(self.counts)
        step = np.clip(codes + random.choice((-1, 1), size=codes.shape), 0, counts - 1)
        anything = np.floor(random.random(codes.shape) * counts).astype(np.int64)
        return np.asarray(np.where(random.random(codes.shape) < _STEP, step, anything), np.int64)


@dataclass(frozen=True, eq=False)
class _Beliefs:
    """What the measurements say.

    Attributes:
        losses: A model of each.
        missed: A model of 1 for what is infeasible and 0 for the rest; None where that is never, or said by limits.
        limits: (losses,)
    """

    losses: Sequence[Posterior]
    missed: Posterior | None
    limits: Floats

    def guesses(self, pool: Codes) -> Guesses:
        """What is expected of settings."""
        columns = [model.predict(pool) for model in self.losses]
        means, spreads = (np.stack(part, axis=1) for part in zip(*columns, strict=True))
        chance = np.ones(len(pool)) if self.missed is None else 1 - self.missed.predict(pool)[0]
        return Guesses(means, spreads, np.clip(chance, _LEAST_CHANCE, 1.0), self.limits)


def _unseen(pool: Codes, rows: Sequence[int], identify: Identify, count: int) -> list[int]:
    """The first rows that stand for something new, and each for something else."""
    found: dict[Hashable, int] = {}
    for row in rows:
        if len(found) == count:
            break
        name = identify(pool[row])
        if name is not None:
            found.setdefault(name, row)
    return list(found.values())
