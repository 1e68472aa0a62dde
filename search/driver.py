"""A search from its first candidate to its checked front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from kneepoint.hardware_models.device import Device
from kneepoint.hardware_models.devices import load_device
from kneepoint.search.auditions import audition
from kneepoint.search.axis import devices_of
from kneepoint.search.baselines import measure_baselines
from kneepoint.search.climb import Climb
from kneepoint.search.finalists import FINALISTS, TRAINED, checked_front, climbed
from kneepoint.search.fitting import require_fitting
from kneepoint.search.front import Candidate, Front
from kneepoint.search.front_file import front_content
from kneepoint.search.job import Job
from kneepoint.search.logs import study_file
from kneepoint.search.progress import Observer, Progress, Status
from kneepoint.search.record import Record
from kneepoint.search.refusals import require_success
from kneepoint.search.repricing import Repricing
from kneepoint.search.run_directory import RunDirectory
from kneepoint.search.running_front import RunningFront
from kneepoint.search.search_loop import SearchLoop
from kneepoint.search.status_file import StatusFile
from kneepoint.search.stored_workloads import WorkloadKeeper
from kneepoint.search.trials import Trials
from kneepoint.tasks.metrics import Score

__all__ = ["Driver", "Observer", "Result", "Status"]


@dataclass(frozen=True)
class Result:
    """What a search found.

    Attributes:
        front: Over all objectives, of candidates at the highest fidelity, exported and checked.
        baselines: Candidates of every baseline.
        teacher: Scores of the fp32 teacher.
        directory: The run directory.
        failed: Candidates that failed.
        trials: Of the run.
    """

    front: Front
    baselines: Mapping[str, Sequence[Candidate]]
    teacher: Mapping[str, Score]
    directory: Path
    failed: int
    trials: Trials = field(repr=False, compare=False)

    @property
    def fronts(self) -> dict[str, Front]:
        """A front for every device, by its name."""
        return {device: self.front.for_device(device) for device in devices_of(self.front.axes)}

    def front_for(self, device: str | Path | Device) -> Front:
        """The front of a device, which need not be one of the job's: then all candidates are priced on it.

        Args:
            device: A name that ``kneepoint devices list`` shows, the path of a device file, or a device.

        Raises:
            DeviceError: If there is no such device.
            RunError: If the run directory is gone or was changed.
        """
        found = device if isinstance(device, Device) else load_device(device)
        if any(found.digest == own.digest for own in self.trials.job.devices) and found.name in self.fronts:
            return self.fronts[found.name]
        repricing = Repricing(RunDirectory(self.directory), found, lambda: self.trials.job)
        return repricing.front(build=self.trials.builder).front


class Driver:
    """Runs one job in one directory, in this process.

    Args:
        job: Checked.
        directory: Opened for the job.
        observer: Told where the search stands.
    """

    def __init__(self, job: Job, directory: RunDirectory, observer: Observer | None = None) -> None:
        self.job = job
        self.directory = directory
        self.progress = Progress(observer)

    def run(self) -> Result:
        """The whole job; what the log holds already is not measured again.

        However it ends, the study and ``status.json`` say what was measured until then.

        Raises:
            JobFailed: If the teacher or the first candidates all fail, or no finalist becomes an artifact.
            JobError: If no candidate meets the constraints.
            RunError: If the run directory cannot be read or written.
        """
        torch.set_num_threads(self.job.threads)
        self.progress.tell("measuring the teacher", 0, 1)
        trials = Trials(self.job, self.directory, self.progress.long_step, self._tell_callbacks)
        status = StatusFile(self.directory.status_file, trials.workers)
        self.progress.watch(status.update)
        try:
            for callback in self.job.callbacks:
                callback.started(self.directory.read_job(), self.directory.path)
            result = self._searched(trials)
            self.progress.tell("done", 1, 1)
        except BaseException as error:
            self._over(trials, status, "interrupted" if isinstance(error, KeyboardInterrupt) else f"failed: {error}")
            raise
        self._over(trials, status, "done")
        return result

    def _searched(self, trials: Trials) -> Result:
        """The result, with the study beside it."""
        require_fitting(trials)
        spent = audition(trials, self.progress) / max(1, self.job.workers.count)
        with study_file(self.job, self.directory, trials.log) as study:
            climb, front = Climb("recovered", FINALISTS, trials), RunningFront(trials, self.directory, self.progress)
            keeper = WorkloadKeeper(self.job, self.directory)
            loop = SearchLoop(trials, front, self.progress, study.add, climb, spent, keeper)
            result = self._run(trials, loop)
            keeper.finish(trials.log.records, self.progress)
        if study.left_out:
            self.progress.tell(f"left {study.left_out} trials out of the study; resuming the run adds them", 1, 1)
        return result

    def _run(self, trials: Trials, loop: SearchLoop) -> Result:
        loop.run()
        require_success(loop.found, trials)
        finalists = climbed(loop.candidates, loop.climb, trials, self.progress)
        if self.job.settings.full is not None:
            finalists = climbed(finalists, Climb("full", TRAINED, trials), trials, self.progress)
        front = checked_front(finalists, trials, self.directory, self.progress)
        baselines = measure_baselines(trials, self.progress)
        texts = self.job.constraint_texts
        self.directory.write_front(front_content(self.job.task.name, front, baselines, trials.teacher, texts))
        return Result(front, baselines, trials.teacher, self.directory.path, trials.log.failed, trials)

    def _tell_callbacks(self, record: Record) -> None:
        if record.scores is None:
            self.progress.failures(self.progress.status.failed + 1)
        for callback in self.job.callbacks:
            callback.trial_ended(record, self.progress.status)

    def _over(self, trials: Trials, status: StatusFile, how: str) -> None:
        """Let go of everything; what ended the search is the error to hear of, not what that brings about."""
        trials.events.write("search ended", how=how)
        status.end(how)
        trials.close()
