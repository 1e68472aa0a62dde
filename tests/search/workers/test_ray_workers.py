"""A real cluster of several raylets on this machine, whose nodes come and go."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from kneepoint.objectives import Accuracy, Size
from kneepoint.search.front_file import read_front
from kneepoint.search.progress import Status
from kneepoint.search.run_directory import RunDirectory
from kneepoint.search.trial_log import TrialLog
from kneepoint.search.workers import ray_hub, ray_trial
from kneepoint.spaces.joint_space import JointSpace
from kneepoint.tasks.errors import JobError, JobFailed
from tests.search import tiny_problem
from tests.search.workers.explosive import Explosive

# Ray's own clients and servers leave sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without room for work, and two nodes with room for one worker each."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        made.add_node(num_cpus=1)
    yield made
    ray.shutdown()
    made.shutdown()  # type: ignore[no-untyped-call]  # Ray has no annotations there


def far_node(cluster: Any) -> Any:
    """A node with room for work that this process does not itself depend on."""
    ray.init(address=cluster.address, log_to_driver=False)
    own = ray.get_runtime_context().get_node_id()
    return next(node for node in cluster.worker_nodes if node.node_id != own)


def settled(path: Path) -> None:
    """The log holds every trial once, and the front on disk is the front of the log."""
    records = TrialLog(path / "trials.jsonl").records  # refuses a trial that is there twice
    front = read_front(RunDirectory(path).read_front())
    known = {record.id: record for record in records}
    assert len(front) > 0
    assert all(known[f"{one.policy.id}-{one.fidelity}"].values == one.values for one in front)
    assert sum(record.parameters is not None and record.fidelity == "ptq" for record in records) == 14


def test_a_cluster_that_is_not_there_is_named(joint: JointSpace, tmp_path: Path) -> None:
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    start = time.monotonic()
    with pytest.raises(JobError, match=r"there is no Ray cluster at '127\.0\.0\.1:1'"):
        tiny_problem.run(tiny_problem.job(joint, ray="127.0.0.1:1"), tmp_path / "run")
    assert time.monotonic() - start < 120


def test_a_job_that_a_node_cannot_load_ends_the_search(cluster: Any, joint: JointSpace, tmp_path: Path) -> None:
    """And is not tried again and again by Tune."""
    explosive = tiny_problem.Fragile(Explosive())
    job = tiny_problem.job(joint, workers=1, ray=cluster.address, objectives=[Accuracy(), Size(), explosive])
    with pytest.raises(JobFailed, match="cannot load the job: OSError: not on this machine"):
        tiny_problem.run(job, tmp_path / "run")
    assert not ray.is_initialized()


def test_nodes_without_the_run_directory_send_what_they_store(
    cluster: Any, joint: JointSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that does not see the run directory works in a folder of its own."""
    monkeypatch.setattr(ray_trial, "MARK", ".nobody-sees-this")
    job = tiny_problem.job(joint, workers=1, trials=14, ray=cluster.address)
    tiny_problem.run(job, tmp_path / "run")
    settled(tmp_path / "run")
    assert not ray.is_initialized()
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert not [event for event in events if event["event"] == "trial lost"]


def test_nodes_come_and_go_and_nothing_is_lost(
    cluster: Any, joint: JointSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node is killed while it measures; the search goes on, also where another comes."""
    victim = far_node(cluster)
    killed: list[Any] = []

    def kill(status: Status) -> None:
        if status.stage == "searching" and status.done == 3 and not killed:
            killed.append(victim)
            cluster.remove_node(victim, allow_graceful=False)
            cluster.add_node(num_cpus=1)

    monkeypatch.setattr(ray_hub, "SILENCE", 4.0)
    job = tiny_problem.job(joint, workers=2, trials=14, ray=cluster.address)
    tiny_problem.run(job, tmp_path / "run", kill)
    assert killed
    settled(tmp_path / "run")
    assert ray.is_initialized()  # whoever joined the cluster leaves it
    serial = tiny_problem.run(tiny_problem.job(joint, trials=14), tmp_path / "serial")
    mine = {record.id: record for record in TrialLog(tmp_path / "run" / "trials.jsonl").records}
    theirs = {record.id: record for record in TrialLog(serial.directory / "trials.jsonl").records}
    shared = mine.keys() & theirs.keys()
    assert len(shared) > 10
    assert {name: mine[name].values for name in shared} == {name: theirs[name].values for name in shared}
