"""Policy to network: the student is trained (once), channels are cut, BatchNorm is folded, quantization calibrated."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from kneepoint.compression.batch_norm import fold, reestimate
from kneepoint.compression.compressed import CompressedNetwork, with_tensors
from kneepoint.compression.distillation import RECOVERY, STUDENT_TRAINING, Distillation, distill
from kneepoint.compression.pruning import channel_ranking, kept_channels
from kneepoint.compression.quantizers import dequantized_weight, scale_that_holds_bias, weight_scale
from kneepoint.compression.simulation import (
    activation_ranges,
    bias_of,
    tensors_of,
    trainable_simulation,
)
from kneepoint.compression.student_store import StudentStore
from kneepoint.spaces.joint_space import JointSpace
from kneepoint.spaces.network import Network
from kneepoint.spaces.policy import AxisValue, Policy
from kneepoint.spaces.quant_plan import QuantPlan
from kneepoint.spaces.students import describe
from kneepoint.spaces.surgery import cut
from kneepoint.tasks.errors import TaskError
from kneepoint.tasks.seeding import digest_seed, seeded

CALIBRATION_SAMPLES = 512
Report = Callable[[str, int, int], None]
"""Progress of a long step: (what, done, of how many)."""


@dataclass(frozen=True)
class CompressionSettings:
    """How policies become networks.

    Attributes:
        student: How a student is trained.
        recovery: How a compressed network recovers.
        calibration_samples: Training samples that set activation ranges and BatchNorm statistics.
    """

    student: Distillation = STUDENT_TRAINING
    recovery: Distillation = RECOVERY
    calibration_samples: int = CALIBRATION_SAMPLES


@dataclass(frozen=True)
class _Source:
    """What a network's policies share, computed once."""

    network: Network
    folded: fx.GraphModule
    ranking: Mapping[str, Tensor]


class Compressor:
    """Makes the network of any policy of a space.

    Args:
        space: Whose task gives the teacher and the data.
        store: Where trained students are kept.
        seed: Governs student training, calibration data and recovery; the same seed gives the same networks.
        settings: Steps, rates and sample counts.
    """

    def __init__(
        self, space: JointSpace, store: StudentStore, seed: int = 0, settings: CompressionSettings | None = None
    ) -> None:
        self.space = space
        self.task = space.task
        self.store = store
        self.seed = seed
        self.settings = settings or CompressionSettings()
        self._sources: dict[str, _Source] = {}
        self._calibration: list[Any] | None = None

    def compress(self, policy: Policy, report: Report | None = None) -> CompressedNetwork:
        """The network of ``policy``, without training (other than its student's, the first time).

        Raises:
            SpaceError: If the policy does not fit its network.
        """
        source = self._source(dict(policy.student), report)
        source.network.check(policy)
        kept = kept_channels(source.network, policy, source.ranking)
        folded = self._prune(source, kept) if kept else source.folded
        return self._calibrated(policy, source.network, folded, kept)

    def recover(self, compressed: CompressedNetwork, report: Report | None = None) -> CompressedNetwork:
        """``compressed`` after a short distillation through its own quantizers.

        The scales stay as they were calibrated, so the weights settle on the grid they will be stored on.
        """
        trained = trainable_simulation(compressed.network, compressed.folded, compressed.plan)
        seed = digest_seed("recover", compressed.policy.id, self.seed)
        progress = None if report is None else lambda done, total, _: report("recovering", done, total)
        distill(self.task, trained, self.settings.recovery, seed, progress)
        learned = dict(trained.named_parameters())
        return replace(compressed, folded=with_tensors(compressed.folded, learned))

    def train_student(self, student: Mapping[str, AxisValue], report: Report | None = None) -> Network:
        """The trained network of ``student``: loaded where the store has it, distilled and stored otherwise."""
        network = self.space.network(student)
        if not student or self.space.students is None:
            return network
        name = describe(student)
        key = f"{name} seed={self.seed} {self.settings.student}"
        stored = self.store.load(key)
        if stored is None:
            module = self.space.students.make(student, digest_seed("student", name, self.seed))
            progress = None if report is None else lambda done, total, _: report(f"student {name}", done, total)
            distill(self.task, module, self.settings.student, digest_seed("distill", name, self.seed), progress)
            stored = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
            self.store.store(key, stored)
        _load(network.graph_module, stored)
        return network

    def _source(self, student: Mapping[str, AxisValue], report: Report | None) -> _Source:
        name = describe(student)
        if name not in self._sources:
            network = self.train_student(student, report)
            folded = fold(network, network.graph_module)
            self._sources[name] = _Source(network, folded, channel_ranking(network, folded))
        return self._sources[name]

    def _prune(self, source: _Source, kept: Mapping[str, Tensor]) -> fx.GraphModule:
        pruned = cut(source.network, kept)
        return fold(source.network, pruned, reestimate(pruned, self._calibration_inputs()))

    def _calibrated(
        self, policy: Policy, network: Network, folded: fx.GraphModule, kept: Mapping[str, Tensor]
    ) -> CompressedNetwork:
        state = tensors_of(folded)
        plan = QuantPlan.of(network, policy)
        scales = {
            layer: weight_scale(state[network.layers[layer].weight], quant)
            for layer, quant in plan.weights.items()
            if quant.integer
        }
        plan = plan.with_scales(scales, {})
        if plan.activations:
            rounded = {
                network.layers[layer].weight: dequantized_weight(state[network.layers[layer].weight], quant)
                for layer, quant in plan.weights.items()
            }
            watched = with_tensors(folded, rounded)
            plan = plan.with_scales({}, activation_ranges(network, watched, plan, self._calibration_inputs()))
            plan = plan.with_scales(_scales_that_hold_biases(network, folded, plan), {})
        return CompressedNetwork(policy, network, folded, plan, kept)

    def _calibration_inputs(self) -> list[Any]:
        """The first batches of the training data under the compressor's seed; drawn once."""
        if self._calibration is None:
            with seeded(digest_seed("calibration", self.seed)):
                self._calibration = list(_first_inputs(self.task.train, self.settings.calibration_samples))
        return self._calibration


def _scales_that_hold_biases(network: Network, folded: fx.GraphModule, plan: QuantPlan) -> dict[str, Tensor]:
    state = tensors_of(folded)
    scales: dict[str, Tensor] = {}
    for node in folded.graph.nodes:
        operation = network.operation_of.get(node.name)
        if operation is None or operation.layer not in network.layers:
            continue
        bias, scale = bias_of(node), plan.weights[operation.layer].scale
        if bias is not None and scale is not None:
            known = scales.get(operation.layer, scale)
            scales[operation.layer] = scale_that_holds_bias(known, state[bias], plan.activations[operation.inputs[0]])
    return scales


def _first_inputs(batches: Any, samples: int) -> Any:
    """Inputs of whole batches until ``samples`` are reached."""

    def count(inputs: Any) -> int:
        return len(torch.utils._pytree.tree_leaves(inputs)[0])

    seen = 0
    for inputs, _ in batches:
        if seen >= samples:
            return
        seen += count(inputs)
        yield inputs
    if seen == 0:
        raise TaskError("train: the loader is empty, and calibration needs at least one batch")


def _load(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    own = dict(itertools.chain(module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False)))
    with torch.no_grad():
        for name, value in own.items():
            if name in tensors:
                value.copy_(tensors[name])
