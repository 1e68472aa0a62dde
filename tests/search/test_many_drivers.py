"""Several drivers on one run, through a real PostgreSQL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import optuna
import pytest
from sqlalchemy import create_engine, text

from kneepoint.search.front_file import read_front
from kneepoint.search.run_directory import RunDirectory
from kneepoint.search.trial_log import TrialLog
from kneepoint.spaces.joint_space import JointSpace
from tests.search import tiny_problem

ROOT = Path(__file__).parents[2]
TRIALS = 24
DRIVER = """
import sys
from pathlib import Path
from tests.search import tiny_problem
url, path = sys.argv[1:]
job = tiny_problem.job(tiny_problem.space(), trials={trials}, storage=url)
tiny_problem.run(job, Path(path))
"""


def driver(url: str, path: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    program = DRIVER.format(trials=TRIALS)
    return subprocess.Popen([sys.executable, "-c", program, url, str(path)], cwd=ROOT, env=environment)


def rows(url: str, policies: Collection[str]) -> list[str]:
    """Records of the run that knows these policies: other tests have runs in the database, too."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    try:
        with engine.connect() as connection:
            found = connection.execute(text("SELECT run, policy_id || '-' || fidelity FROM kneepoint_records"))
            of_run: dict[str, list[str]] = {}
            for run, name in found:
                of_run.setdefault(run, []).append(name)
            (ours,) = [names for names in of_run.values() if set(policies) <= set(names)]
            return ours
    finally:
        engine.dispose()


def test_two_drivers_lose_and_double_nothing_though_one_is_killed(postgres_url: str, tmp_path: Path) -> None:
    first, second = driver(postgres_url, tmp_path / "a"), driver(postgres_url, tmp_path / "b")
    log = tmp_path / "a" / "trials.jsonl"
    deadline = time.monotonic() + 120
    while (not log.exists() or len(TrialLog(log)) < 5) and time.monotonic() < deadline:
        time.sleep(0.1)
    acknowledged = {record.id for record in TrialLog(log).records}
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    again = driver(postgres_url, tmp_path / "a")
    assert second.wait(240) == 0
    assert again.wait(240) == 0
    kept = rows(postgres_url, {record.id for record in TrialLog(tmp_path / "b" / "trials.jsonl").records})
    assert not [name for name, count in Counter(kept).items() if count > 1]
    assert acknowledged <= set(kept)
    for folder in ("a", "b"):
        records = TrialLog(tmp_path / folder / "trials.jsonl").records
        assert {record.id for record in records} <= set(kept)
        front = read_front(RunDirectory(tmp_path / folder).read_front())
        known = {record.id: record.values for record in records}
        assert all(known[f"{one.policy.id}-{one.fidelity}"] == one.values for one in front)
    workers = {record.worker for record in TrialLog(tmp_path / "b" / "trials.jsonl").records}
    assert len(workers) >= 2
    storage = optuna.storages.RDBStorage(postgres_url.replace("postgresql://", "postgresql+psycopg://"))
    (name,) = optuna.get_all_study_names(storage)
    told = [trial.user_attrs["policy_id"] for trial in optuna.load_study(study_name=name, storage=storage).trials]
    storage.remove_session()
    storage.engine.dispose()
    assert len(told) == len(set(told)) >= TRIALS


def test_a_run_that_began_with_a_file_goes_on_in_a_database(joint: JointSpace, tmp_path: Path) -> None:
    tiny_problem.run(tiny_problem.job(joint, trials=6), tmp_path / "run")
    before = TrialLog(tmp_path / "run" / "trials.jsonl").records
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    tiny_problem.run(tiny_problem.job(joint, trials=6, storage=url), tmp_path / "run")
    assert TrialLog(tmp_path / "run" / "trials.jsonl").records == before  # nothing was measured again


def test_a_password_is_not_written_down(joint: JointSpace) -> None:
    job = tiny_problem.job(joint, storage="postgresql://me:s3cret@host/runs")
    assert job.to_json()["storage"] == "postgresql+psycopg://me@host/runs"


@pytest.mark.parametrize("url", ["nonsense", "mysql://host/db"])
def test_a_storage_that_is_none_is_refused(joint: JointSpace, url: str, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="storage is the URL of a PostgreSQL database"):
        tiny_problem.run(tiny_problem.job(joint, storage=url), tmp_path)
