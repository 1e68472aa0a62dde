from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from kneepoint.compression.compressor import Compressor
from kneepoint.compression.distillation import Distillation
from kneepoint.compression.settings import CompressionSettings
from kneepoint.compression.student_store import StudentStore
from kneepoint.compression.student_training import SLICES
from kneepoint.spaces.joint_space import joint_space
from kneepoint.spaces.students import StudentFamily
from kneepoint.tasks.errors import SpaceError
from tests.search import tiny_problem

STUDENT = {"width": 4}


def compressor(folder: Path, steps: int = 8, **options: Any) -> Compressor:
    family = StudentFamily(tiny_problem.build_student, {"width": [4, 6]})
    space = joint_space(tiny_problem.task(), students=family, **options)
    settings = CompressionSettings(student=Distillation(steps, 1e-2))
    return Compressor(space, StudentStore(folder), settings=settings)


def weights(made: Compressor) -> dict[str, torch.Tensor]:
    network = made.train_student(STUDENT)
    return {name: value.clone() for name, value in network.tensors().items()}


def test_in_slices_on_several_workers_or_at_once_the_weights_are_the_same(tmp_path: Path) -> None:
    at_once = weights(compressor(tmp_path / "a"))
    for number in range(len(SLICES)):
        compressor(tmp_path / "b").student_after_slice(STUDENT, number)  # each by a worker of its own
    assert all(torch.equal(value, at_once[name]) for name, value in weights(compressor(tmp_path / "b")).items())


def test_a_slice_goes_on_from_the_one_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []

    def report(what: str, done: int, total: int) -> None:
        assert (what, total) == ("student width=4", 8)
        steps.append(done)

    compressor(tmp_path).student_after_slice(STUDENT, 0, report)
    compressor(tmp_path).student_after_slice(STUDENT, 1, report)
    compressor(tmp_path).student_after_slice(STUDENT, 1, report)  # is there already
    compressor(tmp_path).train_student(STUDENT, report)
    assert steps == list(range(1, 9))


def test_what_a_trained_student_went_on_from_is_deleted(tmp_path: Path) -> None:
    made = compressor(tmp_path)
    made.student_after_slice(STUDENT, 0)
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    made.train_student(STUDENT)
    assert len(list(tmp_path.glob("*.safetensors"))) == len(list(tmp_path.glob("*.json"))) == 1


def test_very_short_trainings_have_slices_too(tmp_path: Path) -> None:
    made = compressor(tmp_path, steps=1)
    for number in range(len(SLICES)):
        assert made.student_after_slice(STUDENT, number).training
    assert made.train_student(STUDENT).layers


def test_without_a_family_there_is_nothing_to_train(tmp_path: Path) -> None:
    space = joint_space(tiny_problem.task(), students=None)
    with pytest.raises(SpaceError, match="the space has no students, and a policy names width=4"):
        Compressor(space, StudentStore(tmp_path)).student_after_slice(STUDENT, 0)
