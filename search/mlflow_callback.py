"""A search in MLflow: one run, to which every trial adds a step."""

from __future__ import annotations

import json
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from kneepoint.compression.student_store import write_atomically
from kneepoint.search.callbacks import Callback
from kneepoint.search.front import Front
from kneepoint.search.progress import Status
from kneepoint.search.record import Record
from kneepoint.search.run_directory import RunDirectory
from kneepoint.search.status_file import read_status
from kneepoint.tasks.errors import JobError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

FILE = "mlflow.json"
"""In the run directory: the id of the MLflow run, and the server that has it."""
REST_SECONDS = 60.0
"""After a failure, MLflow is left alone for this long at least."""
REST_FACTOR = 10.0
"""And for this many times as long as the failure took, since MLflow itself tries again for minutes."""
_NO_NAME = re.compile(r"[^\w.\- ]")
_HYPERVOLUME = "hypervolume"


class MlflowCallback(Callback):
    """Logs a search to MLflow, through a client of its own: the active run of ``mlflow.start_run`` is left alone.

    A search is one run. Its parameters are those of ``job.yaml``, nested ones as ``training.student_steps``. The n-th
    trial is step n of ``trials/OBJECTIVE``, ``hypervolume`` (of the front before it) and ``failures``; in names, an
    ``@`` becomes ``_at_`` and other characters that MLflow does not take become ``_``. At the end come
    ``final_hypervolume`` and the artifacts ``job.yaml``, ``front.json`` and ``report.html``.

    A resumed search goes on with its run, after the last step, unless that run was deleted. MLflow cannot change
    parameters, so those of a new budget stay as they were first; the artifact ``job.yaml`` has the new ones.

    A server that stops answering does not end a search: there is one warning, trials are dropped, and it is asked
    again later, after ten times as long as the failure took. When a new search starts, it has to answer.

    Args:
        experiment: Made if it does not exist.
        run_name: By default that of the run directory.
        tracking_uri: By default the one of an earlier process, else what MLflow is set to.
        nested: Whether each trial is also a run of its own below the search's, with its policy as parameters.

    Raises:
        JobError: If MLflow is not installed.
    """

    def __init__(
        self,
        experiment: str = "kneepoint",
        run_name: str | None = None,
        tracking_uri: str | None = None,
        nested: bool = False,
    ) -> None:
        _require_mlflow()
        self.experiment = experiment
        self.run_name = run_name
        self.tracking_uri = tracking_uri
        self.nested = nested
        self._run: _SearchRun | None = None
        self._patience = _Patience()

    def started(self, job: Mapping[str, Any], directory: Path) -> None:
        """Make the run, or find it again.

        Raises:
            JobError: If there is none yet, and none can be made.
        """
        self._run, self._patience = None, _Patience()
        run = _SearchRun(self, job, directory)
        if run.is_known:
            self._patience.attempt(run.connect)
        else:
            _connect_first(run)
        self._run = run

    def trial_ended(self, record: Record, status: Status) -> None:
        """Log the next step."""
        if (run := self._run) is not None:
            run.trials += 1
            self._patience.attempt(lambda: run.log(record, status))

    def ended(self, front: Front | None, directory: Path) -> None:
        """End the run as FINISHED, FAILED (as ``status.json`` says) or KILLED, and store the files."""
        run, self._run = self._run, None
        if run is not None and self._patience.attempt(lambda: run.finish(front), at_once=True):
            self._patience.attempt(run.store_files, at_once=True)  # later, for they may be stored elsewhere


class _Patience:
    """Tries; after a failure it does not for a while, and warns if that was the first."""

    def __init__(self) -> None:
        self._rest_until = 0.0
        self._warned = False

    def attempt(self, action: Callable[[], object], at_once: bool = False) -> bool:
        """Whether ``action`` was done; ``at_once`` also while it should rest."""
        start = time.monotonic()
        if start < self._rest_until and not at_once:
            return False
        try:
            action()
        except Exception as error:  # of the server, its database, its storage: all have types of their own
            now = time.monotonic()
            self._rest_until = now + max(REST_SECONDS, REST_FACTOR * (now - start))
            self._warn(error)
            return False
        return True

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            told = f"MLflow failed, and the search goes on without it until it answers: {_line(error)}"
            warnings.warn(told, stacklevel=4)


class _SearchRun:
    """A search's run in MLflow. What MLflow raises, its methods raise.

    Attributes:
        uri: The server.
        is_known: Whether an earlier process had a run.
        trials: How many trials this process has ended.
    """

    def __init__(self, settings: MlflowCallback, job: Mapping[str, Any], directory: Path) -> None:
        self._settings = settings
        self._job = job
        self._directory = directory
        self._earlier = _read(directory / FILE)
        self.uri = chosen_uri(settings.tracking_uri, self._earlier.get("tracking_uri"))
        self.is_known = "run_id" in self._earlier
        self.trials = 0
        self._client: MlflowClient | None = None
        self._id = self._experiment = ""
        self._before = 0

    def connect(self) -> MlflowClient:
        """A client of the server, which has the run then."""
        from mlflow import MlflowClient

        if self._client is None:
            client = MlflowClient(tracking_uri=self.uri)
            run = self._found(client) or self._made(client)
            self._id, self._experiment = run.info.run_id, run.info.experiment_id
            if run.info.status != "RUNNING":
                client.update_run(self._id, status="RUNNING")
            self._log_parameters(client, run)
            steps = [entry.step for entry in client.get_metric_history(self._id, _HYPERVOLUME)]
            self._before = max(steps, default=0)
            self._client = client  # connected once all of it went well
        return self._client

    def log(self, record: Record, status: Status) -> None:
        """The trial that has just ended."""
        client = self.connect()
        values = {f"trials/{_name(name)}": value for name, value in record.values.items()}
        every = {**values, _HYPERVOLUME: status.hypervolume, "failures": status.failed}
        client.log_batch(self._id, metrics=self._metrics(every), synchronous=True)
        if self._settings.nested:
            self._log_below(client, record)

    def finish(self, front: Front | None) -> None:
        """The last number, and the status."""
        client = self.connect()
        if front is not None:
            last = self._metrics({f"final_{_HYPERVOLUME}": front.hypervolume})
            client.log_batch(self._id, metrics=last, synchronous=True)
        client.set_terminated(self._id, "FINISHED" if front is not None else _how_it_broke_off(self._directory))

    def store_files(self) -> None:
        """The files that there are."""
        run = RunDirectory(self._directory)
        for path in (run.job_file, run.front_file, self._directory / "report.html"):
            if path.exists():
                self.connect().log_artifact(self._id, str(path))

    def _found(self, client: MlflowClient) -> Run | None:
        """The run of an earlier process; None where there was none, or it was deleted."""
        from mlflow.exceptions import MlflowException

        if not self.is_known:
            return None
        try:
            run = client.get_run(self._earlier["run_id"])
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return run if run.info.lifecycle_stage == "active" else None

    def _made(self, client: MlflowClient) -> Run:
        """A new run, noted in the run directory."""
        place = self._directory.resolve()
        run = client.create_run(
            _experiment_id(client, self._settings.experiment),
            run_name=self._settings.run_name or place.name,
            tags={"kneepoint.directory": str(place)},
        )
        note = {"run_id": run.info.run_id, "tracking_uri": without_password(self.uri)}
        write_atomically(self._directory / FILE, json.dumps(note).encode())
        return run

    def _log_parameters(self, client: MlflowClient, run: Run) -> None:
        """Those that the run does not have yet; MLflow refuses to change the others."""
        every = parameters_of(self._job)
        _log_parameters(client, self._id, {key: every[key] for key in every if key not in run.data.params})

    def _log_below(self, client: MlflowClient, record: Record) -> None:
        """The trial as a run of its own."""
        ended = record.ended or time.time()
        tags = {"mlflow.parentRunId": self._id, "kneepoint.worker": record.worker}
        if record.error is not None:
            tags["kneepoint.error"] = record.error
        start = int((ended - record.seconds) * 1000)
        run = client.create_run(self._experiment, start_time=start, tags=tags, run_name=record.id)
        below = run.info.run_id
        values = self._metrics({_name(name): value for name, value in record.values.items()})
        client.log_batch(below, metrics=values, synchronous=True)
        facts = {"fidelity": record.fidelity, "baseline": record.baseline, "policy": record.policy.to_json()}
        _log_parameters(client, below, parameters_of(facts))
        client.set_terminated(below, "FAILED" if record.error is not None else "FINISHED", int(ended * 1000))

    def _metrics(self, values: Mapping[str, float]) -> list[Metric]:
        """Of the current step."""
        from mlflow.entities import Metric

        now, step = int(time.time() * 1000), self._before + self.trials
        return [Metric(key, float(value), now, step) for key, value in values.items()]


def parameters_of(facts: Mapping[str, Any]) -> dict[str, str]:
    """``facts`` as parameters of MLflow: flat, of names and lengths that it takes, without those that are None."""
    from mlflow.utils.validation import MAX_ENTITY_KEY_LENGTH, MAX_PARAM_VAL_LENGTH

    every = ((_name(name)[:MAX_ENTITY_KEY_LENGTH], value) for name, value in _flat(facts))
    return {name: value[:MAX_PARAM_VAL_LENGTH] for name, value in every}


def without_password(uri: str) -> str:
    """A server's address as it may be written down."""
    password = urlsplit(uri).password
    return uri if password is None else uri.replace(f":{password}@", "@", 1)


def chosen_uri(given: str | None, earlier: str | None) -> str:
    """The server: the one that was asked for, else the earlier process's, with the password that MLflow is set to."""
    import mlflow

    usual = mlflow.get_tracking_uri()
    if given is not None or earlier in (None, without_password(usual)):
        return given or usual
    return earlier or usual


def _require_mlflow() -> None:
    try:
        import mlflow  # noqa: F401 - whether it is there
    except ImportError as error:
        raise JobError(f"MlflowCallback needs MLflow ({error}); pip install 'kneepoint[mlflow]'") from error


def _connect_first(run: _SearchRun) -> None:
    try:
        run.connect()
    except Exception as error:  # of the server or its database, which have types of their own
        raise JobError(
            f"MLflow at {without_password(run.uri)} must answer when a search starts; got {_line(error)}; "
            "see that it runs, give another tracking_uri, or leave MlflowCallback out"
        ) from error


def _read(path: Path) -> dict[str, str]:
    """What an earlier process noted; empty where there is nothing, or it is not whole."""
    try:
        content = json.loads(path.read_bytes())
        return {key: str(content[key]) for key in ("run_id", "tracking_uri")}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _experiment_id(client: MlflowClient, name: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name)
        except MlflowException:  # another search may have been faster
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return found.experiment_id


def _log_parameters(client: MlflowClient, run_id: str, parameters: Mapping[str, str]) -> None:
    from mlflow.entities import Param

    client.log_batch(run_id, params=[Param(key, value) for key, value in parameters.items()], synchronous=True)


def _how_it_broke_off(directory: Path) -> str:
    status = read_status(RunDirectory(directory).status_file) or {}
    return "FAILED" if str(status.get("ended")).startswith("failed") else "KILLED"


def _flat(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in facts.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value, default=str)


def _name(text: str) -> str:
    return _NO_NAME.sub("_", text.replace("@", "_at_"))


def _line(error: Exception) -> str:
    """The first line of an error, which may go on for pages."""
    return (str(error).splitlines() or [""])[0][:300] or type(error).__name__
