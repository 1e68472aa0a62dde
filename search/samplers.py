"""Samplers by name, and the settings every search measures first."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import optuna
from optuna.samplers import BaseSampler

from kneepoint.search.local_search import FrontLocalSearch
from kneepoint.search.quiet import quiet_optuna
from kneepoint.spaces.joint_space import Choice, JointSpace
from kneepoint.tasks.errors import JobError, nearest


def anchors(space: JointSpace) -> list[dict[str, Choice]]:
    """Uniform bit-widths of every architecture, students after the teacher: 8 bits, then 4, then floats.

    Floats are among them because small networks may run faster so: each integer layer pays for its quantizers.
    """
    usual: list[int | str] = [bits for bits in (8, 4, 16) if bits in space.weight_bits]
    order = usual or list(space.weight_bits[-1:])
    full = max(space.keep)
    return [space.uniform(student, bits, full) for bits in order for student in space.members]


def sampler_named(sampler: str | BaseSampler, space: JointSpace, seed: int) -> BaseSampler:
    """An Optuna sampler: the one given, or a new one by name.

    Args:
        sampler: ``kneepoint``, ``nsga2``, ``tpe``, ``gp``, ``random``, or a sampler object.
        space: For the settings that ``kneepoint`` measures first, and for which settings are the same policy.
        seed: Of a new sampler.

    Raises:
        JobError: If the name is unknown; the message names the nearest.
    """
    if isinstance(sampler, BaseSampler):
        return sampler
    known: Mapping[str, Callable[[], BaseSampler]] = {
        "kneepoint": lambda: FrontLocalSearch(seed, anchors(space), random_trials=0, identity=_PolicyOf(space)),
        "nsga2": lambda: optuna.samplers.NSGAIISampler(population_size=20, seed=seed),
        "tpe": lambda: optuna.samplers.TPESampler(multivariate=True, seed=seed),
        "gp": lambda: optuna.samplers.GPSampler(seed=seed),
        "random": lambda: optuna.samplers.RandomSampler(seed=seed),
    }
    if not isinstance(sampler, str) or sampler not in known:
        raise JobError(f"unknown sampler {sampler!r}; {nearest(str(sampler), known)}")
    with quiet_optuna():
        return known[sampler]()


def sampler_name(sampler: str | BaseSampler) -> str:
    """How a job file refers to the sampler."""
    return sampler if isinstance(sampler, str) else type(sampler).__name__


class _PolicyOf:
    """The policy's id of a setting: a shallow student reads only some of the parameters."""

    def __init__(self, space: JointSpace) -> None:
        self._space = space

    def __call__(self, parameters: Mapping[str, Choice]) -> str:
        return self._space.policy(parameters).id
