"""Rates of classes of kernels, fitted to published latencies of whole networks: all systems of a world at once.

A handful of networks cannot say what each class of kernels costs on a system. But systems that share a runtime resemble
each other, and so do runtimes: the cost of a class is that of the world, times what is special about the family of
runtimes, about the precision in it, and about the system, each drawn towards nothing special (a hierarchical model with
normal priors on logarithms; Gelman et al., Bayesian Data Analysis, 3rd ed., chapter 5). A runtime's integer kernels are
organized like its floating-point ones, so that networks published in floats say how those in integers compare.

The most likely values are found by Levenberg-Marquardt steps on errors that grow slowly where they are large
(Cauchy's), from which what only one system knows is eliminated (Schur complement), so that hundreds of systems take
seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kneepoint.hardware_models.kernel_classes import KERNEL_CLASSES, WORK
from kneepoint.hardware_models.published.peaks import peak_macs_per_ms
from kneepoint.hardware_models.published.priors import SCALAR, Priors
from kneepoint.hardware_models.published.samples import Sample
from kneepoint.hardware_models.published.systems import System

Floats = NDArray[np.float64]
_COSTS, _PARTS = len(KERNEL_CLASSES) + 2, len(WORK) - 1
_SHARED = _COSTS + len(KERNEL_CLASSES) * _PARTS
_SPEED_WIDTH, _PEAK_WIDTH = 10.0, 0.5
"""Of the speed of a system of which no peak was published, and of the share of a peak that one reaches."""
_MOVING = np.array([*(name in ("pool", "elementwise", "copy", "norm") for name in KERNEL_CLASSES), 0, 0], float)
"""Whose cost is that of moving elements: memory is faster or slower apart from arithmetic."""
_CAUCHY = 1.5
"""Standard deviations from where on errors count ever less."""
_ENOUGH = 20
"""Networks of one family that count fully; more share the weight of so many. With fewer, other families are predicted
worse: sizes of a family tell apart what it costs to launch a kernel, to move an element and to multiply."""
_LONGEST_STEP, _STEPS, _TRIES = 1.5, 60, 8
_CONVERGED = 2e-4


@dataclass
class Values:
    """What is fitted, all of it logarithms of factors that are 1 a priori.

    Attributes:
        system: (systems, classes + 4): the speed of all, the cost of each class, of a launch, of an inference, and of
            moving elements.
        shared: (levels, costs and parts of the work of each class): of the world, of runtimes, of their precisions.
    """

    system: Floats
    shared: Floats

    def moved(self, step: Values) -> Values:
        """One step further."""
        return Values(self.system + step.system, self.shared + step.shared)


def _above(system: System) -> tuple[str, str, str]:
    return "all", f"all/{system.family}", f"all/{system.family}/{system.group}"


@dataclass
class Hierarchy:
    """A fit of all systems of one world.

    Attributes:
        systems: In order.
        samples: Of all systems, one system after the other.
        priors: Of the world.
        values: As far as they are fitted.
    """

    systems: Sequence[System]
    samples: Sequence[Sample]
    priors: Priors
    values: Values = field(init=False)

    @classmethod
    def of(cls, found: Mapping[System, Sequence[Sample]], priors: Priors) -> Hierarchy:
        """The fit to ``found``, converged."""
        hierarchy = cls(tuple(found), tuple(sample for entries in found.values() for sample in entries), priors)
        for robust in (False, True):
            hierarchy._descend(robust)
        return hierarchy

    def __post_init__(self) -> None:
        """Begin with nothing special, at the median speed of every system whose peak is not known."""
        self.values = Values(np.zeros((len(self.systems), 1 + _COSTS + 1)), np.zeros((len(self.levels), _SHARED)))
        error = self._target - np.log(self._times(self.values)[0])
        for index in np.flatnonzero(self._believed[:, 0] == 0).tolist():
            self.values.system[index, 0] = np.median(error[self._rows(index)])

    # --- what is asked of a fit -------------------------------------------------------------------------------------

    def costs_ms(self, system: System) -> tuple[Floats, Floats]:
        """(classes + 2,) ms of an operation, a launch and an inference; (classes, 3) operations of other parts."""
        place = list(self.systems).index(system)
        shared = self.values.shared[self._above[place]].sum(0)
        own = self.values.system[place] + self._believed[place]
        return self._costs(own, shared), np.exp(self._part_logs(own, shared))

    def latency_ms(self, sample: Sample) -> float:
        """Milliseconds of a network on one of the systems."""
        costs, parts = self.costs_ms(sample.system)
        work = sample.work[:, 0] + (sample.work[:, 1:] * parts).sum(1)
        return float(work @ costs[:-2] + sample.kernels * costs[-2] + costs[-1] + sample.streamed_ms)

    # --- the data as arrays -----------------------------------------------------------------------------------------

    @cached_property
    def levels(self) -> tuple[str, ...]:
        """What systems share values with: all, their runtime, and their runtime in their precision."""
        names = {name for system in self.systems for name in _above(system)}
        return tuple(sorted(names, key=lambda name: (name.count("/"), name)))

    @cached_property
    def _above(self) -> NDArray[np.int64]:
        """(systems, 3): the levels of each."""
        places = {name: place for place, name in enumerate(self.levels)}
        return np.array([[places[name] for name in _above(system)] for system in self.systems])

    @cached_property
    def _place(self) -> NDArray[np.int64]:
        places = {system: place for place, system in enumerate(self.systems)}
        return np.array([places[sample.system] for sample in self.samples])

    @cached_property
    def _bounds(self) -> NDArray[np.int64]:
        return np.searchsorted(self._place, np.arange(len(self.systems) + 1))

    def _rows(self, system: int) -> slice:
        return slice(self._bounds[system], self._bounds[system + 1])

    @cached_property
    def _target(self) -> Floats:
        return np.log([sample.latency_ms for sample in self.samples])

    @cached_property
    def _work(self) -> Floats:
        return np.array([sample.work for sample in self.samples])

    @cached_property
    def _launches(self) -> Floats:
        """(samples, 2): of kernels, and of the inference."""
        return np.array([(sample.kernels, 1.0) for sample in self.samples])

    @cached_property
    def _streamed(self) -> Floats:
        return np.array([sample.streamed_ms for sample in self.samples])

    @cached_property
    def _hastened(self) -> Floats:
        """(classes + 2,): 1 for what a faster system does faster."""
        return np.array([1.0] * len(KERNEL_CLASSES) + [float(self.priors.hastens_launches)] * 2)

    @cached_property
    def _believed(self) -> Floats:
        """(systems, classes + 4): what is special about the systems before anything is fitted."""
        found = np.zeros((len(self.systems), 1 + _COSTS + 1))
        for row, system in enumerate(self.systems):
            if peak := peak_macs_per_ms(system):
                found[row, 0] = -np.log(peak)
            found[row, [1 + KERNEL_CLASSES.index(name) for name in system.scalar]] = np.log(SCALAR)
        return found

    @cached_property
    def _weight(self) -> Floats:
        """Roots: a family of which many sizes were measured says little more than one of which a few were."""
        counts = Counter((sample.system, sample.family) for sample in self.samples)
        return np.sqrt([min(1.0, _ENOUGH / counts[sample.system, sample.family]) for sample in self.samples])

    @cached_property
    def _precisions(self) -> tuple[Floats, Floats]:
        """Inverse variances: (systems, values) of what is special about each, and (levels, shared)."""
        prior, parts = self.priors, len(KERNEL_CLASSES) * _PARTS
        widths = [
            np.concatenate((np.minimum(prior.cost_width, most), np.full(parts, min(prior.part_width, most))))
            for most in (np.inf, prior.runtime_width, prior.group_width)
        ]
        depths = [name.count("/") for name in self.levels]
        own = np.concatenate(([_SPEED_WIDTH], prior.system_width, [prior.moving_width]))
        system = np.tile(own, (len(self.systems), 1))
        system[self._believed[:, 0] != 0, 0] = _PEAK_WIDTH
        return system**-2.0, np.array([widths[depth] ** -2.0 for depth in depths])

    # --- the model --------------------------------------------------------------------------------------------------

    def _part_logs(self, system: Floats, shared: Floats) -> Floats:
        parts = shared[..., _COSTS:].reshape(*shared.shape[:-1], len(KERNEL_CLASSES), _PARTS)
        return np.asarray(self.priors.part + parts + system[..., -1:, None])

    def _costs(self, system: Floats, shared: Floats) -> Floats:
        own = system[..., 1:-1] + _MOVING * system[..., -1:]
        return np.asarray(np.exp(self.priors.cost + shared[..., :_COSTS] + own + self._hastened * system[..., :1]))

    def _times(self, values: Values) -> tuple[Floats, Floats, Floats]:
        """(samples,) milliseconds; what each cost (samples, classes + 2) and part (samples, classes, 3) takes of it."""
        shared = values.shared[self._above].sum(1)[self._place]
        own = (values.system + self._believed)[self._place]
        costs = self._costs(own, shared)
        parts = self._work[:, :, 1:] * np.exp(self._part_logs(own, shared))
        work = np.column_stack((self._work[:, :, 0] + parts.sum(2), self._launches))
        shares = work * costs
        return shares.sum(1) + self._streamed, shares, parts * costs[:, :-2, None]

    def _loss(self, values: Values, robust: bool) -> float:
        error = (np.log(self._times(values)[0]) - self._target) / self.priors.noise
        squares = _CAUCHY**2 * np.log1p((error / _CAUCHY) ** 2) if robust else error**2
        system, shared = self._precisions
        special = (system * values.system**2).sum() + (shared * values.shared**2).sum()
        return 0.5 * float((self._weight**2 * squares).sum() + special)

    # --- descending -------------------------------------------------------------------------------------------------

    def _descend(self, robust: bool) -> None:
        damping, loss = 1e-2, self._loss(self.values, robust)
        for _ in range(_STEPS):
            before = loss
            for _ in range(_TRIES):
                moved = self.values.moved(self._step(damping, robust))
                if (after := self._loss(moved, robust)) < loss:
                    self.values, loss, damping = moved, after, max(damping / 5, 1e-6)
                    break
                damping *= 5
            if before - loss < _CONVERGED * before:
                return

    def _step(self, damping: float, robust: bool) -> Values:
        own, shared, error = self._slopes(robust)
        levels = len(self.levels)
        matrix, right = np.zeros((levels, _SHARED, levels, _SHARED)), np.zeros((levels, _SHARED))
        solved = []
        for index, above in enumerate(self._above):
            rows = self._rows(index)
            answer, curvature, slope = self._eliminated(index, own[rows], shared[rows], error[rows], damping)
            solved.append(answer)
            for first in above:
                right[first] += slope
                for second in above:
                    matrix[first, :, second] += curvature
        step = self._shared_step(matrix.reshape(right.size, right.size), right, damping)
        systems = [
            -(entry[:, -1] + entry[:, :-1] @ step[above].sum(0))
            for entry, above in zip(solved, self._above, strict=True)
        ]
        return Values(*(np.clip(part, -_LONGEST_STEP, _LONGEST_STEP) for part in (np.array(systems), step)))

    def _shared_step(self, matrix: Floats, right: Floats, damping: float) -> Floats:
        precision = self._precisions[1]
        slope = right + precision * self.values.shared
        matrix[np.diag_indices(slope.size)] = (matrix.diagonal() + precision.ravel()) * (1 + damping)
        return np.asarray(-np.linalg.solve(matrix, slope.ravel()).reshape(slope.shape))

    def _slopes(self, robust: bool) -> tuple[Floats, Floats, Floats]:
        """Weighted derivatives by a system's values and by shared ones, and weighted errors."""
        times, shares, parts = self._times(self.values)
        error = np.log(times) - self._target
        weight = self._weight / self.priors.noise
        if robust:
            weight = weight / np.sqrt(1 + (error / self.priors.noise / _CAUCHY) ** 2)
        share = shares / times[:, None]
        moving = share @ _MOVING + parts.sum((1, 2)) / times
        own = np.column_stack((share @ self._hastened, share, moving)) * weight[:, None]
        shared = np.column_stack((share, (parts / times[:, None, None]).reshape(len(times), -1))) * weight[:, None]
        return own, shared, error * weight

    def _eliminated(
        self, index: int, own: Floats, shared: Floats, error: Floats, damping: float
    ) -> tuple[Floats, Floats, Floats]:
        """A system's step as a function of the shared one, and what is left for that: curvature and slope."""
        precision = self._precisions[0][index]
        block = own.T @ own
        block[np.diag_indices(len(block))] = (block.diagonal() + precision) * (1 + damping)
        mixed, slope = own.T @ shared, own.T @ error + precision * self.values.system[index]
        answer = np.linalg.solve(block, np.column_stack((mixed, slope)))
        return answer, shared.T @ shared - mixed.T @ answer[:, :-1], shared.T @ error - mixed.T @ answer[:, -1]
