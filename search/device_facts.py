"""What the devices of a job make of the teacher: which bits they execute, which they only store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kneepoint.hardware_models.cost import Cost
from kneepoint.hardware_models.cost_model import CostModel
from kneepoint.hardware_models.device import Device
from kneepoint.hardware_models.kernels import FORMATS
from kneepoint.hardware_models.operators import OperatorTable
from kneepoint.hardware_models.workload import Workload
from kneepoint.spaces.lowering import lower
from kneepoint.spaces.network import Network
from kneepoint.spaces.policy import UNTOUCHED, LayerPolicy, Policy
from kneepoint.spaces.quant_plan import QuantPlan


@dataclass(frozen=True)
class FormatFacts:
    """The teacher with all its layers in one format, or the nearest to it that a layer can compute in.

    Attributes:
        choice: The format as the space writes it: weight bits, or a name where they alone do not say it.
        weight_bits: Bits of its weights.
        containers: What its weights are stored in (``int4``, ``float16``, ...), and how many layers are.
        executed: What its layers' kernels compute with (``int8``, ``fp32``; ``packed`` is bits as stored), and
            how many do.
        storage_bytes: All constants in the artifact.
        latency_ms: Predicted milliseconds of one inference.
        latency_ms_error: One standard error of it.
        coverage: The share of the predicted time that comes from kernels the device has a rate for.
        misfits: The limits of the device's memory that it exceeds, in words; empty where it fits.
    """

    choice: int | str
    weight_bits: int
    containers: Mapping[str, int]
    executed: Mapping[str, int]
    storage_bytes: int
    latency_ms: float
    latency_ms_error: float
    coverage: float
    misfits: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unpriced:
    """Kernels of one operator that a device has no rate for; their time is bounded from above.

    Attributes:
        operator: Its name.
        kernels: How many there are in the fp32 teacher.
        share: Of the predicted time, in [0, 1].
    """

    operator: str
    kernels: int
    share: float


@dataclass(frozen=True)
class DeviceFacts:
    """One device of a job.

    Attributes:
        name: Its name.
        runtime: What executes the network, with its version.
        threads: Of one inference.
        relative_error: One standard error of a predicted latency, as a fraction of it.
        coverage: Of the fp32 teacher: the share of the predicted time that is priced rather than bounded.
        unpriced: What is only bounded, the largest share first.
        formats: For every format of the space, and that of the teacher, in rising order.
    """

    name: str
    runtime: str
    threads: int
    relative_error: float
    coverage: float
    unpriced: tuple[Unpriced, ...]
    formats: tuple[FormatFacts, ...]


def device_facts(network: Network, device: Device, formats: Iterable[tuple[int | str, LayerPolicy]]) -> DeviceFacts:
    """What ``device`` makes of ``network`` in every format.

    Args:
        network: The teacher.
        device: Priced at its own thread count, batch 1.
        formats: The choices of the space, each with the way it is written; the teacher's need not be among them.
    """
    model = CostModel(device)
    workload = Workload.of(lower(network, Policy.build()), device.fusion)
    cost = model.cost(workload)
    return DeviceFacts(
        name=device.name,
        runtime=f"{device.runtime} {device.runtime_version}",
        threads=device.threads,
        relative_error=device.relative_error,
        coverage=cost.coverage,
        unpriced=_unpriced(workload, cost),
        formats=tuple(
            _format_facts(network, model, choice, layer)
            for choice, layer in {**dict(formats), UNTOUCHED.weight_bits: UNTOUCHED}.items()
        ),
    )


def _format_facts(network: Network, model: CostModel, choice: int | str, wanted: LayerPolicy) -> FormatFacts:
    policy = Policy.build(layers={name: layer.admit(wanted) for name, layer in network.layers.items()})
    table = lower(network, policy)
    workload = Workload.of(table, model.device.fusion)
    cost = model.cost(workload)
    containers: Counter[str] = Counter(quant.container for quant in QuantPlan.of(network, policy).weights.values())
    return FormatFacts(
        choice=choice,
        weight_bits=wanted.weight_bits,
        containers=dict(containers),
        executed=_executed(network, table, workload, model.device),
        storage_bytes=workload.storage_bytes,
        latency_ms=cost.latency_ms,
        latency_ms_error=cost.latency_ms_error,
        coverage=cost.coverage,
        misfits=tuple(map(str, cost.misfits)),
    )


def _executed(network: Network, table: OperatorTable, workload: Workload, device: Device) -> dict[str, int]:
    """What the kernels of layers whose bits may vary compute with; a layer called twice counts twice.

    Weights in a format that a kernel reads as it is (packed bits) count as that; others as what they are unpacked to.
    """
    layers = {layer.weight for layer in network.layers.values()}
    held = {
        entry.name: entry.weight.format for entry in table.operators if entry.weight and entry.weight.name in layers
    }
    formats: Counter[str] = Counter()
    for name, kind, code in zip(workload.names, workload.kinds, workload.format, strict=True):
        if name in held:
            unpacked = held[name] in FORMATS
            formats[device.executed(kind, FORMATS[int(code)]) if unpacked else held[name]] += 1
    return dict(formats)


def _unpriced(workload: Workload, cost: Cost) -> tuple[Unpriced, ...]:
    """Kernels without a rate, by operator."""
    total = sum(kernel.latency_ms for kernel in cost.kernels)
    found: dict[str, list[float]] = {}
    for kernel, function in zip(cost.kernels, workload.functions, strict=True):
        if not kernel.priced:
            name = function if kernel.kind == "other" else kernel.kind
            found.setdefault(name, []).append(kernel.latency_ms)
    listed = [Unpriced(name, len(times), sum(times) / total) for name, times in found.items()]
    return tuple(sorted(listed, key=lambda entry: -entry.share))
