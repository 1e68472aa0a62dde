"""From the results of a bundle to a device: fitted where they suffice, else a known device adapted to them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kneepoint.deployment.bundles.adapted_device import ADAPTED, adapted_device, is_adapted
from kneepoint.deployment.bundles.base_prices import BasePrices
from kneepoint.deployment.bundles.few_shot import Adapted, Latencies, adapt, kind_of
from kneepoint.deployment.bundles.plan import Plan
from kneepoint.deployment.bundles.reading import (
    MachineFacts,
    NetworkLine,
    Results,
    networks_of,
    probes_of,
    read_results,
)
from kneepoint.deployment.calibration.campaign import HELD_OUT
from kneepoint.deployment.calibration.executed import TimedNode, pair
from kneepoint.deployment.calibration.fitted_device import Machine, fitted_device, memory_content, store
from kneepoint.deployment.calibration.micro_networks import MicroNetwork
from kneepoint.deployment.calibration.probing import best_rules
from kneepoint.deployment.calibration.rates import gain_exponent
from kneepoint.deployment.calibration.samples import Sample, SampleTable, TimedKernel
from kneepoint.deployment.device_program import SLOW
from kneepoint.hardware_models.device import NAME, Cache, Device
from kneepoint.hardware_models.devices import list_devices, load_device, user_folder
from kneepoint.hardware_models.fusion import fuse
from kneepoint.hardware_models.kernels import Kernel
from kneepoint.hardware_models.onnx_reader import read_onnx
from kneepoint.hardware_models.operators import OperatorTable
from kneepoint.hardware_models.roofline import MAC_KINDS
from kneepoint.tasks.errors import DeviceError

FEWEST_TO_FIT = 200
"""Networks with profiles, from which on a fitted model is better than an adapted one (benchmarks/few_shot.py)."""
LARGE_ERROR = 0.25
_NOISY = 0.2
_USUAL_MEMORY_MB = 1000.0
_SPREAD_OF_ONE = 1.349
"""The interquartile range of a normal distribution over its standard deviation."""


@dataclass(frozen=True)
class Imported:
    """What results became.

    Attributes:
        device: The device.
        path: Its file.
        method: ``fitted`` or ``adapted``.
        base: The known device that was adapted; None of a fitted one.
        networks: By thread count, how many were measured.
        errors: By cross-validation, or by thread count on networks held out.
        candidates: For every known device, its cross-validated error; the best first.
        notes: What people should know.
    """

    device: Device
    path: Path
    method: str
    base: str | None
    networks: Mapping[int, int]
    errors: Mapping[str, Any]
    candidates: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """What ``kneepoint devices import --json`` prints."""
        return {
            "device": self.device.name,
            "path": str(self.path),
            "method": self.method,
            "base": self.base,
            "threads": self.device.threads,
            "networks": {str(count): number for count, number in self.networks.items()},
            "fusion": list(self.device.fusion),
            "relative_error": self.device.relative_error,
            "errors": dict(self.errors),
            "candidates": {name: dict(errors) for name, errors in self.candidates.items()},
            "notes": list(self.notes),
        }


def import_results(
    path: str | Path, name: str | None = None, base: str | Device | None = None, *, replace: bool = False
) -> Imported:
    """Make a device of what a bundle has measured, and write its file to the user's data folder.

    With 200 networks and more that were profiled, it is fitted as ``kneepoint devices calibrate`` fits this machine.
    With fewer, 20 at least, that known device is adapted whose cross-validated error is smallest.

    Args:
        path: The file that ``run.py`` wrote. It may be anyone's: nothing in it is believed unchecked.
        name: Of the device; by default that of the file.
        base: A known device to adapt, whatever others could do.
        replace: Whether a device of that name may be written over.

    Raises:
        DeviceError: If the file is not as ``run.py`` writes it, holds too little, or the name is taken or malformed.
    """
    name = Path(path).stem if name is None else name
    _check_name(name, replace=replace)
    results = read_results(path)
    plan = _plan(results)
    measured = _Measured.of(results, plan)
    chosen = base if isinstance(base, Device) or base is None else load_device(base)
    if chosen is None and measured.fittable(measured.threads[0]):
        return _fitted(name, measured)
    return _adapted(name, measured, [chosen] if chosen is not None else _bases(name))


def _bases(name: str) -> list[Device]:
    """The known devices: not those that were adapted, maybe to these very results, and not one that is replaced."""
    devices = [load_device(one) for one in list_devices() if one != name]
    return [device for device in devices if not is_adapted(device)]


def _check_name(name: str, *, replace: bool) -> None:
    if not NAME.fullmatch(name) or len(name) > 64:
        shown = "".join(character if character.isprintable() else "?" for character in name[:64])
        raise DeviceError(
            f"a device name has up to 64 lower-case letters, digits, dots and hyphens; got {shown!r}: give --name"
        )
    if name in list_devices() and not replace:
        taken = "is one of yours" if (user_folder() / f"{name}.yaml").is_file() else "ships"
        raise DeviceError(f"a new device has a new name; {name!r} {taken}: give another --name, or --replace")


def _plan(results: Results) -> Plan:
    facts = results.header.plan
    try:
        return Plan(facts.seed, facts.count, facts.few)
    except DeviceError as error:
        raise DeviceError(f"{results.path}, line 1: {error}; copy the file from the device again") from error


# --- what was measured ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Measured:
    """Results that were checked against the plan's networks.

    Attributes:
        results: They.
        networks: By number: how each was drawn, and its operators.
        rules: The fusion rules of the runtime there; None where no probe was looked at.
        threads: The thread counts, the one with most networks first.
    """

    results: Results
    networks: Mapping[int, tuple[MicroNetwork, OperatorTable]]
    rules: tuple[str, ...] | None
    threads: Sequence[int]

    @classmethod
    def of(cls, results: Results, plan: Plan) -> _Measured:
        if not results.networks:
            raise DeviceError(f"{results.path} has no network that was timed; run run.py on the device again")
        networks = {
            planned.number: (planned.network, read_onnx(planned.network.model, batch=planned.network.batch))
            for planned in networks_of(results, plan)
        }
        probed = [
            (planned.network, _nodes(results.probes[planned.number].nodes)) for planned in probes_of(results, plan)
        ]
        counts = Counter(threads for _, threads in results.networks)
        return cls(results, networks, best_rules(probed) if probed else None, [n for n, _ in counts.most_common()])

    def fittable(self, threads: int) -> bool:
        """Whether there are profiles enough for a fit, and the rules under which to read them."""
        profiled = [line for line in self.lines(threads) if line.nodes and line.slowdown <= SLOW]
        return self.rules is not None and len(profiled) >= FEWEST_TO_FIT

    def lines(self, threads: int) -> list[NetworkLine]:
        """The networks at one thread count."""
        return [line for (_, count), line in sorted(self.results.networks.items()) if count == threads]

    def samples(self, threads: int, rules: Sequence[str]) -> list[Sample]:
        """The networks at one thread count, with their kernels under some fusion rules."""
        return [self._sample(line, rules) for line in self.lines(threads)]

    def _sample(self, line: NetworkLine, rules: Sequence[str]) -> Sample:
        network, table = self.networks[line.network]
        kernels = fuse(table, rules)
        nodes = _nodes(line.nodes or ())
        pairs = {place: node.microseconds for place, node in pair(kernels, nodes)}
        return Sample(
            index=line.network,
            threads=line.threads,
            held_out=line.network % HELD_OUT == 0,
            style=network.style,
            batch=network.batch,
            total_us=line.us,
            complete=len(pairs) == len(kernels) == len(nodes),
            seconds=line.seconds,
            kernels=TimedKernel.all(kernels, pairs),
        )

    def kinds(self, threads: int) -> list[str]:
        """What the networks at a thread count are like."""
        return [_kind(self.networks[line.network][0].style, self.kernels(line.network)) for line in self.lines(threads)]

    def kernels(self, number: int) -> Sequence[Kernel]:
        """Of a network, without what rules differ in."""
        return fuse(self.networks[number][1], ())

    def notes(self) -> list[str]:
        """What people should know about the measurements."""
        notes, lines = list(self.results.notes), list(self.results.networks.values())
        disturbed = sum(line.slowdown > SLOW for line in lines)
        if disturbed > _NOISY * len(lines):
            notes.append(
                f"the device was noisy: {disturbed} of {len(lines)} timings were disturbed; stop what else runs there"
            )
        if self.results.refused:
            notes.append(f"onnxruntime there did not run {self.results.refused} of the networks")
        if self.rules is None:
            notes.append("no probe was looked at, so the fusion rules are those of the adapted device")
        return notes


def _kind(style: str, kernels: Iterable[Kernel]) -> str:
    return kind_of(style, [kernel.format for kernel in kernels if kernel.kind in MAC_KINDS])


def _nodes(rows: Iterable[tuple[str, str, int, float]]) -> list[TimedNode]:
    return [TimedNode(*row) for row in rows]


# --- fitted --------------------------------------------------------------------------------------------------------


def _fitted(name: str, measured: _Measured) -> Imported:
    """As ``calibrate`` does, from the networks that were timed on a quiet machine."""
    rules = measured.rules or ()
    counts = [count for count in measured.threads if measured.fittable(count)]
    samples = [
        sample
        for count in counts
        for sample, line in zip(measured.samples(count, rules), measured.lines(count), strict=True)
        if line.nodes and line.slowdown <= SLOW
    ]
    header = measured.results.header
    facts = {
        "machine": _machine_name(header.machine, header.onnxruntime),
        "seed": header.plan.seed,
        "minutes": round(sum(sample.seconds for sample in samples) / 60, 2),
        "networks": len(samples),
        "kernels": sum(len(sample.kernels) for sample in samples),
    }
    described = f"{facts['machine']}; fitted to {len(samples)} random small networks that a bundle timed."
    fitted = fitted_device(name, samples, counts, rules, _machine(measured.results, described), facts)
    notes = measured.notes()
    if dropped := [count for count in measured.threads if count not in counts]:
        notes.append(f"too few profiled networks for a fit at {', '.join(map(str, dropped))} thread(s)")
    networks = dict(Counter(sample.threads for sample in samples))
    return Imported(fitted.device, store(fitted.device), "fitted", None, networks, fitted.held_out, notes=tuple(notes))


def _machine(results: Results, description: str) -> Machine:
    facts = results.header.machine
    return Machine(
        description=description,
        runtime_version=results.header.onnxruntime,
        memory_mb=facts.memory_mb or _USUAL_MEMORY_MB,
        bandwidth_gb_s=facts.bandwidth_gb_s,
        caches=_falling(facts),
        saturates=facts.saturates,
    )


def _falling(facts: MachineFacts) -> tuple[Cache, ...]:
    """Its caches, from the smallest on; none is slower than what comes behind it."""
    found: list[Cache] = []
    rate = facts.bandwidth_gb_s
    for kb, measured in sorted(dict(facts.caches).items(), reverse=True):
        rate = max(rate, measured)
        found.insert(0, Cache(kb=kb, bandwidth_gb_s=rate))
    return tuple(found)


def _machine_name(facts: MachineFacts, runtime: str) -> str:
    return f"{facts.processor}, {facts.cores} cores, {facts.architecture}, onnxruntime {runtime}"


# --- adapted -------------------------------------------------------------------------------------------------------


def _adapted(name: str, measured: _Measured, known: Sequence[Device]) -> Imported:
    threads = measured.threads[0]
    lines = measured.lines(threads)

    @cache
    def table(rules: tuple[str, ...]) -> SampleTable:
        return SampleTable.of(measured.samples(threads, rules))

    def prices(device: Device) -> BasePrices:
        return BasePrices.of(device, table(measured.rules or tuple(device.fusion)), threads)

    latencies = Latencies.of(np.array([line.us for line in lines]), _doubts_of(lines), measured.kinds(threads))
    ranked = adapt(known, prices, latencies)
    best = ranked[0]
    device = _device(name, best, measured, threads)
    return Imported(
        device=device,
        path=store(device),
        method="adapted",
        base=best.prices.device.name,
        networks=dict(Counter(count for _, count in measured.results.networks)),
        errors={
            **best.validation.to_json(),
            "one_factor": best.one_factor.to_json(),
            "strength": best.strength,
        },
        candidates={one.prices.device.name: one.validation.to_json() for one in ranked},
        notes=(*measured.notes(), *_doubts(best)),
    )


def _doubts_of(lines: Sequence[NetworkLine]) -> NDArray[np.float64]:
    """A standard error of every latency, as a fraction: how its runs spread, and how disturbed the device was."""
    return np.array([math.hypot(line.spread / _SPREAD_OF_ONE, max(0.0, line.slowdown - 1)) for line in lines])


def _doubts(best: Adapted) -> Iterable[str]:
    """What speaks against an adapted device."""
    found = best.validation
    if found.rms_log > LARGE_ERROR:
        yield (
            f"the error is large (root mean square {found.rms_log:.0%}): {best.prices.device.name} is not much like this "
            "device, or the device was noisy; measure a bundle with profiles, or more networks"
        )
    if lacking := best.prices.lacking:
        worst = sorted(lacking, key=lambda what: -lacking[what])[:4]
        listed = ", ".join(f"{what} ({lacking[what]} kernels)" for what in worst)
        yield f"{best.prices.device.name} has no rate of its own for {listed}: their prices are guessed from others"


def _device(name: str, best: Adapted, measured: _Measured, threads: int) -> Device:
    header, base, found = measured.results.header, best.prices.device, best.validation
    facts = header.machine
    method = (
        f"{ADAPTED}{base.name!r} by {found.networks} whole-network latencies that a bundle of seed "
        f"{header.plan.seed} measured; cross-validated over kinds of networks: root mean square of logarithms "
        f"{found.rms_log:.1%}, mean absolute error {found.mape:.1%}, within 10 % {found.within_10:.0%} (one common "
        f"factor: {best.one_factor.mape:.1%})."
    )
    update: dict[str, Any] = {
        "name": name,
        "description": f"{_machine_name(facts, header.onnxruntime)}; adapted from {base.name} by {found.networks} "
        "measured networks.",
        "runtime": "onnxruntime",
        "runtime_version": header.onnxruntime,
        "memory": memory_content(facts.memory_mb or _USUAL_MEMORY_MB),
        "saturates": facts.saturates,
    }
    sources = {
        "relative_error": method,
        "memory": "Physical memory as the device reports it; ONNX Runtime's rules for its arena.",
        "saturates": "The instructions that the processor reports: sums saturate on x86 without VNNI.",
    }
    if measured.rules is not None:
        update["fusion"] = measured.rules
        sources["fusion"] = (
            "The rules under which most kernels of twelve networks are those that the runtime executes there."
        )
    if (exponent := _exponent(measured)) is not None:
        update["thread_exponent"] = exponent
        sources["thread_exponent"] = "The median gain of networks that were timed there at both thread counts."
    return adapted_device(best, threads, update, sources)


def _exponent(measured: _Measured) -> float | None:
    """How latency falls with threads, where two counts were measured."""
    totals = {count: {line.network: line.us for line in measured.lines(count)} for count in measured.threads}
    return gain_exponent(totals) if len(totals) > 1 else None
