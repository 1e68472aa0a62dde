"""The calls a user makes: inspect, search, resume, export."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from optuna.samplers import BaseSampler

from kneepoint.compression.settings import CompressionSettings
from kneepoint.deployment.exporting import Artifact, check_target, export_network
from kneepoint.hardware_models.device import Device
from kneepoint.hardware_models.devices import load_device
from kneepoint.job_file import read_job_file, resolve_job, resumable
from kneepoint.objectives.expressions import Condition
from kneepoint.objectives.objective import Objective, ObjectiveFunction
from kneepoint.references import reference_to
from kneepoint.reports import Inspection, LiveDisplay, write_report
from kneepoint.search.axis import devices_of
from kneepoint.search.callbacks import Callback
from kneepoint.search.driver import Driver, Result, Status
from kneepoint.search.evaluator import Evaluator, MeasuredBy, NetworkBuilder
from kneepoint.search.front import Candidate, Front
from kneepoint.search.front_file import read_front
from kneepoint.search.inspection import inspect_space
from kneepoint.search.job import Job, check_budget
from kneepoint.search.repricing import Repriced, Repricing, fidelity_named
from kneepoint.search.run_directory import RunDirectory
from kneepoint.search.time_estimate import Effort
from kneepoint.search.workers.settings import Workers
from kneepoint.spaces.joint_space import JointSpace, joint_space
from kneepoint.tasks.errors import DeviceError, InputError, RunError, SpaceError
from kneepoint.tasks.task import Task


def inspect(
    task: Task,
    space: JointSpace | None = None,
    devices: Sequence[str | Device] = (),
    trials: int = 100,
    minutes: float | None = None,
    threads: int = 1,
    settings: CompressionSettings | None = None,
) -> Inspection:
    """What a search may change, what it may not and why, what devices execute, and about how long it takes.

    Nothing is trained and no data is read but the first validation batch, on which the teacher is timed. The result
    shows itself as tables where it is printed.

    Args:
        task: The trained network and its data.
        space: What may vary; by default what :func:`kneepoint.joint_space` gives, without students where the network
            has no channels that may vary.
        devices: Names that ``kneepoint devices list`` shows, paths of device files, or devices.
        trials: Candidates that the search would measure.
        minutes: Wall time for measuring them.
        threads: Of torch, while training and measuring.
        settings: How students are trained and compressed networks recover.

    Raises:
        InputError: If the task, the space or a device is wrong, or the model cannot be traced.
    """
    if not isinstance(task, Task):
        raise InputError(f"inspect takes a kneepoint.Task; got {type(task).__name__}")
    check_budget(trials, minutes, seed=0, threads=threads)
    chosen = space or _default_space(task)
    if chosen.task is not task:
        raise InputError("the space is of another task: make it with kneepoint.joint_space(task, ...)")
    loaded = [device if isinstance(device, Device) else load_device(device) for device in _listed(devices)]
    effort = Effort(trials, minutes, threads, settings or CompressionSettings())
    return Inspection.of(inspect_space(chosen, loaded, effort))


def inspect_file(path: Path, overrides: Sequence[str] = ()) -> Inspection:
    """:func:`inspect` for a job file, which is checked as a search would check it.

    Args:
        path: The YAML file; what it refers to is relative to its folder.
        overrides: ``key=value`` for keys of the file.

    Raises:
        InputError: If the file or what it refers to is wrong, or the model cannot be traced.
    """
    job = resolve_job(read_job_file(path, overrides), path.parent, run_task=False)
    effort = Effort(job.trials, job.minutes, job.threads, job.settings)
    return Inspection.of(inspect_space(job.space, job.devices, effort))


def search(
    task: Task,
    space: JointSpace,
    objectives: Sequence[Objective | ObjectiveFunction | str],
    constraints: Sequence[str] = (),
    sampler: str | BaseSampler = "kneepoint",
    trials: int = 100,
    minutes: float | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    ray: str | None = None,
    threads: int = 1,
    settings: CompressionSettings | None = None,
    measure: MeasuredBy = "simulator",
    workers: int | Workers = 1,
    storage: str | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
) -> Result:
    """Search ``space`` and return the front of networks that can be deployed.

    A run directory that holds this job already is gone on with, and nothing in it is measured again.

    Args:
        task: The trained network, its data, metric and loss.
        space: What may vary; see :func:`kneepoint.joint_space`.
        objectives: What decides: objectives, names such as ``size_mb``, or functions ``f(view) -> float``.
        constraints: Conditions such as ``accuracy_drop <= 0.05`` or ``size_mb <= 0.25 * teacher``, all to be met.
        sampler: ``kneepoint``, ``nsga2``, ``nsga3``, ``tpe``, ``gp``, ``random``, the path of a class
            (``package.module:Class``), or a sampler of Optuna.
        trials: Candidates to measure.
        minutes: Wall time for measuring them; recovery and export of the front come after it.
        seed: Of everything: the same seed gives the same front.
        out: The run directory; by default ``runs/TASK``.
        ray: The address of a Ray cluster whose workers measure candidates: ``auto``, ``HOST:PORT`` or
            ``ray://HOST:PORT``; None to measure on this machine.
        threads: Of torch, while training and measuring. The results depend on it in their last bits.
        settings: How students are trained, networks quantized and pruned, and how they recover.
        measure: What candidates are measured with: the ``simulator`` in torch, or ``onnxruntime`` on this machine,
            which is several times as fast on processors with integer instructions and takes a second or two once for
            every architecture. Both give the same outputs but for rounding.
        workers: How many candidates are measured at the same time, and what each worker may use. One works in this
            process, unless it has a limit of memory, silence or time; more are processes of their own.
        storage: The URL of a database that holds the trial log, so that several drivers, each with a directory of its
            own, work on one run; None for a file in the run directory.
        callbacks: Told of every trial: :class:`kneepoint.MlflowCallback`, :class:`kneepoint.TensorBoardCallback`, or
            your own :class:`kneepoint.Callback`.
        progress: Whether to show progress on standard error.

    Returns:
        The front, its baselines, and where they are stored.

    Raises:
        InputError: If an argument is wrong; nothing was computed then.
        JobFailed: If the job was well-formed and could not be done.
    """
    job = Job.resolve(
        task,
        space,
        objectives,
        constraints=constraints,
        sampler=sampler,
        trials=trials,
        minutes=minutes,
        seed=seed,
        threads=threads,
        settings=settings,
        measure=measure,
        workers=workers,
        ray=ray,
        storage=storage,
        callbacks=callbacks,
        references=_references(objectives),
    )
    return run_job(job, Path(out) if out is not None else Path("runs") / _folder_name(task.name), progress)


def run_job(job: Job, out: Path, progress: bool = True) -> Result:
    """Run a checked job in ``out``, with a display, and write the report, also when it is interrupted."""
    directory = RunDirectory(out)
    directory.open_for(job)
    threads = torch.get_num_threads()
    display = LiveDisplay() if progress else nullcontext()
    try:
        with display as shown:
            try:
                result = Driver(job, directory, _observer(shown)).run()
            except BaseException:
                with suppress(Exception):  # the search's own error is the one to hear of
                    _end(job, directory, None)
                raise
            _end(job, directory, result.front)
            return result
    finally:
        directory.unlock()
        torch.set_num_threads(threads)


def _end(job: Job, directory: RunDirectory, front: Front | None) -> None:
    """What comes after a search, however it ended."""
    if directory.front_file.exists():
        write_report(directory.path)
    for callback in job.callbacks:
        callback.ended(front, directory.path)


def run_file(path: Path, out: Path | None, overrides: Sequence[str] = (), progress: bool = True) -> Path:
    """Run a job file; returns the run directory.

    Args:
        path: The YAML file; what it refers to is relative to its folder.
        out: The run directory; by default the file's ``out``, else ``runs/TASK``.
        overrides: ``key=value`` for keys of the file.
        progress: Whether to show progress on standard error.

    Raises:
        InputError: If the file or what it refers to is wrong; nothing is written then.
    """
    content = read_job_file(path, overrides)
    job = resolve_job(content, path.parent)
    chosen = out or (Path(content.out) if content.out else Path("runs") / _folder_name(job.task.name))
    run_job(job, chosen, progress)
    return chosen


def resume(out: str | Path, progress: bool = True, overrides: Mapping[str, Any] | None = None) -> Result:
    """Go on with the run in ``out``, from its own ``job.yaml``.

    Args:
        out: The run directory.
        progress: Whether to show progress on standard error.
        overrides: New budgets (``trials``, ``minutes``), another ``ray`` address (``none`` for this machine), or a
            number of ``workers``.

    Raises:
        RunError: If there is no run, or its task changed.
        JobError: If the run was given objects that only the same call can give again.
    """
    return run_job(_job_of(Path(out), overrides), Path(out), progress)


def open_front(out: str | Path, device: str | Path | Device | None = None) -> Front:
    """The front of a finished or interrupted run, without its task.

    Args:
        out: The run directory.
        device: Whose front, if not that over all objectives; one that the run did not know prices all candidates anew.

    Raises:
        RunError: If there is no front, or it is malformed.
        DeviceError: If there is no such device.
    """
    own = read_front(RunDirectory(Path(out)).read_front())
    if device is None:
        return own
    if _is_own(own, device):
        return own.for_device(str(device))
    return reprice(out, device).front


def reprice(
    out: str | Path,
    device: str | Path | Device,
    fidelity: str | None = None,
    say: Callable[[str], None] | None = None,
) -> Repriced:
    """Everything that a run measured, priced on a device that it did not know, with its front there.

    Nothing is measured. The task is loaded only where the run directory lacks kernels, as those of older runs do.

    Args:
        out: The run directory.
        device: A name that ``kneepoint devices list`` shows, the path of a device file, or a device.
        fidelity: How candidates were measured (``ptq``, ``recovered``, ``full``); by default as on the run's own front.
        say: Told of work that takes a while.

    Raises:
        InputError: If there is no such run, device or fidelity.
        RunError: If kernels are missing, and the task that they could be made from cannot be loaded or changed.
    """
    chosen = fidelity_named(fidelity)
    found = device if isinstance(device, Device) else _device_of(out, device)
    job = partial(_job_of, Path(out), run_task=False)
    return Repricing(RunDirectory(Path(out)), found, job, say).front(chosen)


def export(candidate: Candidate, directory: str | Path, target: str = "onnxruntime") -> Artifact:
    """Write ``candidate`` as a deployable folder, checked against its own simulated score.

    Args:
        candidate: Of a result's front.
        directory: Made if missing; gets ``model.onnx`` and ``manifest.json``.
        target: ``onnxruntime``.

    Raises:
        InputError: If the target is unknown, or the candidate was read from a file without its task.
        ParityError: If the runtime does not reach the simulated score.
    """
    check_target(target)
    if candidate.build is None:
        raise InputError(
            "this candidate cannot be rebuilt: export it from the result of kneepoint.search or by directory"
        )
    scores = {name: score.to_json() for name, score in candidate.scores.items()}
    build = candidate.build
    return export_network(
        build(), build.task, Path(directory), target, extra={"scores": scores, "fidelity": candidate.fidelity}
    )


def export_from(
    out: str | Path,
    pick: str,
    where: str | None,
    target: str,
    destination: str | Path,
    device: str | Path | Device | None = None,
) -> Artifact:
    """Export a candidate of a run on disk.

    Args:
        out: The run directory.
        pick: Of its front.
        where: What the candidate has to meet; a device that the run did not know may be named in it.
        target: What it is for.
        destination: The folder to write.
        device: Whose front to pick from.

    Raises:
        InputError: If the run, the pick, the device or the target is wrong.
        ParityError: If the runtime does not reach the simulated score.
    """
    check_target(target)
    chosen = open_front(out, device if device is not None else _foreign_device(out, where)).pick(pick, where)
    job = _job_of(Path(out))
    directory = RunDirectory(Path(out))
    record = directory.log().find(chosen.policy.id, chosen.fidelity)
    if record is None:
        raise RunError(f"the trial log of {out} has no record of candidate {chosen.id}; was it edited?")
    evaluator = Evaluator(
        job.space, job.scored, directory.path, job.seed, job.threads, job.settings, measure=job.measure
    )
    network = NetworkBuilder(evaluator, record)()
    scores = {name: score.to_json() for name, score in chosen.scores.items()}
    extra = {"scores": scores, "fidelity": chosen.fidelity}
    return export_network(network, job.task, Path(destination), target, extra=extra)


def _default_space(task: Task) -> JointSpace:
    try:
        return joint_space(task)
    except SpaceError:  # nothing of the teacher can be made smaller, or it cannot be traced, which is said again
        return joint_space(task, students=None)


def _listed(devices: Sequence[str | Device]) -> Sequence[str | Device]:
    if isinstance(devices, str | Device):
        raise InputError(f"devices is a list; got {devices!r}: write it in brackets")
    return devices


def _is_own(own: Front, device: str | Path | Device) -> bool:
    """Whether the front has objectives about a device of that name."""
    return isinstance(device, str) and device in devices_of(own.axes)


def _device_of(out: str | Path, device: str | Path) -> Device:
    """The device; an error names those of the run, too."""
    try:
        return load_device(device)
    except DeviceError as error:
        own = devices_of(read_front(RunDirectory(Path(out)).read_front()).axes)
        raise DeviceError(f"{error}; the run itself is about {', '.join(own) or 'no device'}") from error


def _foreign_device(out: str | Path, where: str | None) -> str | None:
    """The device that a condition names and the run did not know.

    Raises:
        InputError: If there are two of them, which no front is about.
    """
    own = devices_of(open_front(out).axes)
    named = {name.partition("@")[2] for name in (Condition.parse(where).objectives if where else [])}
    foreign = sorted(named - {"", *own})
    if len(foreign) > 1:
        raise InputError(f"a condition names one device that the run did not know; got {', '.join(foreign)}")
    return foreign[0] if foreign else None


def _job_of(out: Path, overrides: Mapping[str, Any] | None = None, run_task: bool = True) -> Job:
    saved, given = RunDirectory(out).read_job(), dict(overrides or {})
    if isinstance(given.get("workers"), int):
        given["workers"] = {**saved.get("workers", {}), "count": given["workers"]}
    if given.get("ray") == "none":
        given["ray"] = None
    resolved = {**saved, **given}
    return resolve_job(resumable(resolved), Path.cwd(), run_task=run_task)


def _observer(display: LiveDisplay | None) -> Callable[[Status], None]:
    def update(status: Status) -> None:
        if display is not None:
            display.update(
                status.done,
                status.total,
                status.seconds_left,
                status.best,
                status.hypervolume or None,
                status.stage,
                status.failed,
            )

    return update


def _references(objectives: Sequence[Objective | ObjectiveFunction | str]) -> dict[str, Any]:
    """Objects cannot be named in a job file, except functions that live in an importable module."""
    named = {getattr(entry, "__name__", ""): reference_to(entry) for entry in objectives if callable(entry)}
    return {"objectives": {name: reference for name, reference in named.items() if reference}}


def _folder_name(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name).strip(".") or "run"
