"""From the results of a bundle to a device: fitted where they suffice, else a known device adapted to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from kneepoint.deployment.bundles.adapted_device import ADAPTED, adapted_device, is_adapted
from kneepoint.deployment.bundles.base_prices import BasePrices
from kneepoint.deployment.bundles.few_shot import Adapted, adapt
from kneepoint.deployment.bundles.measured import Measured
from kneepoint.deployment.bundles.reading import Results, read_results
from kneepoint.deployment.bundles.results_schema import MachineFacts
from kneepoint.deployment.calibration.fitted_device import Machine, fitted_device, memory_content, store
from kneepoint.deployment.calibration.samples import SampleTable
from kneepoint.hardware_models.device import NAME, Cache, Device
from kneepoint.hardware_models.devices import list_devices, load_device, user_folder
from kneepoint.tasks.errors import DeviceError

FEWEST_TO_FIT = 100
"""Networks with profiles, from which on a fit beats a device that is adapted, unless that one is calibrated and runs
the same kernels (docs/few_shot.md); it is asked for by its name then.
"""
LARGE_ERROR = 0.25
_USUAL_MEMORY_MB = 1000.0


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

    With 100 networks and more that were profiled, it is fitted as ``kneepoint devices calibrate`` fits this machine.
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
    measured = Measured.of(results)
    chosen = base if isinstance(base, Device) or base is None else load_device(base)
    if chosen is None and measured.profiled(measured.threads[0]) >= FEWEST_TO_FIT:
        return _fitted(name, measured)
    return _adapted(name, measured, [chosen] if chosen is not None else _bases(name))


def _bases(name: str) -> list[Device]:
    """The known devices: not those that were adapted, maybe to these very results, and not one that is replaced.

    Nor those that were fitted to publications: the kernels that they price are those of other runtimes.
    """
    devices = [load_device(one) for one in list_devices() if one != name]
    return [device for device in devices if not is_adapted(device) and not device.refined]


def _check_name(name: str, *, replace: bool) -> None:
    if not NAME.fullmatch(name) or len(name) > 64:
        shown = "".join(character if character.isprintable() else "?" for character in name[:64])
        raise DeviceError(
            f"a device name has up to 64 lower-case letters, digits, dots and hyphens; got {shown!r}: give --name"
        )
    if name in list_devices() and not replace:
        taken = "is one of yours" if (user_folder() / f"{name}.yaml").is_file() else "ships"
        raise DeviceError(f"a new device has a new name; {name!r} {taken}: give another --name, or --replace")


# --- fitted --------------------------------------------------------------------------------------------------------


def _fitted(name: str, measured: Measured) -> Imported:
    """As ``calibrate`` does, from the networks that were timed on a quiet machine."""
    rules = measured.rules or ()
    counts = [count for count in measured.threads if measured.profiled(count) >= FEWEST_TO_FIT]
    samples = [sample for count in counts for sample in measured.samples(count, rules, quiet=True)]
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


def _adapted(name: str, measured: Measured, known: Sequence[Device]) -> Imported:
    threads = measured.threads[0]

    @cache
    def table(rules: tuple[str, ...]) -> SampleTable:
        return SampleTable.of(measured.samples(threads, rules))

    def prices(device: Device) -> BasePrices:
        return BasePrices.of(device, table(measured.rules or tuple(device.fusion)), threads)

    ranked = adapt(known, prices, measured.latencies(threads))
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


def _doubts(best: Adapted) -> Iterable[str]:
    """What speaks against an adapted device."""
    found = best.validation
    if found.rms_log > LARGE_ERROR:
        yield (
            f"the error is large (root mean square {found.rms_log:.0%}): {best.prices.device.name} is not much like "
            "this device, or the device was noisy; measure a bundle with profiles, or more networks"
        )
    if lacking := best.prices.lacking:
        worst = sorted(lacking, key=lambda what: -lacking[what])[:4]
        listed = ", ".join(f"{what} ({lacking[what]} kernels)" for what in worst)
        yield f"{best.prices.device.name} has no rate of its own for {listed}: their prices are guessed from others"


def _device(name: str, best: Adapted, measured: Measured, threads: int) -> Device:
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
    if (exponent := measured.thread_exponent()) is not None:
        update["thread_exponent"] = exponent
        sources["thread_exponent"] = "The median gain of networks that were timed there at both thread counts."
    return adapted_device(best, threads, update, sources)
