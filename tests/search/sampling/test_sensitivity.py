"""How far single choices move the teacher's outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import fx

from kneepoint.compression.compressor import Compressor
from kneepoint.compression.student_store import StudentStore
from kneepoint.search.sampling.sensitivity import sensitivities
from kneepoint.spaces.joint_space import JointSpace
from kneepoint.spaces.policy import Policy
from kneepoint.tasks.errors import JobError
from kneepoint.tasks.task import Task
from tests.search.tiny_problem import FAST, space


@pytest.fixture
def compressor(joint: JointSpace, tmp_path: Path) -> Compressor:
    return Compressor(joint, StudentStore(tmp_path), settings=FAST)


def test_every_choice_has_a_distance_and_the_one_that_changes_nothing_has_none(
    joint: JointSpace, compressor: Compressor
) -> None:
    found = sensitivities(joint, compressor)
    assert {name: len(values) for name, values in found.items()} == dict(joint.choices)
    assert all(values[-1] == 0.0 and min(values) >= 0.0 for values in found.values())


def test_fewer_bits_move_outputs_further(joint: JointSpace, tmp_path: Path) -> None:
    wide = space(joint.task, weight_bits=(2, 4, 8), students=None)
    found = sensitivities(wide, Compressor(wide, StudentStore(tmp_path), settings=FAST))
    bits = [values for name, values in found.items() if name.startswith("bits/")]
    assert all(two > four > eight == 0.0 for two, four, eight in bits)


def test_behind_a_harmless_width_the_rest_is_estimated(
    joint: JointSpace, compressor: Compressor, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Policy] = []
    real = Compressor.sketch

    def sketch(self: Compressor, policy: Policy) -> fx.GraphModule:
        made.append(policy)
        return real(self, policy)

    monkeypatch.setattr(Compressor, "sketch", sketch)
    monkeypatch.setattr("kneepoint.search.sampling.sensitivity._HARMLESS", 1e9)
    found = sensitivities(joint, compressor)
    widths = {name: values for name, values in found.items() if name.startswith("keep/")}
    assert len(made) == len(widths) + 1  # the teacher itself
    assert all(first / 4 == second for first, second, *rest in widths.values() if rest)


def test_formats_that_gradients_find_harmful_are_measured(
    joint: JointSpace, compressor: Compressor, monkeypatch: pytest.MonkeyPatch
) -> None:
    believed = sensitivities(joint, compressor)
    monkeypatch.setattr("kneepoint.search.sampling.sensitivity._SECOND_ORDER", -1.0)
    measured = sensitivities(joint, compressor)
    for name in (name for name in joint.choices if name.startswith("bits/")):
        assert believed[name] != measured[name]
        assert believed[name] == pytest.approx(measured[name], rel=1.0, abs=0.02)  # one draw of 128 labels


def test_a_network_that_gradients_do_not_pass_is_measured(
    joint: JointSpace, compressor: Compressor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("element 0 of tensors does not require grad")

    monkeypatch.setattr("kneepoint.search.sampling.sensitivity._SECOND_ORDER", -1.0)
    measured = sensitivities(joint, compressor)
    monkeypatch.setattr("kneepoint.search.sampling.sensitivity.output_distances", fail)
    assert sensitivities(joint, compressor) == measured


def test_a_choice_that_breaks_the_network_is_the_worst(
    joint: JointSpace, compressor: Compressor, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_compress, real_sketch = Compressor.compress, Compressor.sketch

    def compress(self: Compressor, policy: Policy) -> Any:
        if any(layer.weight_bits < 16 for _, layer in policy.layers):
            raise RuntimeError("no kernel for this")
        return real_compress(self, policy)

    def sketch(self: Compressor, policy: Policy) -> Any:
        if policy.keep:
            raise RuntimeError("nor for that")
        return real_sketch(self, policy)

    monkeypatch.setattr(Compressor, "compress", compress)
    monkeypatch.setattr(Compressor, "sketch", sketch)
    assert all(values[0] == 20.0 for values in sensitivities(joint, compressor).values())


def test_a_wrong_job_is_not_taken_for_a_bad_choice(
    joint: JointSpace, compressor: Compressor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> Any:
        raise JobError("wrong")

    monkeypatch.setattr(compressor, "compress", fail)
    with pytest.raises(JobError, match="wrong"):
        sensitivities(joint, compressor)


def test_a_network_that_keeps_almost_all_is_near_the_teacher(joint: JointSpace, tmp_path: Path) -> None:
    """Its BatchNorms are re-estimated, as those of the network that it is compared with."""
    wide = space(joint.task, weight_bits=(8, 16), keep=(1.0, 0.875, 0.25), students=None)
    found = sensitivities(wide, Compressor(wide, StudentStore(tmp_path), settings=FAST), samples=32)
    kept = [values for name, values in found.items() if name.startswith("keep/")]
    assert all(quarter > most for quarter, most, _ in kept)


def test_progress_is_told(joint: JointSpace, compressor: Compressor) -> None:
    told: list[tuple[int, int]] = []
    sensitivities(joint, compressor, report=lambda done, total: told.append((done, total)))
    assert told == [(done, len(joint.choices)) for done in range(len(joint.choices))]


def test_a_loader_that_shuffles_changes_nothing(joint: JointSpace, tmp_path: Path) -> None:
    samples = [pair for x, y in joint.task.train for pair in zip(x, y, strict=True)]
    task, loader = joint.task, torch.utils.data.DataLoader(samples, batch_size=16, shuffle=True)  # type: ignore[var-annotated, arg-type]  # pairs of tensors are a data set
    shuffled = space(Task(task.model, task.example_input, loader, task.validation), students=None)
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(sensitivities(shuffled, Compressor(shuffled, StudentStore(tmp_path), settings=FAST), samples=32))
    assert found[0] == found[1]
