"""What is known of a search before anything is computed: what may vary, what may not and why, on which devices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kneepoint.hardware_models.device import Device
from kneepoint.hardware_models.workload import Workload
from kneepoint.search.device_facts import DeviceFacts, device_facts
from kneepoint.search.time_estimate import Effort, TimeEstimate, estimate_time
from kneepoint.spaces.fixed_layers import fixed_layers
from kneepoint.spaces.joint_space import JointSpace
from kneepoint.spaces.lowering import lower
from kneepoint.spaces.network import Network
from kneepoint.spaces.policy import Policy

SCHEMA = "kneepoint.inspection/1"


@dataclass(frozen=True)
class NetworkFacts:
    """The fp32 teacher as it is deployed, BatchNorm folded, at batch 1.

    Attributes:
        parameters: Elements of its constants.
        macs: Multiply-accumulate operations of one inference.
        storage_bytes: Its constants in an artifact.
        peak_activation_bytes: The most that activations occupy at once, nothing computed in place.
    """

    parameters: int
    macs: int
    storage_bytes: int
    peak_activation_bytes: int


@dataclass(frozen=True)
class LayerFacts:
    """A layer with a weight.

    Attributes:
        name: Its module path, or its parameter's name where a function was called.
        kind: Of the operator that reads its weight.
        parameters: Elements of its weight.
        why_bits_fixed: Why its bit-width cannot vary; None where it can.
        groups: The channel groups that its output channels belong to.
        why_channels_fixed: Why its output channels cannot be pruned; None where they can, or where it has none.
    """

    name: str
    kind: str
    parameters: int
    why_bits_fixed: str | None
    groups: tuple[str, ...]
    why_channels_fixed: str | None


@dataclass(frozen=True)
class SpaceFacts:
    """What a search chooses from.

    Attributes:
        weight_bits: Choices a layer, as bits or as names of formats.
        keep: Choices a channel group.
        blocks: Whether residual blocks may be left out.
        students: Parameters of every member of the student family, by its description; empty without a family.
        log10_settings: Logarithm to base 10 of the number of settings.
    """

    weight_bits: tuple[int | str, ...]
    keep: tuple[float, ...]
    blocks: bool
    students: Mapping[str, int]
    log10_settings: float


@dataclass(frozen=True)
class Facts:
    """All of it.

    Attributes:
        task: Its name.
        network: What the teacher is and costs.
        layers: All that hold a weight, in execution order.
        groups: Channels that stand or fall together: how many, by group.
        blocks: Residual blocks that a space may leave out, with the layers that leave with them.
        space: What a search chooses from.
        devices: What each makes of the bit-widths.
        trials: Candidates that the time is estimated for.
        time: About how long the search will take; None where the validation loader does not tell its length.
    """

    task: str
    network: NetworkFacts
    layers: tuple[LayerFacts, ...]
    groups: Mapping[str, int]
    blocks: Mapping[str, tuple[str, ...]]
    space: SpaceFacts
    devices: tuple[DeviceFacts, ...]
    trials: int
    time: TimeEstimate | None

    def to_json(self) -> dict[str, Any]:
        """The facts as ``kneepoint inspect --json`` prints them, in the schema ``kneepoint.inspection/1``."""
        return {"schema": SCHEMA, **asdict(self)}


def inspect_space(space: JointSpace, devices: Sequence[Device], effort: Effort) -> Facts:
    """Facts about a search of ``space``; nothing is trained, and the teacher runs on one validation batch.

    Args:
        space: What may vary; its task gives the teacher and the data.
        devices: Of the job; may be empty.
        effort: How much the search may do.

    Raises:
        TaskError: If the first validation batch cannot be loaded, or the model raises on it.
        SpaceError: If a student cannot be built.
    """
    teacher = space.teacher
    students = student_parameters(space)
    network = _network_facts(teacher)
    formats = list(zip(space.weight_bits, space.formats, strict=True))
    return Facts(
        task=space.task.name,
        network=network,
        layers=_layers(teacher),
        groups=dict(teacher.groups),
        blocks=_blocks(teacher),
        space=SpaceFacts(space.weight_bits, space.keep, space.blocks, students, _log10_settings(space)),
        devices=tuple(device_facts(teacher, device, formats) for device in devices),
        trials=effort.trials,
        time=estimate_time(space, effort, {"teacher": network.parameters, **students}),
    )


def _network_facts(network: Network) -> NetworkFacts:
    table = lower(network, Policy.build())
    workload = Workload.of(table)
    return NetworkFacts(table.parameters, table.macs, workload.storage_bytes, workload.peak_activation_bytes)


def _layers(network: Network) -> tuple[LayerFacts, ...]:
    """Those whose bits may vary and those whose bits may not, in execution order."""
    kinds: dict[str, str] = {}
    for operation in network.operations:
        if operation.weight:
            kinds.setdefault(operation.layer, operation.kind)
    fixed = fixed_layers(network)
    return tuple(
        LayerFacts(
            name=name,
            kind=kinds.get(name, "other"),
            parameters=_elements(network, name),
            why_bits_fixed=fixed.get(name),
            groups=_groups_of(network, name),
            why_channels_fixed=network.flow.fixed.get(name),
        )
        for name in dict.fromkeys([*kinds, *fixed])
    )


def _elements(network: Network, layer: str) -> int:
    """Elements of a layer's weight; 0 where it is computed."""
    shape = network.parameter_shapes.get(f"{layer}.weight", network.parameter_shapes.get(layer))
    return 0 if shape is None else math.prod(shape)


def _groups_of(network: Network, layer: str) -> tuple[str, ...]:
    """The groups of a layer's output channels, from the value that it writes."""
    written = [operation.axis for operation in network.operations if operation.layer == layer and operation.axis]
    segments = written[0][1] if written else ()
    return tuple(dict.fromkeys(segment.group for segment in segments if segment.group))


def _blocks(network: Network) -> dict[str, tuple[str, ...]]:
    return {
        name: tuple(layer for layer, facts in network.layers.items() if block.nodes.issuperset(facts.operations))
        for name, block in network.blocks.items()
    }


def student_parameters(space: JointSpace) -> dict[str, int]:
    """Parameters of every student, as built: nothing is traced."""
    students = space.students
    if students is None:
        return {}
    return {
        name: sum(parameter.numel() for parameter in students.make(member, seed=0).parameters())
        for name, member in space.members.items()
        if member
    }


def _log10_settings(space: JointSpace) -> float:
    return sum(math.log10(count) for count in (len(space.members), *space.choices.values()))
