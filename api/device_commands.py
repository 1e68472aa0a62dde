"""``kneepoint devices``: what device files say, what networks cost there, and how a file comes about."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column, Table

from kneepoint.terminal import INTERRUPTED, JsonOption, ThreadsOption, reported, say, show, show_json

devices_app = typer.Typer(help="Device files: what they say, and what a model costs there.", no_args_is_help=True)


@devices_app.command("list")
@reported
def list_devices(as_json: JsonOption = False) -> None:
    """The devices that are known here."""
    from kneepoint.hardware_models.devices import list_devices, load_device

    devices = [load_device(name) for name in list_devices()]
    if as_json:
        show_json([_summary(device) for device in devices])
        return
    name = Column("device", no_wrap=True)
    table = Table(name, "runtime", "threads", "int8 / fp32", "relative error", box=None)
    for device in devices:
        gain = f"{device.integer_gain:.1f}x" if device.integer_gain is not None else "-"
        version = f"{device.runtime} {device.runtime_version}"
        errors = {name: entry.relative_error for name, entry in device.refined.items()}
        error = ", ".join(f"{name} {value:.0%}" for name, value in errors.items()) or f"{device.relative_error:.0%}"
        table.add_row(device.name, version, str(device.threads), gain, error)
    show(table)


@devices_app.command("show")
@reported
def show_device(
    device: Annotated[str, typer.Argument(metavar="D", help="A name, or the path of a device file.")],
    as_json: JsonOption = False,
) -> None:
    """Every number of a device file, with its source."""
    from kneepoint.hardware_models.devices import load_device

    loaded = load_device(device)
    content = _content(loaded)
    if as_json:
        show_json({**content, "digest": loaded.digest})
        return
    table = Table("what", "value", "source", title=loaded.name, caption=loaded.description, show_lines=True)
    for key, value in content.items():
        if key not in ("name", "description", "sources"):
            table.add_row(key, _plain(value), content["sources"].get(key, ""))
    show(table)


@devices_app.command("calibrate")
@reported
def calibrate_device(
    name: Annotated[str, typer.Option("--name", help="Of the device file to write.")] = "this-machine",
    minutes: Annotated[float, typer.Option("--minutes", help="To spend on timing.")] = 10.0,
    threads: Annotated[
        list[int] | None, typer.Option("--threads", help="A count to measure, once for each; by default 1 and all.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the random networks that are timed.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Measure this machine through ONNX Runtime, and write the device file that predicts latencies on it."""
    from kneepoint.calibrating import calibrate_with_progress, facts_of, lines_of_calibration

    try:
        calibrated = calibrate_with_progress(name, minutes, threads, seed)
    except KeyboardInterrupt:
        say("interrupted; what was timed is kept, and the same command goes on")
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        show_json(facts_of(calibrated))
        return
    for line in lines_of_calibration(calibrated):
        show(line)


@devices_app.command("bundle")
@reported
def bundle_device(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")],
    networks: Annotated[int | None, typer.Option("--networks", help="How many; by default 600, with --few 60.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the random networks.")] = 0,
    threads: Annotated[
        list[int] | None, typer.Option("--threads", help="A count to measure there, once for each; by default 1.")
    ] = None,
    few: Annotated[
        bool, typer.Option("--few", help="20 to 100 networks without a profiler: a few minutes on a slow board.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a folder that measures another device, which needs only Python, NumPy and onnxruntime."""
    from kneepoint.bundles import bundle_with_progress, facts_of_bundle, lines_of_bundle

    bundle = bundle_with_progress(folder, networks, seed, threads or [1], few=few)
    if as_json:
        show_json(facts_of_bundle(bundle))
        return
    for line in lines_of_bundle(bundle):
        show(line)


@devices_app.command("import")
@reported
def import_device(
    results: Annotated[Path, typer.Argument(metavar="FILE", help="The results.jsonl that a bundle's run.py wrote.")],
    name: Annotated[str | None, typer.Option("--name", help="Of the device; by default that of the file.")] = None,
    base: Annotated[
        str | None, typer.Option("--base", metavar="D", help="Adapt this known device, whatever others could do.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Write over a device of that name.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a device of what a bundle measured: fitted where that suffices, else the most similar known one adapted."""
    from kneepoint.bundles import lines_of_import
    from kneepoint.deployment.bundles import import_results

    imported = import_results(results, name, base, replace=replace)
    if as_json:
        show_json(imported.to_json())
        return
    for line in lines_of_import(imported):
        show(line)


@devices_app.command("estimate")
@reported
def estimate(
    device: Annotated[str, typer.Argument(metavar="D", help="A name, or the path of a device file.")],
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx")],
    threads: ThreadsOption = 1,
    as_json: JsonOption = False,
) -> None:
    """What a model costs on a device, kernel by kernel, with what could not be priced and why."""
    from kneepoint.hardware_models.cost_model import CostModel
    from kneepoint.hardware_models.devices import load_device
    from kneepoint.hardware_models.onnx_reader import read_onnx
    from kneepoint.hardware_models.workload import Workload

    described = load_device(device)
    priced = described.at_threads(threads)
    cost = CostModel(priced).cost(Workload.of(read_onnx(model), priced.fusion))
    if as_json:
        show_json(cost.to_json())
        return
    table = Table("kernel", "kind", "ms", "±", "alive", "priced", "why", box=None)
    for kernel in cost.kernels:
        times = (f"{kernel.latency_ms:.4g}", f"{kernel.latency_ms_error:.2g}")
        alive, priced_ = f"{kernel.memory_bytes / 1e3:.4g} kB", "yes" if kernel.priced else "NO"
        table.add_row(kernel.name, kernel.kind, *times, alive, priced_, kernel.why)
    show(table)
    energy = "unknown" if cost.energy_mj is None else f"{cost.energy_mj:.4g} mJ"
    transfer = "unknown" if cost.transfer_ms is None else f"{cost.transfer_ms:.3g} ms"
    show(
        f"{priced.name}, {threads} thread(s) (described for {described.threads}): {cost.latency_ms:.4g} ms "
        f"± {cost.latency_ms_error:.2g}, energy {energy}, peak memory {cost.peak_memory_bytes / 1e6:.3g} MB (the arena "
        f"asks for {cost.reserved_memory_bytes / 1e6:.3g}), stored {cost.storage_bytes / 1e6:.3g} MB, transfer "
        f"{transfer}, coverage {cost.coverage:.0%}"
    )
    for misfit in cost.misfits:
        show(f"does not fit: {misfit}")


@devices_app.command("validate")
@reported
def validate_devices(
    device: Annotated[
        str | None, typer.Argument(metavar="[D]", help="A name or the path of a device file; without, all that can be.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Predicted against published latencies (and energies), as shipped and for families of networks left out."""
    from kneepoint.validating import row_table, summary_table, validate_all, validate_one

    found = validate_all() if device is None else [validate_one(device)]
    if as_json:
        show_json([entry.to_json() for entry in found] if device is None else found[0].to_json())
        return
    if device is not None:
        show(row_table(found[0]))
    show(summary_table(found))


def _summary(device: Any) -> dict[str, Any]:
    keys = ("name", "description", "runtime", "runtime_version", "threads", "relative_error")
    return {key: getattr(device, key) for key in keys}


def _content(device: Any) -> dict[str, Any]:
    """All fields of a device; of fitted models, which are long and say nothing to people, the thread counts alone.

    Microcontrollers are compared by multiply-accumulates a cycle, which are derived.
    """
    content: dict[str, Any] = device.model_dump(mode="json")
    if device.macs_per_cycle:
        rounded = {
            name: {key: round(rate, 3) for key, rate in of.items()} for name, of in device.macs_per_cycle.items()
        }
        content["macs_per_cycle"] = rounded
        content["sources"]["macs_per_cycle"] = "Derived: the rates of refined over clock_mhz, for large kernels."
    if device.calibration is not None:
        content["calibration"]["threads"] = list(device.calibration.counts)
    return content


def _plain(value: Any) -> str:
    """For people: a line for every entry, tables of tables indented."""
    if isinstance(value, dict):
        nested = any(
            isinstance(inner, dict) for entry in value.values() if isinstance(entry, dict) for inner in entry.values()
        )
        if nested:
            return "\n".join(f"{key}:\n{textwrap.indent(_plain(entry), '  ')}" for key, entry in value.items())
        return "\n".join(
            f"{key}: {json.dumps(entry) if isinstance(entry, dict) else entry}" for key, entry in value.items()
        )
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
