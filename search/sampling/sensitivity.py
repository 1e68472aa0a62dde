"""How far each choice of a layer or a group, alone, moves the teacher's outputs: where the search begins."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from kneepoint.compression.compressor import Compressor
from kneepoint.compression.distillation import soft_loss
from kneepoint.compression.pruning import first_pairs
from kneepoint.spaces.joint_space import STUDENT, Choice, JointSpace
from kneepoint.spaces.policy import Policy
from kneepoint.tasks.errors import InputError
from kneepoint.tasks.modes import module_mode
from kneepoint.tasks.seeding import digest_seed, seeded

SAMPLES = 128
"""Of the training data; more would rank choices little better, and cost as much again."""
_LARGEST = 20.0
"""Nats; beyond it a network is as ruined as it can be."""
_HARMLESS = 0.01
"""Nats; a choice that moves the outputs less is not the one that a front is decided by."""
_SHRINKS = 4.0
"""How much less a milder choice than a harmless one does: a bit more halves the rounding error, and its square."""

Report = Callable[[int, int], None]
"""Told the parameters that are done, and all."""


def sensitivities(
    space: JointSpace, compressor: Compressor, samples: int = SAMPLES, report: Report | None = None
) -> dict[str, list[float]]:
    """For every parameter of the space and each of its choices, how far the teacher with it is from itself.

    The distance is the KL divergence of the predicted classes in nats, or the mean squared error of the outputs where
    they are no classes; 0 for the choice that changes nothing. The choices of a parameter are tried from the one that
    changes most; behind the first that does no harm, or that is mild enough, the rest is estimated. Of students nothing
    is said.

    Args:
        space: Whose choices are tried one at a time on the teacher.
        compressor: Of the space.
        samples: Of the training data, about.
        report: Told how far it is.
    """
    probe = _Probe(space, compressor, samples)
    found: dict[str, list[float]] = {}
    for done, (name, count) in enumerate(space.choices.items()):
        if report is not None:
            report(done, len(space.choices))
        found[name] = [0.0] * count
        tried = count - 1 if name.startswith("bits/") else count // 2
        for choice in range(count - 1):
            harsher = found[name][choice - 1] if choice else math.inf
            is_known = harsher < _HARMLESS or choice >= tried
            found[name][choice] = harsher / _SHRINKS if is_known else probe.distance({name: choice})
    return found


class _Probe:
    """The teacher with single changes, on the same few samples."""

    def __init__(self, space: JointSpace, compressor: Compressor, samples: int) -> None:
        self._space, self._compressor, self._sketching = space, compressor, compressor.sketching(samples)
        with seeded(digest_seed("sensitivities", compressor.seed)):
            self._pairs = list(first_pairs(space.task.train, samples))
        self._taught = {
            self._compressor: self._outputs(space.task.model),
            self._sketching: self._outputs(self._sketching.compress(Policy.build()).module),
        }
        self._reference: Mapping[str, Choice] = {  # most bits, all channels, all blocks
            STUDENT: "teacher",
            **{name: count - 1 for name, count in space.choices.items()},
        }

    def distance(self, changes: Mapping[str, Choice]) -> float:
        """From the teacher to the teacher with ``changes``; the largest where that cannot be made."""
        policy = self._space.policy({**self._reference, **changes})
        # rounded weights are kept for the search to come; a network that is cut for this alone need not be exact
        compressor = self._sketching if policy.keep else self._compressor
        try:
            outputs = self._outputs(compressor.compress(policy).module)
        except InputError:
            raise  # the job is wrong, not the choice
        except Exception:
            return _LARGEST
        distances = [
            float(soft_loss(own, given, targets, temperature=1.0))
            for own, given, (_, targets) in zip(outputs, self._taught[compressor], self._pairs, strict=True)
        ]
        mean = sum(distances) / len(distances)
        return min(mean, _LARGEST) if math.isfinite(mean) else _LARGEST

    def _outputs(self, module: torch.nn.Module) -> list[Any]:
        with torch.no_grad(), module_mode(module, training=False):
            return [self._space.task.call(module, inputs) for inputs, _ in self._pairs]
