"""Policy to network: the student is trained (once), channels are cut, BatchNorm is folded, quantization calibrated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from kneepoint.compression.batch_norm import fold, reestimate
from kneepoint.compression.compressed import CompressedNetwork, with_tensors
from kneepoint.compression.distillation import RECOVERY, STUDENT_TRAINING, Distillation, distill
from kneepoint.compression.pruning import channel_ranking, kept_channels
from kneepoint.compression.quantizers import dequantized_weight, scale_that_holds_bias, weight_scale
from kneepoint.compression.simulation import activation_ranges, bias_of, trainable_simulation
from kneepoint.compression.student_store import StudentStore
from kneepoint.spaces.joint_space import JointSpace
from kneepoint.spaces.network import Network
from kneepoint.spaces.policy import AxisValue, Policy
from kneepoint.spaces.quant_plan import QuantPlan
from kneepoint.spaces.students import describe
from kneepoint.spaces.surgery import cut
from kneepoint.spaces.tracing import tensors_of
from kneepoint.tasks.batches import as_pair, leaves
from kneepoint.tasks.errors import RunError, TaskError
from kneepoint.tasks.seeding import digest_seed, seeded
from kneepoint.tasks.training import Progress

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
    """What a network's policies share, computed once.

    The tensors are copies: networks belong to the space, and another compressor may train a student to other weights.
    """

    network: Network
    tensors: Mapping[str, Tensor]
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
        distill(self.task, trained, self.settings.recovery, seed, _progress(report, "recovering"))
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
            seed = digest_seed("distill", name, self.seed)
            distill(self.task, module, self.settings.student, seed, _progress(report, f"student {name}"))
            stored = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
            self.store.store(key, stored)
        _load(network.graph_module, stored, name)
        return network

    def __getstate__(self) -> dict[str, object]:
        """Without what another process computes again: graph modules do not survive pickling."""
        return {**self.__dict__, "_sources": {}, "_calibration": None}

    def _source(self, student: Mapping[str, AxisValue], report: Report | None) -> _Source:
        name = describe(student)
        if name not in self._sources:
            network = self.train_student(student, report)
            tensors = {name: value.detach().clone() for name, value in network.tensors().items()}
            folded = fold(network, network.graph_module, tensors)
            self._sources[name] = _Source(network, tensors, folded, channel_ranking(network, folded))
        return self._sources[name]

    def _prune(self, source: _Source, kept: Mapping[str, Tensor]) -> fx.GraphModule:
        pruned = cut(source.network, kept, source.tensors)
        return fold(source.network, pruned, reestimate(pruned, self._calibration_inputs()))

    def _calibrated(
        self, policy: Policy, network: Network, folded: fx.GraphModule, kept: Mapping[str, Tensor]
    ) -> CompressedNetwork:
        plan = QuantPlan.of(network, policy)
        weights = {layer: tensors_of(folded)[network.layers[layer].weight] for layer in plan.weights}
        scales = {layer: weight_scale(weights[layer], quant) for layer, quant in plan.weights.items() if quant.integer}
        plan = plan.with_scales(scales, {})
        if plan.activations:
            rounded = {
                network.layers[layer].weight: dequantized_weight(weights[layer], quant)
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
    """Weight scales, raised where an ``int32`` bias of any call of the layer would overflow."""
    state = tensors_of(folded)
    scales: dict[str, Tensor] = {}
    for node in folded.graph.nodes:
        operation = network.operation_of.get(node.name)
        if operation is None or not network.varies(operation):
            continue
        bias, scale = bias_of(node), scales.get(operation.layer, plan.weights[operation.layer].scale)
        read = plan.activations.get(operation.inputs[0])
        if bias is not None and scale is not None and read is not None:
            scales[operation.layer] = scale_that_holds_bias(scale, state[bias], read)
    return scales


def _first_inputs(batches: Iterable[Any], samples: int) -> Iterator[Any]:
    """Inputs of whole batches until ``samples`` are reached."""
    seen = 0
    for batch in batches:
        if seen >= samples:
            return
        inputs, _ = as_pair(batch, "train")
        seen += len(leaves(inputs)[0])
        yield inputs
    if seen == 0:
        raise TaskError("train: the loader is empty, and calibration needs at least one batch")


def _progress(report: Report | None, what: str) -> Progress | None:
    return None if report is None else lambda done, total, _: report(what, done, total)


def _load(module: nn.Module, tensors: Mapping[str, Tensor], student: str) -> None:
    """Copy stored weights into a student's network, all of them."""
    persistent = {**dict(module.named_parameters(remove_duplicate=False)), **module.state_dict()}
    for name, value in persistent.items():
        if name not in tensors or tensors[name].shape != value.shape:
            raise RunError(
                f"the stored weights of student {student} do not fit its network ({name}): the student family "
                "changed since the run began; start a new run directory"
            )
    with torch.no_grad():
        for name, value in persistent.items():
            value.copy_(tensors[name])
