"""The ``kneepoint`` command. Results go to standard output, progress and errors to standard error."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from kneepoint.device_commands import devices_app
from kneepoint.tasks.errors import InputError
from kneepoint.terminal import INTERRUPTED, JsonOption, ThreadsOption, reported, say, show, show_json, show_tracebacks

app = typer.Typer(
    name="kneepoint",
    help="Give it a trained network, its data and a list of devices; it gives back the Pareto front you can deploy.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(devices_app, name="devices")

RunArgument = Annotated[Path, typer.Argument(metavar="DIR", help="A run directory.")]
JobArgument = Annotated[Path, typer.Argument(metavar="JOB.yaml", help="A job file.")]
OverridesOption = Annotated[list[str] | None, typer.Option("--set", help="key=value, for any key of the job.")]
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
    show_tracebacks(debug)


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
        show_json(found.to_json())
        return
    for view in inspection_views(found, verbose):
        show(view)


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
        show_json(status_of(directory).to_json())
    elif watch is not None:
        watch_status(directory, watch)
    else:
        for view in status_views(status_of(directory)):
            show(view)


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
        show_json({**manifest, "path": str(artifact.path)})
        return
    parity = artifact.parity
    show(
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

    show(str(write_report(directory)))
    if picture is not None:
        show(str(write_picture(directory, picture)))


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
        say("interrupted before there were rounds enough for an interval; nothing was measured")
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        show_json(facts)
    else:
        for line in lines_of(facts):
            show(line)
    if facts["interrupted"]:
        say("interrupted; this is what was measured until then")
        raise typer.Exit(INTERRUPTED)


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
        show_json({**content, **facts, "rungs": [rung.to_json() for rung in rungs(view)]})
        return
    show(front_table(view, device))
    for line in summary_lines(view):
        show(line)


def _repriced(directory: Path, device: str, fidelity: str | None) -> tuple[dict[str, Any], str]:
    """The content of ``front.json`` as it is on another device, and that device's name."""
    from kneepoint.front_door import reprice

    repriced = reprice(directory, device, fidelity, say)
    for note in repriced.notes:
        say(note)
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
        say(f"error: {error.format_message()} ('kneepoint --help' lists commands and options)")
        code = 2
    sys.exit(code or 0)


if __name__ == "__main__":
    main()
