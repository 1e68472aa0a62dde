"""Policy to network: the student is trained (once), channels are cut, BatchNorm is folded, quantization calibrated."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn

from kneepoint.compression.batch_norm import fold, normalize_by_batch_, reestimate
from kneepoint.compression.compressed import CompressedNetwork, with_tensors
from kneepoint.compression.distillation import Distillation, distill
from kneepoint.compression.equalization import equalize
from kneepoint.compression.prepared import PreparedNetwork, quantizable
from kneepoint.compression.pruning import Ranker, first_pairs, kept_channels, prune_in_stages, ranker, train_pruned
from kneepoint.compression.quantizers import scale_that_holds_bias
from kneepoint.compression.ranges import Observed, Observer, observe
from kneepoint.compression.settings import CompressionSettings
from kneepoint.compression.simulation import bias_of, trainable_simulation
from kneepoint.compression.statistics import InputStatistics, cut_statistics, input_statistics
from kneepoint.compression.student_store import StudentStore
from kneepoint.compression.student_training import StudentTrainer
from kneepoint.spaces.joint_space import JointSpace
from kneepoint.spaces.network import Network
from kneepoint.spaces.policy import AxisValue, Policy
from kneepoint.spaces.quant_plan import FLOAT_WEIGHT, QuantPlan
from kneepoint.spaces.students import describe
from kneepoint.spaces.surgery import cut
from kneepoint.spaces.tracing import copy_graph_module
from kneepoint.tasks.batches import concatenate, leaves
from kneepoint.tasks.errors import RunError, SpaceError, TaskError
from kneepoint.tasks.seeding import digest_seed, seeded
from kneepoint.tasks.training import Progress

Report = Callable[[str, int, int], None]
"""Progress of a long step: (what, done, of how many)."""
_LARGEST_BATCH = 2**24
"""Elements of one value that are computed at once on calibration data (64 MB)."""
_ARCHITECTURES = 16
"""Teacher and students, whole or without some residual blocks, that are kept ready."""
_WIDTHS = 8
"""Networks of different widths that are kept ready; policies that differ in bits alone share one."""


@dataclass(frozen=True, eq=False)
class _Source:
    """What the policies of one architecture share, computed once.

    The tensors are copies: networks belong to the space, and another compressor may train a student to other weights.
    """

    network: Network
    tensors: Mapping[str, Tensor]
    folded: fx.GraphModule
    rank: Ranker
    inputs: Callable[[], list[Any]]

    @cached_property
    def ranking(self) -> Mapping[str, Tensor]:
        """Channels of every group from most to least important."""
        return self.rank(self.tensors, self.folded)

    @cached_property
    def statistics(self) -> Mapping[str, InputStatistics]:
        """What the layers of the whole network read, which its narrower versions take their part of."""
        return input_statistics(self.network, self.folded, self.inputs())


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
        self._sources: OrderedDict[tuple[str, frozenset[str]], _Source] = OrderedDict()
        self._prepared: OrderedDict[tuple[Any, ...], PreparedNetwork] = OrderedDict()
        self._calibration: list[Any] | None = None

    def compress(self, policy: Policy, report: Report | None = None) -> CompressedNetwork:
        """The network of ``policy``, without training (other than its student's, the first time).

        What policies share is computed once: policies that differ in bits alone only gather what was quantized before.

        Raises:
            SpaceError: If the policy does not fit its network.
        """
        return _quantized(policy, self._prepare(policy, report))

    def recover(
        self, compressed: CompressedNetwork, report: Report | None = None, training: Distillation | None = None
    ) -> CompressedNetwork:
        """``compressed`` after a distillation through its own quantizers: the settings' recovery, or another.

        A pruned network with BatchNorm learns in floats first, as the settings' ``float_share`` says. Activation ranges
        are those of the network with its weights rounded. From then on the scales stay, so that the weights settle on
        the grid they will be stored on.
        """
        training = training or self.settings.recovery
        if compressed.kept:
            compressed, training = self._trained_in_floats(compressed, training, report)
        compressed = self._recalibrated(compressed)
        trained = trainable_simulation(compressed.network, compressed.folded, compressed.plan)
        seed = digest_seed("recover", compressed.policy.id, self.seed)
        distill(self.task, trained, training, seed, _progress(report, "recovering"))
        learned = dict(trained.named_parameters())
        return replace(compressed, tensors={**compressed.state, **{k: v.detach() for k, v in learned.items()}})

    def train_student(self, student: Mapping[str, AxisValue], report: Report | None = None) -> Network:
        """The trained network of ``student``: loaded where the store has it, distilled and stored otherwise."""
        network, family = self.space.network(student), self.space.students
        if not student or family is None:
            return network
        stored = self._trainer.weights(family, student, lambda what: _progress(report, what))
        _load(network, stored, describe(student))
        return network

    def student_after_slice(
        self, student: Mapping[str, AxisValue], number: int, report: Report | None = None
    ) -> nn.Module:
        """The float module of ``student`` after the slice of that number (from 0) of its training.

        Raises:
            SpaceError: If the space has no students.
        """
        if self.space.students is None:
            raise SpaceError(f"the space has no students, and a policy names {describe(student)}")
        return self._trainer.after_slice(self.space.students, student, number, lambda what: _progress(report, what))

    @property
    def _trainer(self) -> StudentTrainer:
        return StudentTrainer(self.space, self.store, self.seed, self.settings.student)

    def sketch(self, policy: Policy) -> fx.GraphModule:
        """The float network of a policy's width and blocks, for a quick look: as the trace has it, nothing folded.

        BatchNorms normalize by the batch they see, which on enough samples is as good as statistics measured again.

        Raises:
            SpaceError: If the policy does not fit its network.
        """
        whole = self._source(Policy.build(dict(policy.student) or "teacher"), None)
        network = whole.network.without(policy.dropped_blocks)
        kept = kept_channels(network, policy, whole.ranking) if policy.keep_of else {}
        return cut(network, kept, whole.tensors, normalize_by_batch_)

    def __getstate__(self) -> dict[str, object]:
        """Without what another process computes again: graph modules do not survive pickling."""
        fresh: dict[str, object] = {"_sources": OrderedDict(), "_prepared": OrderedDict(), "_calibration": None}
        return {**self.__dict__, **fresh}

    def _source(self, policy: Policy, report: Report | None) -> _Source:
        """The architecture of a policy: its student, and the residual blocks that are left."""
        student = dict(policy.student)
        name, blocks = describe(student), policy.dropped_blocks
        if (name, frozenset()) not in self._sources:
            network = self.train_student(student, report)
            tensors = {name: value.detach().clone() for name, value in network.tensors().items()}
            self._sources[name, frozenset()] = self._ranked(network, tensors, {})
        whole = self._sources[name, frozenset()]
        whole.network.check(policy)
        if (name, blocks) not in self._sources:
            network = whole.network.without(blocks)
            graph = copy_graph_module(network.graph_module, None, whole.tensors)
            statistics = reestimate(graph, self._calibration_inputs())
            self._sources[name, blocks] = self._ranked(network, whole.tensors, statistics)
        return self._remembered(name, blocks)

    def _remembered(self, name: str, blocks: frozenset[str]) -> _Source:
        """The source, used last; those that were not used for long are forgotten."""
        self._sources.move_to_end((name, blocks))
        source = self._sources[name, blocks]
        while len(self._sources) > _ARCHITECTURES:
            self._sources.popitem(last=False)
        return source

    def _ranked(self, network: Network, tensors: Mapping[str, Tensor], statistics: Mapping[str, Tensor]) -> _Source:
        values = {**tensors, **statistics}
        folded = fold(network, network.graph_module, values)
        return _Source(network, values, folded, self._ranker(network), self._calibration_inputs)

    def _ranker(self, network: Network) -> Ranker:
        return ranker(self.task, network, self.settings.importance, digest_seed("importance", self.seed))

    def _prepare(self, policy: Policy, report: Report | None) -> PreparedNetwork:
        """The float network of the policy's width, ready to be quantized; the same object while it is remembered."""
        key = (policy.student, policy.keep)
        if key not in self._prepared:
            source = self._source(policy, report)
            kept = kept_channels(source.network, policy, source.ranking) if policy.keep_of else {}
            folded, observed = self._cut(source, kept, source.tensors) if kept else (source.folded, {})
            self._prepared[key] = self._equalized(source, folded, kept, observed)
        self._prepared[key].network.check(policy)
        self._prepared.move_to_end(key)
        while len(self._prepared) > _WIDTHS:
            self._prepared.popitem(last=False)
        return self._prepared[key]

    def _cut(
        self, source: _Source, kept: Mapping[str, Tensor], tensors: Mapping[str, Tensor]
    ) -> tuple[fx.GraphModule, Mapping[str, Observed]]:
        """The folded network of some channels; and its values' ranges, where one pass over the data gives both.

        It does where all calibration data is one batch, which is then normalized as it will be from now on.
        """
        network, inputs = source.network, self._calibration_inputs()
        pruned = cut(network, kept, tensors)
        if len(inputs) > 1 or not network.folds:
            return fold(network, pruned, reestimate(pruned, inputs)), {}
        observer = Observer(histograms=self.settings.quantization.activation_range != "minmax")
        normed = {layer: norm for norm, layer in network.folds.items()}  # a folded layer writes what its BatchNorm did
        names = {normed.get(name, name): name for name in quantizable(network)}
        statistics = reestimate(pruned, inputs, names, observer)
        return fold(network, pruned, statistics), {names[name]: seen for name, seen in observer.found.items()}

    def _equalized(
        self,
        source: _Source,
        folded: fx.GraphModule,
        kept: Mapping[str, Tensor],
        observed: Mapping[str, Observed],
    ) -> PreparedNetwork:
        settings, inputs = self.settings.quantization, self._calibration_inputs
        if settings.equalization:
            return self._prepared_alone(source.network, folded, kept)
        return PreparedNetwork(
            source.network,
            folded,
            kept,
            settings,
            inputs,
            lambda: cut_statistics(source.network, source.statistics, kept),
            observed,
        )

    def _prepared_alone(self, network: Network, folded: fx.GraphModule, kept: Mapping[str, Tensor]) -> PreparedNetwork:
        """With statistics of its own, because its values are not those of the whole network."""
        inputs = self._calibration_inputs
        if self.settings.quantization.equalization:
            folded = with_tensors(folded, equalize(network, folded))
        statistics = lambda: input_statistics(network, folded, inputs())  # noqa: E731 - evaluated when asked for
        return PreparedNetwork(network, folded, kept, self.settings.quantization, inputs, statistics)

    def _trained_in_floats(
        self, compressed: CompressedNetwork, training: Distillation, report: Report | None
    ) -> tuple[CompressedNetwork, Distillation]:
        """A pruned network after its stages and its training in floats, quantized; and the training that is left."""
        policy = compressed.policy
        share = self.settings.float_share if compressed.network.folds else 0.0
        steps = min(round(share * training.steps), training.steps - 1)
        if self.settings.pruning_steps == 1 and steps < 1:
            return compressed, training
        source, kept = self._source(policy, report), compressed.kept
        values: Mapping[str, Tensor] = source.tensors
        if self.settings.pruning_steps > 1:
            kept, values = self._pruned_in_stages(source, policy, report)
        if steps >= 1:
            rate = max(training.learning_rate, self.settings.student.learning_rate)
            first, seed = (
                replace(training, steps=steps, learning_rate=rate),
                digest_seed("floats", policy.id, self.seed),
            )
            progress = _progress(report, "training in floats")
            values = train_pruned(self.task, source.network, kept, values, first, seed, progress)
        folded, _ = self._cut(source, kept, values)
        quantized = _quantized(policy, self._prepared_alone(source.network, folded, kept))
        return quantized, replace(training, steps=training.steps - max(0, steps))

    def _pruned_in_stages(
        self, source: _Source, policy: Policy, report: Report | None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The channels that are left, and full-size values."""
        return prune_in_stages(
            self.task,
            source.network,
            source.tensors,
            policy,
            self.settings.pruning_steps,
            self._ranker(source.network),
            self.settings.recovery,
            digest_seed("stages", policy.id, self.seed),
            lambda stage: _progress(report, f"pruning, stage {stage + 1}"),
        )

    def _recalibrated(self, compressed: CompressedNetwork) -> CompressedNetwork:
        names = list(compressed.plan.activations)
        method = self.settings.quantization.activation_range
        observed = observe(compressed.folded, names, self._calibration_inputs(), histograms=method != "minmax")
        quants = {name: observed[name].quant(method, compressed.plan.activations[name].bits) for name in names}
        return _with_room_for_biases(replace(compressed, plan=compressed.plan.with_scales({}, quants)))

    def _calibration_inputs(self) -> list[Any]:
        """The first batches of the training data under the compressor's seed, drawn once; one batch where it is small.

        Statistics of one batch need no averaging, and every pass over it is a single call.
        """
        if self._calibration is None:
            with seeded(digest_seed("calibration", self.seed)):
                batches = _first_inputs(self.task.train, self.settings.calibration_samples)
            self._calibration = _joined(batches, _largest_value(self.space.teacher))
        return self._calibration


def _quantized(policy: Policy, prepared: PreparedNetwork) -> CompressedNetwork:
    """A policy's formats put together from what ``prepared`` has, or makes now."""
    network, plan = prepared.network, QuantPlan.of(prepared.network, policy)
    layers = {
        name: prepared.layer(name, quant)
        for name, quant in plan.weights.items()
        if quant.bits < FLOAT_WEIGHT.bits or quant.sparsity != "dense"
    }
    tensors = {network.layers[name].weight: layer.weight for name, layer in layers.items()}
    biases = {prepared.bias_names[name]: layer.bias for name, layer in layers.items() if layer.bias is not None}
    scales = {name: layer.scale for name, layer in layers.items() if layer.scale is not None}
    plan = plan.with_scales(scales, prepared.activations(plan) if plan.activations else {})
    compressed = CompressedNetwork(policy, network, prepared.folded, {**tensors, **biases}, plan, prepared.kept)
    return _with_room_for_biases(compressed)


def _with_room_for_biases(compressed: CompressedNetwork) -> CompressedNetwork:
    """With weight scales raised where an ``int32`` bias of any call of the layer would overflow."""
    plan, network = compressed.plan, compressed.network
    scales: dict[str, Tensor] = {}
    for node in compressed.graph.graph.nodes:
        operation = network.operation_of.get(node.name)
        if operation is None or not plan.runs_on_integers(operation):
            continue
        bias, scale = bias_of(node), scales.get(operation.layer, plan.weights[operation.layer].scale)
        if bias is not None and scale is not None:
            read = plan.activations[operation.inputs[0]]
            raised = scale_that_holds_bias(scale, compressed.state[bias], read)
            scales[operation.layer] = scale if torch.equal(raised, scale) else raised
    return replace(compressed, plan=plan.with_scales(scales, {}))


def _largest_value(network: Network) -> int:
    """Elements of the largest value for one sample."""
    return max(math.prod(operation.shape) for operation in network.operations)


def _joined(batches: list[Any], elements: int) -> list[Any]:
    """The batches as one, unless a value of ``elements`` a sample would then be large, or their shapes differ."""
    samples = sum(len(leaves(batch)[0]) for batch in batches)
    if samples * elements > _LARGEST_BATCH:
        return batches
    try:
        return [concatenate(batches)]
    except TaskError:  # padded to another length each
        return batches


def _first_inputs(batches: Iterable[Any], samples: int) -> list[Any]:
    """Inputs of whole batches until ``samples`` are reached."""
    found = [inputs for inputs, _ in first_pairs(batches, samples)]
    if not found:
        raise TaskError("train: the loader is empty, and calibration needs at least one batch")
    return found


def _progress(report: Report | None, what: str) -> Progress | None:
    return None if report is None else lambda done, total, _: report(what, done, total)


def _load(network: Network, tensors: Mapping[str, Tensor], student: str) -> None:
    """Copy stored weights into a student's network, all of them; the graph has some of the module's turned round."""
    module = network.graph_module
    given = {name: value.t() if name in network.turned else value for name, value in tensors.items()}
    persistent = {**dict(module.named_parameters(remove_duplicate=False)), **module.state_dict()}
    for name, value in persistent.items():
        if name not in given or given[name].shape != value.shape:
            raise RunError(
                f"the stored weights of student {student} do not fit its network ({name}): the student family "
                "changed since the run began; start a new run directory"
            )
    with torch.no_grad():
        for name, value in persistent.items():
            value.copy_(given[name])
