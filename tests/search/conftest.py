"""The tiny problem, made once; and candidates without a network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kneepoint.objectives.objective import Scale
from kneepoint.search.axis import Axis
from kneepoint.search.front import Candidate
from kneepoint.spaces.joint_space import JointSpace
from kneepoint.spaces.policy import LayerPolicy, Policy
from kneepoint.tasks.metrics import Score
from tests.search import postgres, tiny_problem

postgres_cluster, postgres_url = postgres.postgres_cluster, postgres.postgres_url
MakeCandidate = Callable[..., Candidate]
AXES = (
    Axis("accuracy", "maximize", "", Scale(worst=0.0, ideal=1.0)),
    Axis("latency_ms@pi", "minimize", "ms", Scale(worst=10.0, ideal=0.0)),
    Axis("size_mb", "minimize", "MB", Scale(worst=1.0, ideal=0.0)),
)


@pytest.fixture(scope="session")
def joint() -> JointSpace:
    """The space of the tiny problem."""
    return tiny_problem.space()


@pytest.fixture(scope="session")
def finished(joint: JointSpace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the tiny problem; not to be changed."""
    path: Path = tmp_path_factory.mktemp("runs") / "finished"
    tiny_problem.run(tiny_problem.job(joint), path)
    return path


@pytest.fixture
def axes() -> tuple[Axis, ...]:
    """Accuracy, latency on a device, size."""
    return AXES


@pytest.fixture
def candidate() -> MakeCandidate:
    """Makes a candidate of three values; its policy differs by its name."""

    def make(accuracy: float, latency: float = 5.0, size: float = 0.5, name: str = "a", **more: Any) -> Candidate:
        policy = Policy.build("teacher", {}, {name: LayerPolicy.of_bits(8)})
        scores = {"accuracy": Score(accuracy, 0.01), "latency_ms@pi": Score(latency), "size_mb": Score(size)}
        arguments: dict[str, Any] = {"id": policy.id, "policy": policy, "scores": scores, "fidelity": "ptq", **more}
        return Candidate(**arguments)

    return make
