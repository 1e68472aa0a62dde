"""How far each choice of a layer or a group, alone, moves the teacher's outputs: where the search begins."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cached_property

from torch import fx

from kneepoint.compression.compressor import Compressor
from kneepoint.compression.output_distance import output_distances
from kneepoint.compression.prefixes import SharedPrefixes
from kneepoint.compression.pruning import first_pairs
from kneepoint.compression.soft_targets import soft_loss
from kneepoint.spaces.joint_space import STUDENT, Choice, JointSpace
from kneepoint.spaces.network import Layer, Network
from kneepoint.spaces.policy import Policy
from kneepoint.tasks.errors import InputError
from kneepoint.tasks.seeding import digest_seed, seeded

SAMPLES = 128
"""Of the training data; more would rank choices little better, and cost as much again."""
_LARGEST = 20.0
"""Nats; beyond it a network is as ruined as it can be."""
_HARMLESS = 0.01
"""Nats; a choice that moves the outputs less is not the one that a front is decided by."""
_SHRINKS = 4.0
"""How much less a milder choice than a harmless one does: a bit more halves the rounding error, and its square."""
_SECOND_ORDER = 0.1
"""Nats, up to which gradients are believed; a harsher choice is measured."""
BITS = "bits/"

Report = Callable[[int, int], None]
"""Told the parameters that are done, and all."""


def sensitivities(
    space: JointSpace, compressor: Compressor, samples: int = SAMPLES, report: Report | None = None
) -> dict[str, list[float]]:
    """For every parameter of the space and each of its choices, how far the teacher with it is from itself.

    The distance is the KL divergence of the predicted classes in nats, or the mean squared error of the outputs where
    they are no classes; 0 for the choice that changes nothing. Formats of layers are judged by gradients, all at once,
    and measured where those say that the change is not small. Widths are measured, from the one that changes most;
    behind the first that does no harm, or that is mild enough, the rest is estimated. Of students nothing is said.

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
        of = probe.of_format if name.startswith(BITS) else probe.of_width
        found[name] = [*of(name, count), 0.0]
    return found


class _Probe:
    """The teacher with single changes, on the same few samples.

    Widths and blocks are changed in a network whose BatchNorms normalize by the batch, and are compared with such a
    teacher; formats in the quantized network, with what is least quantized.
    """

    def __init__(self, space: JointSpace, compressor: Compressor, samples: int) -> None:
        self._space, self._compressor = space, compressor
        self._reference: Mapping[str, Choice] = {  # most bits, all channels, all blocks
            STUDENT: "teacher",
            **{name: count - 1 for name, count in space.choices.items()},
        }
        with seeded(digest_seed("sensitivities", compressor.seed)):
            self._pairs = list(first_pairs(space.task.train, samples))

    def of_format(self, name: str, count: int) -> list[float]:
        """The distances of every choice of a layer's format but the last."""
        believed = [entry.get(name, math.inf) for entry in self._believed]
        return [
            told if told <= _SECOND_ORDER else self.distance({name: choice})
            for choice, told in zip(range(count - 1), believed, strict=True)
        ]

    def of_width(self, name: str, count: int) -> list[float]:
        """The distances of every kept share of a group, or of a block, but the last."""
        found: list[float] = []
        for choice in range(count - 1):
            harsher = found[-1] if found else math.inf
            is_known = harsher < _HARMLESS or choice >= count // 2
            found.append(harsher / _SHRINKS if is_known else self.distance({name: choice}))
        return found

    def distance(self, changes: Mapping[str, Choice]) -> float:
        """From the teacher to the teacher with ``changes``; the largest where that cannot be made."""
        policy = self._space.policy({**self._reference, **changes})
        try:
            whole = self._widths if policy.keep else self._formats
            outputs = whole.outputs_of(self._module(policy))
        except InputError:
            raise  # the job is wrong, not the choice
        except Exception:
            return _LARGEST
        distances = [
            float(soft_loss(own, given, targets, temperature=1.0))
            for own, given, (_, targets) in zip(outputs, whole.outputs, self._pairs, strict=True)
        ]
        mean = sum(distances) / len(distances)
        return min(mean, _LARGEST) if math.isfinite(mean) else _LARGEST

    @cached_property
    def _believed(self) -> list[dict[str, float]]:
        """By choice of the format what gradients say of every layer, against the last; nothing where they say nothing.

        Each choice is made for all layers together, and every layer of it looked at alone.
        """
        count = max(count for name, count in self._space.choices.items() if name.startswith(BITS))
        everywhere = [self._everywhere(choice) for choice in range(count)]
        teacher = self._compressor.compress(Policy.build()).simulated()
        layers = self._space.teacher.layers
        names = [operation for layer in layers.values() for operation in layer.operations]
        made = [module for module in everywhere if module is not None]
        seed, size = digest_seed("labels", self._compressor.seed), _bytes_a_sample(self._space.teacher)
        try:
            told = iter(output_distances(teacher, made, self._pairs, names, seed, size))
        except InputError:
            raise  # the job is wrong, not its network
        except Exception:  # a network that gradients do not pass is measured, choice by choice
            return [{}] * (count - 1)
        sums = [{} if module is None else _by_layer(layers, next(told)) for module in everywhere]
        return [
            {name: max(value - sums[-1].get(name, 0.0), 0.0) for name, value in entry.items()} for entry in sums[:-1]
        ]

    def _everywhere(self, choice: int) -> fx.GraphModule | None:
        """The teacher with one format everywhere; None where it cannot be made."""
        changes = {name: choice for name in self._space.choices if name.startswith(BITS)}
        try:
            return self._module(self._space.policy({**self._reference, **changes}))
        except InputError:
            raise  # the job is wrong, not the choice
        except Exception:
            return None

    @cached_property
    def _widths(self) -> SharedPrefixes:
        return self._prefixes(self._compressor.sketch(Policy.build()))

    @cached_property
    def _formats(self) -> SharedPrefixes:
        return self._prefixes(self._module(self._space.policy(self._reference)))

    def _prefixes(self, module: fx.GraphModule) -> SharedPrefixes:
        return SharedPrefixes(module, [inputs for inputs, _ in self._pairs])

    def _module(self, policy: Policy) -> fx.GraphModule:
        # rounded weights are kept for the search to come; a network that is cut for this alone need not be exact
        return self._compressor.sketch(policy) if policy.keep else self._compressor.compress(policy).simulated()


def _bytes_a_sample(network: Network) -> int:
    return 4 * sum(math.prod(operation.shape) for operation in network.operations)


def _by_layer(layers: Mapping[str, Layer], told: Mapping[str, float]) -> dict[str, float]:
    """By parameter of the space what the calls of its layer add up to; no finite number is none."""
    found = {BITS + name: sum(told[one] for one in layer.operations) for name, layer in layers.items()}
    return {name: value for name, value in found.items() if math.isfinite(value)}
