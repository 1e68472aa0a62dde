"""The running front is cheap, and on disk when it changes."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from kneepoint.search.front import Candidate
from kneepoint.search.progress import Progress
from kneepoint.search.run_directory import RunDirectory
from kneepoint.search.running_front import RunningFront
from kneepoint.search.trials import Trials
from kneepoint.spaces.joint_space import JointSpace
from kneepoint.spaces.policy import LayerPolicy, Policy
from kneepoint.tasks.metrics import Score
from tests.search import tiny_problem


@pytest.fixture
def trials(joint: JointSpace, tmp_path: Path) -> Trials:
    """A run of which the teacher alone was measured."""
    return Trials(tiny_problem.job(joint), RunDirectory(tmp_path))


def made(name: str, accuracy: float, latency: float, size: float, feasible: bool = True) -> Candidate:
    policy = Policy.build("teacher", {}, {name: LayerPolicy.of_bits(8)})
    values = {"accuracy": accuracy, "latency_ms@raspberry-pi-4b": latency, "size_mb": size}
    return Candidate(policy.id, policy, {key: Score(value) for key, value in values.items()}, "ptq", feasible)


def test_the_file_follows_the_front(trials: Trials, tmp_path: Path) -> None:
    directory, progress = RunDirectory(tmp_path), Progress()
    front = RunningFront(trials, directory, progress)
    assert directory.read_front()["fronts"]["all"] == []
    front.add(made("a", 0.5, 0.1, 0.001))
    written = directory.read_front()
    assert len(written["fronts"]["all"]) == 1
    assert progress.status.hypervolume == written["hypervolume"] > 0
    stamp = directory.front_file.stat().st_mtime_ns
    front.add(made("b", 0.4, 0.1, 0.001))
    front.add(made("c", 0.5, 0.1, 0.001))
    front.add(made("d", 0.9, 0.01, 0.0001, feasible=False))
    assert directory.front_file.stat().st_mtime_ns == stamp
    assert progress.status.best["accuracy"] == 0.5


def test_an_earlier_file_stays_until_the_front_changes(trials: Trials, tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    directory.write_front({"schema": "kneepoint.front/1", "final": True})
    front = RunningFront(trials, directory, Progress())
    assert directory.read_front()["final"]
    front.add(made("a", 0.5, 0.1, 0.001))
    assert "final" not in json.loads(directory.front_file.read_text())


def test_a_thousand_trials_cost_milliseconds_each(trials: Trials, tmp_path: Path) -> None:
    luck = np.random.default_rng(0)
    front = RunningFront(trials, RunDirectory(tmp_path), Progress())
    candidates = []
    for index in range(1000):
        latency, size = luck.random(), luck.random()
        candidates.append(
            made(f"l{index}", 0.3 + 0.3 * latency * size + 0.3 * luck.random(), 0.3 * latency, 0.004 * size)
        )
    start = time.process_time()
    for candidate in candidates:
        front.add(candidate)
    assert time.process_time() - start < 10.0
