"""Samplers by name, and the settings every search measures first."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Mapping

import optuna
from optuna.samplers import BaseSampler

from kneepoint.search.pymoo_sampler import PymooSampler, is_pymoo
from kneepoint.search.quiet import quiet_optuna
from kneepoint.search.sampling.advice import Advice
from kneepoint.search.sampling.kneepoint_sampler import KneepointSampler
from kneepoint.spaces.joint_space import Choice, JointSpace
from kneepoint.tasks.errors import JobError, nearest

_POPULATION = 20
_USUAL, _OTHERS = (8, 4, 16), (6, 3, 2, 1)
_SMALLEST_BATCH, _LARGEST_BATCH = 4, 128


def anchors(space: JointSpace) -> list[dict[str, Choice]]:
    """Uniform bit-widths of every architecture, students after the teacher: 8 bits, then 4, then floats.

    Floats are among them because small networks may run faster so: each integer layer pays for its quantizers. A space
    of formats by name has every format of these bits, and, without students, of fewer, too.
    """
    usual: list[int | str] = [bits for bits in _USUAL if bits in space.weight_bits]
    order = usual or _named_formats(space) or list(space.weight_bits[-1:])
    full = max(space.keep)
    return [space.uniform(student, bits, full) for bits in order for student in space.members]


def _named_formats(space: JointSpace) -> list[int | str]:
    """Formats that are written as names, those of the usual bits first."""
    bits_of = {name: form.weight_bits for name, form in zip(space.weight_bits, space.formats, strict=True)}
    order = _USUAL if len(space.members) > 1 else (*_USUAL, *_OTHERS)
    return [name for bits in order for name, found in bits_of.items() if found == bits and isinstance(name, str)]


def sampler_named(
    sampler: str | BaseSampler,
    space: JointSpace,
    seed: int,
    advice: Callable[[], Advice] | None = None,
    at_once: int = 1,
) -> BaseSampler:
    """An Optuna sampler: the one given, or a new one by name.

    Args:
        sampler: ``kneepoint``, ``nsga2``, ``nsga3``, ``tpe``, ``gp``, ``random``, the path of a class such as
            ``optuna.samplers:QMCSampler`` or ``pymoo.algorithms.moo.sms:SMSEMOA``, or a sampler object.
        space: For the settings that ``kneepoint`` measures first, and for which settings are the same policy.
        seed: Of a new sampler.
        advice: What ``kneepoint`` begins with; without any it learns everything from the trials.
        at_once: Candidates that are measured at the same time; so many are chosen together, within limits.

    Raises:
        JobError: If the name is unknown, where the message names the nearest; or if the path leads to no sampler.
    """
    if isinstance(sampler, BaseSampler):
        return sampler
    known: Mapping[str, Callable[[], BaseSampler]] = {
        "kneepoint": lambda: KneepointSampler(
            seed, anchors(space), advice, random_trials=0, identity=_PolicyOf(space), batch=_batch(at_once)
        ),
        "nsga2": lambda: optuna.samplers.NSGAIISampler(population_size=_POPULATION, seed=seed),
        "nsga3": lambda: optuna.samplers.NSGAIIISampler(population_size=_POPULATION, seed=seed),
        "tpe": lambda: optuna.samplers.TPESampler(multivariate=True, seed=seed),
        "gp": lambda: optuna.samplers.GPSampler(seed=seed),
        "random": lambda: optuna.samplers.RandomSampler(seed=seed),
    }
    with quiet_optuna():
        if isinstance(sampler, str) and ("." in sampler or ":" in sampler):
            return _of_class(sampler, space, seed)
        if not isinstance(sampler, str) or sampler not in known:
            raise JobError(
                f"unknown sampler {sampler!r}; {nearest(str(sampler), known)}, or give the path of a class: "
                "package.module:Class"
            )
        return known[sampler]()


def _batch(at_once: int) -> int:
    """Settings that are chosen together: few, so that each learns from the last, unless many workers wait."""
    return min(max(_SMALLEST_BATCH, at_once // 4), _LARGEST_BATCH)


def sampler_name(sampler: str | BaseSampler) -> str:
    """How a job file refers to the sampler."""
    return sampler if isinstance(sampler, str) else type(sampler).__name__


def _of_class(path: str, space: JointSpace, seed: int) -> BaseSampler:
    """A sampler of the class at ``path``, seeded if it takes a seed; or around an algorithm of pymoo."""
    try:
        found = pkgutil.resolve_name(path)
        if inspect.isclass(found) and is_pymoo(found):
            return PymooSampler(found, space.distributions, seed)
        if not inspect.isclass(found) or not issubclass(found, BaseSampler):
            raise TypeError("it is no class of optuna.samplers.BaseSampler or of pymoo")
        make: Callable[..., BaseSampler] = found
        return make(seed=seed) if "seed" in inspect.signature(found).parameters else make()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        extra = " (pip install 'kneepoint[pymoo]')" if path.startswith("pymoo") else ""
        raise JobError(f"sampler {path!r} cannot be made: {error}; give package.module:Class{extra}") from error


class _PolicyOf:
    """The policy's id of a setting: a shallow student reads only some of the parameters."""

    def __init__(self, space: JointSpace) -> None:
        self._space = space

    def __call__(self, parameters: Mapping[str, Choice]) -> str:
        return self._space.policy(parameters).id
