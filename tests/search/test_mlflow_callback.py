"""Searches in MLflow, with a real store: a SQLite file, MLflow's own default."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from kneepoint.search import mlflow_callback
from kneepoint.search.front import Front
from kneepoint.search.front_file import read_front
from kneepoint.search.mlflow_callback import MlflowCallback, chosen_uri, parameters_of, without_password
from kneepoint.search.progress import Status
from kneepoint.search.record import Record
from kneepoint.search.run_directory import RunDirectory
from kneepoint.tasks.errors import JobError

# MLflow's tables use a strategy of SQLAlchemy that 2.1 announces the end of.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")
NOBODY = "http://127.0.0.1:9"
"""No program listens at this port."""


@dataclass
class Server:
    """A tracking store, and a client to look into it with."""

    path: Path

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.path}"

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(tracking_uri=self.uri)

    def rename(self, table: str, new: str) -> None:
        with closing(sqlite3.connect(self.path)) as connection:
            connection.execute(f"ALTER TABLE {table} RENAME TO {new}")

    def runs(self, experiment: str) -> list[Run]:
        found = self.client.get_experiment_by_name(experiment)
        return list(self.client.search_runs([found.experiment_id])) if found else []

    def only_run(self, experiment: str) -> Run:
        (run,) = self.runs(experiment)
        return run

    def steps(self, run: Run, key: str) -> dict[int, float]:
        return {entry.step: entry.value for entry in self.client.get_metric_history(run.info.run_id, key)}

    def files(self, run: Run) -> list[str]:
        return sorted(entry.path for entry in self.client.list_artifacts(run.info.run_id))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # artifacts go there
        yield Server(folder / "mlflow.db")


@pytest.fixture
def directory(finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, with a report."""
    copy = tmp_path / "digits"
    shutil.copytree(finished, copy)
    (copy / "report.html").write_text("<p>the report")
    return copy


@pytest.fixture
def records(directory: Path) -> list[Record]:
    return RunDirectory(directory).log().records[:4]


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """An experiment for each test."""
    return str(request.node.name)


def job_of(directory: Path) -> dict[str, Any]:
    return RunDirectory(directory).read_job()


def front_of(directory: Path) -> Front:
    return read_front(RunDirectory(directory).read_front())


def status(trial: int, failed: int = 0) -> Status:
    return Status("measuring", trial, 8, None, {}, trial / 10, failed)


def tell(callback: MlflowCallback, records: list[Record]) -> None:
    for trial, record in enumerate(records, 1):
        callback.trial_ended(record, status(trial))


def broken(record: Record) -> Record:
    return replace(record, scores=None, error="ran out of memory")


def test_a_search_is_a_run(server: Server, directory: Path, records: list[Record], name: str) -> None:
    callback = MlflowCallback(name, tracking_uri=server.uri)
    callback.started(job_of(directory), directory)
    assert server.only_run(name).info.status == "RUNNING"
    tell(callback, records)
    callback.ended(front_of(directory), directory)
    run = server.only_run(name)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "digits")
    assert run.data.tags["kneepoint.directory"] == str(directory)
    assert run.data.params["trials"] == "8"
    assert run.data.params["space.weight_bits"] == "[4, 8, 16]"
    assert run.data.params["training.student_steps"] == "6"
    assert "minutes" not in run.data.params
    accuracies = {step: record.values["accuracy"] for step, record in enumerate(records, 1)}
    assert server.steps(run, "trials/accuracy") == accuracies
    assert list(server.steps(run, "trials/latency_ms_at_raspberry-pi-4b")) == [1, 2, 3, 4]
    assert server.steps(run, "hypervolume") == {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4}
    assert run.data.metrics["final_hypervolume"] == front_of(directory).hypervolume
    assert server.files(run) == ["front.json", "job.yaml", "report.html"]


def test_a_resumed_search_goes_on_with_its_run(
    server: Server, directory: Path, records: list[Record], name: str
) -> None:
    first = MlflowCallback(name, "first", server.uri)
    first.started(job_of(directory), directory)
    tell(first, records[:3])
    first.ended(None, directory)
    ended = server.only_run(name).info
    second = MlflowCallback("another experiment", "second")  # the run directory says where the run is
    second.started({**job_of(directory), "trials": 20, "new": "more"}, directory)
    resumed = server.only_run(name)
    assert (resumed.info.run_id, resumed.info.run_name) == (ended.run_id, "first")
    assert (ended.status, resumed.info.status) == ("KILLED", "RUNNING")
    assert (resumed.data.params["trials"], resumed.data.params["new"]) == ("8", "more")
    tell(second, records[3:])
    second.ended(front_of(directory), directory)
    history = server.client.get_metric_history(ended.run_id, "hypervolume")
    assert [entry.step for entry in history] == [1, 2, 3, 4]
    assert server.only_run(name).info.status == "FINISHED"
    assert server.runs("another experiment") == []


def test_a_failed_trial_is_a_step_without_scores(
    server: Server, directory: Path, records: list[Record], name: str
) -> None:
    callback = MlflowCallback(name, tracking_uri=server.uri)
    callback.started(job_of(directory), directory)
    callback.trial_ended(records[0], status(1))
    callback.trial_ended(broken(records[1]), status(2, failed=1))
    callback.trial_ended(records[2], status(3, failed=1))
    run = server.only_run(name)
    assert list(server.steps(run, "trials/accuracy")) == [1, 3]
    assert server.steps(run, "failures") == {1: 0, 2: 1, 3: 1}


def test_trials_may_be_runs_below(server: Server, directory: Path, records: list[Record], name: str) -> None:
    callback = MlflowCallback(name, "above", server.uri, nested=True)
    callback.started(job_of(directory), directory)
    tell(callback, [records[1], broken(records[2])])
    runs = {run.info.run_name: run for run in server.runs(name)}
    parent, good, bad = runs["above"], runs[records[1].id], runs[records[2].id]
    assert [run.data.tags["mlflow.parentRunId"] for run in (good, bad)] == [parent.info.run_id] * 2
    assert (good.info.status, bad.info.status) == ("FINISHED", "FAILED")
    assert good.data.metrics["accuracy"] == records[1].values["accuracy"]
    assert (bad.data.metrics, bad.data.tags["kneepoint.error"]) == ({}, "ran out of memory")
    assert good.data.params["fidelity"] == "ptq"
    assert good.data.params["policy.layers.stem.weight_bits"] == str(dict(records[1].policy.layers)["stem"].weight_bits)
    assert good.info.end_time - good.info.start_time == pytest.approx(1000 * records[1].seconds, abs=2)


@pytest.mark.parametrize(
    ("how", "expected"), [("interrupted", "KILLED"), ("failed: no room", "FAILED"), (None, "KILLED")]
)
def test_how_a_search_broke_off(server: Server, directory: Path, how: str | None, expected: str, name: str) -> None:
    callback = MlflowCallback(name, tracking_uri=server.uri)
    callback.started(job_of(directory), directory)
    content = {"schema": "kneepoint.status/1", "ended": how}
    RunDirectory(directory).status_file.write_text(json.dumps(content))
    (directory / "report.html").unlink()
    callback.ended(None, directory)
    run = server.only_run(name)
    assert run.info.status == expected
    assert "final_hypervolume" not in run.data.metrics
    assert server.files(run) == ["front.json", "job.yaml"]


def test_the_active_run_of_the_user_is_left_alone(
    server: Server, directory: Path, records: list[Record], name: str
) -> None:
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(server.uri)
    try:
        with mlflow.start_run() as mine:
            callback = MlflowCallback(name)
            callback.started(job_of(directory), directory)
            tell(callback, records[:1])
            callback.ended(front_of(directory), directory)
            active = mlflow.active_run()
            assert active is not None
            assert active.info.run_id == mine.info.run_id
            assert mlflow.get_tracking_uri() == server.uri
        untouched = server.client.get_run(mine.info.run_id)
        assert (untouched.data.metrics, untouched.data.params) == ({}, {})
        assert server.only_run(name).info.run_id != mine.info.run_id
    finally:
        mlflow.set_tracking_uri(before)


def test_a_server_that_breaks_is_warned_of_once(
    server: Server, directory: Path, records: list[Record], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_callback, "REST_SECONDS", 0.0)
    monkeypatch.setattr(mlflow_callback, "REST_FACTOR", 0.0)
    callback = MlflowCallback(name, tracking_uri=server.uri)
    callback.started(job_of(directory), directory)
    callback.trial_ended(records[0], status(1))
    server.rename("metrics", "gone")
    with pytest.warns(UserWarning, match="MLflow failed, and the search goes on without it until it answers") as heard:
        callback.trial_ended(records[1], status(2))
    assert "\n" not in str(heard[0].message)
    callback.trial_ended(records[2], status(3))  # a second warning would be an error
    server.rename("gone", "metrics")
    callback.trial_ended(records[3], status(4))
    callback.ended(front_of(directory), directory)
    run = server.only_run(name)
    assert list(server.steps(run, "hypervolume")) == [1, 4]
    assert run.info.status == "FINISHED"


def test_a_server_that_failed_is_left_alone_for_ten_times_as_long(
    server: Server, directory: Path, records: list[Record], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    callback = MlflowCallback(name, tracking_uri=server.uri)
    callback.started(job_of(directory), directory)
    now, log, calls = [1000.0], MlflowClient.log_batch, list[str]()
    monkeypatch.setattr("kneepoint.search.mlflow_callback.time.monotonic", lambda: now[0])

    def fail_slowly(self: MlflowClient, run_id: str, **given: Any) -> None:
        calls.append(run_id)
        now[0] += 250.0
        raise TimeoutError

    monkeypatch.setattr(MlflowClient, "log_batch", fail_slowly)
    with pytest.warns(UserWarning, match="TimeoutError"):
        callback.trial_ended(records[0], status(1))
    for seconds in (2499.0, 2.0):
        now[0] += seconds
        callback.trial_ended(records[1], status(2))
    assert len(calls) == 2
    monkeypatch.setattr(MlflowClient, "log_batch", log)
    callback.trial_ended(records[2], status(3))
    callback.ended(front_of(directory), directory)  # tries in any case
    run = server.only_run(name)
    assert run.info.status == "FINISHED"
    assert server.steps(run, "hypervolume") == {}


def test_a_search_is_resumed_without_its_server(
    server: Server, directory: Path, records: list[Record], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_callback, "REST_SECONDS", 0.0)
    monkeypatch.setattr(mlflow_callback, "REST_FACTOR", 0.0)
    first = MlflowCallback(name, tracking_uri=server.uri)
    first.started(job_of(directory), directory)
    tell(first, records[:2])
    first.ended(None, directory)
    server.rename("runs", "gone")
    second = MlflowCallback(name, tracking_uri=server.uri)
    with pytest.warns(UserWarning, match="the search goes on without it"):
        second.started(job_of(directory), directory)
    second.trial_ended(records[2], status(3))
    server.rename("gone", "runs")
    second.trial_ended(records[3], status(4))
    assert list(server.steps(server.only_run(name), "hypervolume")) == [1, 2, 4]


def test_a_new_search_needs_its_server(directory: Path, records: list[Record], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    callback = MlflowCallback(tracking_uri=NOBODY)
    with pytest.raises(JobError, match=f"MLflow at {NOBODY} must answer when a search starts; got .*tracking_uri"):
        callback.started(job_of(directory), directory)
    assert not (directory / "mlflow.json").exists()
    callback.ended(None, directory)  # as the driver does, whatever failed


@pytest.mark.parametrize("damage", ["deleted", "unknown", "malformed"])
def test_a_run_that_is_gone_is_made_again(
    server: Server, directory: Path, records: list[Record], damage: str, name: str
) -> None:
    first = MlflowCallback(name, tracking_uri=server.uri)
    first.started(job_of(directory), directory)
    tell(first, records[:2])
    earlier = server.only_run(name).info.run_id
    if damage == "deleted":
        server.client.delete_run(earlier)
    else:
        note = json.dumps({"run_id": "0" * 32, "tracking_uri": server.uri}) if damage == "unknown" else "{"
        (directory / "mlflow.json").write_text(note)
    second = MlflowCallback(name, tracking_uri=server.uri)
    second.started(job_of(directory), directory)
    tell(second, records[2:3])
    (new,) = [run for run in server.runs(name) if run.info.run_id != earlier]
    assert list(server.steps(new, "hypervolume")) == [1]
    noted = json.loads((directory / "mlflow.json").read_text())
    assert noted == {"run_id": new.info.run_id, "tracking_uri": server.uri}


def test_one_callback_serves_two_searches(server: Server, directory: Path, records: list[Record], name: str) -> None:
    callback = MlflowCallback(name, tracking_uri=server.uri)
    other = directory.parent / "other"
    other.mkdir()
    for place, count in ((directory, 3), (other, 2)):
        callback.started({"trials": count}, place)
        tell(callback, records[:count])
        callback.ended(None, place)
    runs = {run.info.run_name: run for run in server.runs(name)}
    assert list(server.steps(runs["digits"], "hypervolume")) == [1, 2, 3]
    assert list(server.steps(runs["other"], "hypervolume")) == [1, 2]


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(JobError, match=r"MlflowCallback needs MLflow .*pip install 'kneepoint\[mlflow\]'"):
        MlflowCallback()


def test_parameters_are_flat_and_fit_into_mlflow() -> None:
    facts = {
        "devices": {"pi": {"cpu": 1}},
        "conditions": {"latency_ms@pi (cold)": "x" * 9000},
        "bits": [2, 4],
        "deep" * 100: 1.5,
        "minutes": None,
        "mixed": True,
    }
    assert parameters_of(facts) == {
        "devices.pi.cpu": "1",
        "conditions.latency_ms_at_pi _cold_": "x" * 6000,
        "bits": "[2, 4]",
        ("deep" * 100)[:250]: "1.5",
        "mixed": "true",
    }


def test_passwords_are_not_written_down() -> None:
    assert without_password("https://me:secret@host:5000/x") == "https://me@host:5000/x"
    assert without_password("postgresql://me:a%40b@host/db") == "postgresql://me@host/db"
    for plain in ("databricks", "sqlite:////tmp/mlflow.db", "http://host:5000"):
        assert without_password(plain) == plain


def test_a_resumed_search_takes_the_password_that_mlflow_is_set_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: "https://me:secret@host")
    assert chosen_uri(None, None) == chosen_uri(None, "https://me@host") == "https://me:secret@host"
    assert chosen_uri(None, "https://other") == "https://other"
    assert chosen_uri("https://given", "https://other") == "https://given"
