"""What a job refuses before anything is computed."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import yaml

from kneepoint.search.job import same_job
from kneepoint.spaces.joint_space import JointSpace
from kneepoint.tasks.errors import JobError, ObjectiveError
from tests.search import tiny_problem


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trials": 0}, "trials is a whole number of at least 1; got 0"),
        ({"trials": 2.5}, "trials is a whole number"),
        ({"trials": True}, "trials is a whole number"),
        ({"seed": -1}, "seed is a whole number of at least 0; got -1"),
        ({"threads": 0}, "threads is a whole number of at least 1"),
        ({"minutes": 0}, "minutes is above 0, or null; got 0"),
        ({"minutes": math.nan}, "minutes is above 0"),
        ({"sampler": "nsag2"}, "unknown sampler 'nsag2'; did you mean 'nsga2'"),
        ({"sampler": None}, "unknown sampler None"),
        ({"constraints": "size_mb <= 1"}, "constraints is a list of conditions; got the text"),
    ],
)
def test_bad_arguments_are_refused(joint: JointSpace, change: dict[str, Any], message: str) -> None:
    with pytest.raises(JobError, match=message):
        tiny_problem.job(joint, **change)


def test_unknown_objectives_are_refused(joint: JointSpace) -> None:
    with pytest.raises(ObjectiveError, match="did you mean 'size_mb'"):
        tiny_problem.job(joint, constraints=["sizemb <= 1"])


def test_a_job_survives_yaml_and_is_the_same_job(joint: JointSpace) -> None:
    wanted = tiny_problem.job(joint, trials=np.int64(7), minutes=np.float64(2.0), seed=np.int32(5)).to_json()
    read = yaml.safe_load(yaml.safe_dump(wanted))
    assert read == wanted
    assert same_job(read, wanted) is None
    assert (read["trials"], read["minutes"], read["seed"]) == (7, 2.0, 5)
    assert list(read["devices"]) == ["raspberry-pi-4b"]
    assert read["space"]["students"] == {"build": "tiny_problem:build_student", "axes": {"width": [4, 6]}}


def test_what_makes_another_job(joint: JointSpace) -> None:
    wanted = tiny_problem.job(joint).to_json()
    assert same_job(wanted, {**wanted, "trials": 9, "minutes": 1.0, "sampler": "tpe"}) is None
    for key in ("fingerprint", "space", "objectives", "constraints", "seed", "threads", "training", "devices"):
        assert same_job(wanted, {**wanted, key: "other"}) == key


def test_another_full_training_is_another_job(joint: JointSpace) -> None:
    fulls = [replace(tiny_problem.FAST.recovery, steps=9, learning_rate=rate) for rate in (1e-3, 1e-2)]
    first, second = (
        tiny_problem.job(joint, settings=replace(tiny_problem.FAST, full=full)).to_json() for full in fulls
    )
    assert same_job(first, first) is None
    assert same_job(first, second) == "training"


def test_what_a_constraint_reads_is_scored(joint: JointSpace) -> None:
    job = tiny_problem.job(joint, constraints=["macs <= 0.5 * teacher and size_mb <= 1"])
    assert [entry.name for entry in job.watched] == ["macs"]
    assert job.constraint_names == ["0: macs <= 0.5 * teacher", "1: size_mb <= 1"]
