"""``front.json`` out and in."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from kneepoint.search.axis import Axis
from kneepoint.search.front import Candidate, Front
from kneepoint.search.front_file import device_front, front_content, read_front
from kneepoint.tasks.errors import InputError, RunError
from kneepoint.tasks.metrics import Score

TEACHER = {"accuracy": Score(0.95, 0.01), "latency_ms@pi": Score(9.0), "size_mb": Score(0.9)}
Make = Callable[..., Candidate]


@pytest.fixture
def front(candidate: Make, axes: tuple[Axis, ...]) -> Front:
    """Two members, one of them exported and tested."""
    metric = {"accuracy": Score(0.89, 0.01)}
    exported = candidate(
        0.9, 2.0, name="a", fidelity="recovered", artifact="artifacts/x.onnx", executed=metric, test=metric
    )
    return Front([exported, candidate(0.5, 1.0, name="b")], axes, {name: one.value for name, one in TEACHER.items()})


def content_of(front: Front, **baselines: list[Candidate]) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(json.dumps(front_content("t", front, baselines, TEACHER, ["size_mb <= 2"])))
    return content


def test_a_front_reads_back_as_it_was(front: Front, candidate: Make) -> None:
    baseline = candidate(0.4, 1.5, name="c", baseline="uniform", id="c-ptq")
    read = read_front(content_of(front, uniform=[baseline]))
    assert list(read) == list(front)
    assert read.axes == front.axes
    assert read.teacher == front.teacher
    assert read.hypervolume == front.hypervolume
    assert read.knee() == front.knee()


def test_the_content_names_fronts_baselines_and_the_knee(front: Front, candidate: Make) -> None:
    first, second = (candidate(0.4, 1.5, name=name, baseline="random", id=f"{name}-ptq") for name in "cd")
    content = content_of(front, random=[first, second], one=[first])
    assert content["knee"] == front.knee().id
    assert content["fronts"] == {"all": [one.id for one in front], "pi": [one.id for one in front]}
    assert content["baselines"]["all baselines"]["ids"] == ["c-ptq", "d-ptq"]
    assert content["baselines"]["all baselines"]["hypervolume"] == content["baselines"]["one"]["hypervolume"] > 0
    assert [entry["id"] for entry in content["candidates"]].count("c-ptq") == 1
    assert content["constraints"] == ["size_mb <= 2"]


def test_what_cannot_be_told_apart_is_written_and_read(candidate: Make, axes: tuple[Axis, ...]) -> None:
    members = [candidate(0.9, name="a"), candidate(0.89, name="b")]
    front = Front(members, axes, {name: one.value for name, one in TEACHER.items()}, within_noise=True)
    content = content_of(front)
    groups = {members[0].id: [members[1].id], members[1].id: [members[0].id]}
    assert content["alike"] == {"all": groups, "pi": groups}
    assert list(read_front(content)) == list(front) == members


def test_an_empty_front_is_written_and_read(axes: tuple[Axis, ...]) -> None:
    content = content_of(Front([], axes, {}))
    assert (content["knee"], content["hypervolume"], content["fronts"]["all"]) == (None, 0.0, [])
    assert len(read_front(content)) == 0


@pytest.mark.parametrize("key", ["objectives", "reference", "fronts", "candidates", "teacher"])
def test_a_malformed_front_is_refused(front: Front, key: str) -> None:
    foreign: list[object] = [{}, None, [1], 3]
    for broken in foreign:
        content = copy.deepcopy(content_of(front))
        content[key] = broken
        if key in ("candidates", "teacher") and broken == {}:
            continue  # then there is nothing to read
        with pytest.raises(RunError, match=r"front.json is malformed"):
            read_front(content)


def test_a_candidate_without_a_score_is_refused(front: Front) -> None:
    content = content_of(front)
    del content["candidates"][0]["scores"]["size_mb"]
    with pytest.raises(RunError, match=r"front.json is malformed .*size_mb"):
        read_front(content)


def test_the_front_of_a_device(front: Front) -> None:
    assert device_front(front, None) is front
    assert len(device_front(front, "pi").axes) == 3
    with pytest.raises(InputError, match="no objective of the run is about device 'nano'"):
        device_front(front, "nano")
