"""The ``kneepoint`` command. Results go to standard output, progress and errors to standard error."""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import textwrap
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Column, Table

from kneepoint.tasks.errors import InputError, KneepointError

app = typer.Typer(
    name="kneepoint",
    help="Give it a trained network, its data and a list of devices; it gives back the Pareto front you can deploy.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
devices_app = typer.Typer(help="Device files: what they say, and what a model costs there.", no_args_is_help=True)
app.add_typer(devices_app, name="devices")

INTERRUPTED = 130
_state = {"debug": False}
_Command = TypeVar("_Command", bound=Callable[..., None])

RunArgument = Annotated[Path, typer.Argument(metavar="DIR", help="A run directory.")]
JobArgument = Annotated[Path, typer.Argument(metavar="JOB.yaml", help="A job file.")]
OverridesOption = Annotated[list[str] | None, typer.Option("--set", help="key=value, for any key of the job.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the same facts as JSON, and nothing else.")]
ThreadsOption = Annotated[int, typer.Option("--threads", min=1, help="Threads of one inference.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
TrialsOption = Annotated[int | None, typer.Option("--trials", min=1, help="Candidates to measure.")]
RayOption = Annotated[
    str | None, typer.Option("--ray", metavar="ADDRESS", help="Of a Ray cluster: auto, HOST:PORT or ray://HOST:PORT.")
]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", min=1, help="Candidates that are measured at the same time.")
]
MinutesOption = Annotated[float | None, typer.Option("--minutes", help="Wall time for measuring them.")]


@app.callback()
def options(debug: DebugOption = False) -> None:
    """Options of every command."""
    _state["debug"] = debug


def reported(command: _Command) -> _Command:
    """Turn errors into one line on standard error and an exit code: 2 for bad input, 1 for a failed job."""

    @functools.wraps(command)
    def wrapper(*args: Any, **keywords: Any) -> None:
        try:
            command(*args, **keywords)
        except KeyboardInterrupt:
            _say("interrupted; nothing is lost: 'kneepoint resume DIR' goes on")
            raise typer.Exit(INTERRUPTED) from None
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except Exception as error:  # the last place to catch anything; --debug shows where it came from
            if _state["debug"]:
                traceback.print_exc()
            _say(_error_line(error))
            raise typer.Exit(2 if isinstance(error, InputError) else 1) from None

    return wrapper  # type: ignore[return-value]  # the wrapper has the command's own signature


@app.command()
@reported
def quickstart(
    out: Annotated[Path, typer.Option("--out", help="The run directory.")] = Path("runs/quickstart"),
    trials: TrialsOption = None,
    as_json: JsonOption = False,
) -> None:
    """The main job on real data that ships with scikit-learn; no network needed."""
    from kneepoint.quickstart import run_quickstart

    run_quickstart(out, trials, as_json)


@app.command()
@reported
def inspect(
    job: JobArgument,
    overrides: OverridesOption = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="List every layer, group and kernel.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say before any computing what JOB.yaml may change, what its devices execute, and about how long it takes."""
    from kneepoint.front_door import inspect_file
    from kneepoint.reports import inspection_views

    found = inspect_file(job, overrides or [])
    if as_json:
        _print_json(found.to_json())
        return
    for view in inspection_views(found, verbose):
        _print(view)


@app.command()
@reported
def search(
    job: JobArgument,
    out: Annotated[Path | None, typer.Option("--out", help="The run directory; by default runs/TASK.")] = None,
    trials: TrialsOption = None,
    minutes: MinutesOption = None,
    ray: RayOption = None,
    workers: WorkersOption = None,
    overrides: OverridesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search as JOB.yaml says; a run that is there already is gone on with."""
    from kneepoint.front_door import run_file

    options = {"trials": trials, "minutes": minutes, "ray": ray, "workers.count": workers}
    given = [f"{key}={value}" for key, value in options.items() if value is not None]
    directory = run_file(job, out, [*(overrides or []), *given])
    show_front(directory, None, as_json)


@app.command()
@reported
def resume(
    directory: RunArgument,
    trials: TrialsOption = None,
    minutes: MinutesOption = None,
    ray: RayOption = None,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Go on after any interruption, with nothing lost and nothing measured twice."""
    from kneepoint.front_door import resume as resume_run

    options = {"trials": trials, "minutes": minutes, "ray": ray, "workers": workers}
    resume_run(directory, overrides={key: value for key, value in options.items() if value is not None})
    show_front(directory, None, as_json)


@app.command()
@reported
def front(
    directory: RunArgument,
    device: Annotated[
        str | None, typer.Option("--device", help="The front of one device: the run's own, or any other, priced now.")
    ] = None,
    fidelity: Annotated[
        str | None,
        typer.Option("--fidelity", help="With --device: of candidates measured as ptq, recovered or full."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the front beside its baselines; on a device that the run did not know, of everything it measured."""
    show_front(directory, device, as_json, fidelity)


@app.command()
@reported
def status(
    directory: RunArgument,
    as_json: JsonOption = False,
    watch: Annotated[
        float | None,
        typer.Option("--watch", metavar="SECONDS", min=0.1, help="Look again so often, until the run ended or Ctrl-C."),
    ] = None,
) -> None:
    """Say where a run stands; it may go on meanwhile, and nothing is changed."""
    from kneepoint.reports.run_status import status_of
    from kneepoint.reports.status_view import status_views, watch_status

    if as_json and watch is not None:
        raise InputError("--json is looked at once, --watch again and again; got both: leave one of them out")
    if as_json:
        _print_json(status_of(directory).to_json())
    elif watch is not None:
        watch_status(directory, watch)
    else:
        for view in status_views(status_of(directory)):
            _print(view)


@app.command()
@reported
def export(
    directory: RunArgument,
    destination: Annotated[Path, typer.Option("--to", help="Where to write it.")],
    pick: Annotated[str, typer.Option("--pick", help="knee, most-accurate, fastest, smallest, or an id.")] = "knee",
    where: Annotated[
        str | None, typer.Option("--where", help="A condition such as 'latency_ms@raspberry-pi-4b <= 3'.")
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="Pick from the front of this device, the run's own or any other.")
    ] = None,
    target: Annotated[str, typer.Option("--target", help="What it is for.")] = "onnxruntime",
    as_json: JsonOption = False,
) -> None:
    """Write one candidate as ONNX, checked against its own scores."""
    from kneepoint.front_door import export_from

    artifact = export_from(directory, pick, where, target, destination, device)
    manifest = json.loads((destination / "manifest.json").read_text())
    if as_json:
        _print_json({**manifest, "path": str(artifact.path)})
        return
    parity = artifact.parity
    _print(
        f"{artifact.path}: {artifact.bytes / 1e3:.1f} kB; {manifest['metric']} {parity.simulated.value:.4f} simulated, "
        f"{parity.executed.value:.4f} in ONNX Runtime"
    )


@app.command()
@reported
def report(
    directory: RunArgument,
    picture: Annotated[Path | None, typer.Option("--picture", help="Also write the front as a PNG file.")] = None,
) -> None:
    """Write report.html, one file that opens offline."""
    from kneepoint.reports import write_picture, write_report

    _print(str(write_report(directory)))
    if picture is not None:
        _print(str(write_picture(directory, picture)))


@app.command()
@reported
def measure(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx")],
    second: Annotated[Path | None, typer.Argument(metavar="[MODEL2.onnx]", help="Measured in turns with it.")] = None,
    threads: ThreadsOption = 1,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Samples of one inference.")] = 1,
    seconds: Annotated[
        float | None, typer.Option("--seconds", min=0.01, help="Time to spend; by default 5 a model.")
    ] = None,
    sizes: Annotated[
        list[str] | None, typer.Option("--size", help="NAME=N, for a free dimension other than the batch.")
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", help="Also score it: package.module:function or file.py:function.")
    ] = None,
    split: Annotated[str, typer.Option("--split", help="validation or test.")] = "validation",
    as_json: JsonOption = False,
) -> None:
    """Time a model, or two against each other, on this machine in ONNX Runtime; score them on a task's data."""
    from kneepoint.measuring import MeasureRequest, lines_of, measure_models, read_sizes

    models = [model] if second is None else [model, second]
    try:
        facts = measure_models(MeasureRequest(models, threads, batch, seconds, read_sizes(sizes or []), task, split))
    except KeyboardInterrupt:
        _say("interrupted before there were rounds enough for an interval; nothing was measured")
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        _print_json(facts)
    else:
        for line in lines_of(facts):
            _print(line)
    if facts["interrupted"]:
        _say("interrupted; this is what was measured until then")
        raise typer.Exit(INTERRUPTED)


@devices_app.command("list")
@reported
def list_devices(as_json: JsonOption = False) -> None:
    """The devices that are known here."""
    from kneepoint.hardware_models.devices import list_devices, load_device

    devices = [load_device(name) for name in list_devices()]
    if as_json:
        _print_json([_summary(device) for device in devices])
        return
    name = Column("device", no_wrap=True)
    table = Table(name, "runtime", "threads", "int8 / fp32", "relative error", box=None)
    for device in devices:
        gain = f"{device.integer_gain:.1f}x" if device.integer_gain is not None else "-"
        version = f"{device.runtime} {device.runtime_version}"
        errors = {name: entry.relative_error for name, entry in device.refined.items()}
        error = ", ".join(f"{name} {value:.0%}" for name, value in errors.items()) or f"{device.relative_error:.0%}"
        table.add_row(device.name, version, str(device.threads), gain, error)
    _print(table)


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
        _print_json({**content, "digest": loaded.digest})
        return
    table = Table("what", "value", "source", title=loaded.name, caption=loaded.description, show_lines=True)
    for key, value in content.items():
        if key not in ("name", "description", "sources"):
            table.add_row(key, _plain(value), loaded.sources.get(key, ""))
    _print(table)


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
        _say("interrupted; what was timed is kept, and the same command goes on")
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        _print_json(facts_of(calibrated))
        return
    for line in lines_of_calibration(calibrated):
        _print(line)


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
        _print_json(facts_of_bundle(bundle))
        return
    for line in lines_of_bundle(bundle):
        _print(line)


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
        _print_json(imported.to_json())
        return
    for line in lines_of_import(imported):
        _print(line)


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
        _print_json(cost.to_json())
        return
    table = Table("kernel", "kind", "ms", "±", "alive", "priced", "why", box=None)
    for kernel in cost.kernels:
        times = (f"{kernel.latency_ms:.4g}", f"{kernel.latency_ms_error:.2g}")
        alive, priced_ = f"{kernel.memory_bytes / 1e3:.4g} kB", "yes" if kernel.priced else "NO"
        table.add_row(kernel.name, kernel.kind, *times, alive, priced_, kernel.why)
    _print(table)
    energy = "unknown" if cost.energy_mj is None else f"{cost.energy_mj:.4g} mJ"
    transfer = "unknown" if cost.transfer_ms is None else f"{cost.transfer_ms:.3g} ms"
    _print(
        f"{priced.name}, {threads} thread(s) (described for {described.threads}): {cost.latency_ms:.4g} ms "
        f"± {cost.latency_ms_error:.2g}, energy {energy}, peak memory {cost.peak_memory_bytes / 1e6:.3g} MB (the arena "
        f"asks for {cost.reserved_memory_bytes / 1e6:.3g}), stored {cost.storage_bytes / 1e6:.3g} MB, transfer "
        f"{transfer}, coverage {cost.coverage:.0%}"
    )
    for misfit in cost.misfits:
        _print(f"does not fit: {misfit}")


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
        _print_json([entry.to_json() for entry in found] if device is None else found[0].to_json())
        return
    if device is not None:
        _print(row_table(found[0]))
    _print(summary_table(found))


def show_front(directory: Path, device: str | None, as_json: bool, fidelity: str | None = None) -> None:
    """Print a run's front as a table, or the content of ``front.json``; of a foreign device, as it is priced now."""
    from kneepoint.reports import RunView, front_table, summary_lines
    from kneepoint.reports.rungs import rungs
    from kneepoint.search.axis import devices_of
    from kneepoint.search.front_file import device_front, read_front
    from kneepoint.search.run_directory import RunDirectory

    content = RunDirectory(directory).read_front()
    view = RunView.read(directory)
    if device is not None and (fidelity is not None or device not in devices_of(read_front(content).axes)):
        content, device = _repriced(directory, device, fidelity)
        view = view.with_front(content)
    elif fidelity is not None:
        raise InputError("--fidelity is about the front of a device: give it with --device")
    shown = device_front(read_front(content), device)
    if as_json:
        facts = {"shown": {"device": device, "ids": [candidate.id for candidate in shown]}}
        _print_json({**content, **facts, "rungs": [rung.to_json() for rung in rungs(view)]})
        return
    _print(front_table(view, device))
    for line in summary_lines(view):
        _print(line)


def _repriced(directory: Path, device: str, fidelity: str | None) -> tuple[dict[str, Any], str]:
    """The content of ``front.json`` as it is on another device, and that device's name."""
    from kneepoint.front_door import reprice

    repriced = reprice(directory, device, fidelity, _say)
    for note in repriced.notes:
        _say(note)
    return repriced.content, str(repriced.content["repriced"]["device"])


def main() -> None:
    """The entry point of the ``kneepoint`` command.

    A scheduler's SIGTERM interrupts as Ctrl-C does, which itself does so also where a shell had it ignored.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = app(standalone_mode=False)
    except BrokenPipeError:  # the reader, a pager or head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:  # typer's own errors have no public type; they say what was typed wrong
        if not hasattr(error, "format_message"):
            raise
        _say(f"error: {error.format_message()} ('kneepoint --help' lists commands and options)")
        code = 2
    sys.exit(code or 0)


def _summary(device: Any) -> dict[str, Any]:
    keys = ("name", "description", "runtime", "runtime_version", "threads", "relative_error")
    return {key: getattr(device, key) for key in keys}


def _content(device: Any) -> dict[str, Any]:
    """All fields of a device; of fitted models, which are long and say nothing to people, the thread counts alone."""
    content: dict[str, Any] = device.model_dump(mode="json")
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


def _error_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or "no message"
    return (
        f"error: {text}"
        if isinstance(error, KneepointError)
        else f"error: {type(error).__name__}: {text} (--debug shows where)"
    )


def _print(what: Any) -> None:
    console = Console(soft_wrap=isinstance(what, str))
    if isinstance(what, str):
        console.print(what, markup=False, highlight=False)
    else:
        console.print(what)


def _print_json(content: Any) -> None:
    print(json.dumps(content, indent=1, allow_nan=False))


def _say(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    main()
