from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from kneepoint.tasks.checks import check_task
from kneepoint.tasks.errors import TaskError
from kneepoint.tasks.task import Task

INPUTS = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
CLASSES = (INPUTS[:, 0] > 0.3).long()
BATCHES = [(INPUTS[i : i + 16], CLASSES[i : i + 16]) for i in range(0, 50, 16)]


def make(**changes: Any) -> Task:
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 2))
    given: dict[str, Any] = {"model": model, "example_input": INPUTS[:1], "train": BATCHES, "validation": BATCHES}
    return Task(**(given | changes))


class Raising(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        raise RuntimeError("no kernel\nand a long story")


class Listing(nn.Module):
    def forward(self, inputs: Tensor) -> list[Tensor | str]:
        return [inputs, "a note"]


class Constant(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.full((len(inputs), 2), self.value)


def raising(outputs: Tensor, targets: Tensor) -> Any:
    raise KeyError("boxes")


def not_a_number(outputs: Tensor, targets: Tensor) -> Tensor:
    return torch.tensor(float("nan"))


def test_a_sound_task_passes_and_is_left_as_it_was() -> None:
    task = make(train=DataLoader(TensorDataset(INPUTS, CLASSES), batch_size=7, shuffle=True), test=BATCHES)
    state = torch.get_rng_state()
    before = task.fingerprint()
    check_task(task)
    assert torch.equal(torch.get_rng_state(), state)
    assert task.fingerprint() == before
    assert task.model.training


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": len}, "model must be a torch.nn.Module, got builtin_function_or_method"),
        ({"model": Raising()}, "example_input: the model raised: RuntimeError: no kernel$"),
        ({"model": Constant(float("nan"))}, "example_input: the model's outputs hold NaN or infinite values"),
        ({"model": Constant(float("inf"))}, "example_input: the model's outputs hold NaN or infinite values"),
        ({"model": Listing()}, "example_input: in the model's outputs, expected a tensor, .* found str"),
        ({"train": iter(BATCHES)}, "train: a list_iterator can be iterated only once"),
        ({"validation": (batch for batch in BATCHES)}, "validation: a generator can be iterated only once"),
        ({"test": 3}, r"test: expected a re-iterable of \(inputs, targets\) batches, got int"),
        ({"train": None}, "train: expected a re-iterable of .* batches, got NoneType"),
        ({"train": []}, r"train: the loader is empty, it must give at least one \(inputs, targets\) batch"),
        ({"validation": [INPUTS]}, r"validation: every batch must be an \(inputs, targets\) pair, got Tensor"),
        ({"test": [(INPUTS,)]}, r"test: every batch must be an \(inputs, targets\) pair, got 1 elements"),
        ({"test": [(INPUTS[:, :2], CLASSES)]}, "test: the model raised on the first batch: RuntimeError: mat1"),
        ({"train": [(INPUTS * float("nan"), CLASSES)]}, "train: the model's outputs hold NaN"),
        ({"validation": [*BATCHES, (INPUTS / 0, CLASSES)]}, "validation: the model's outputs hold NaN"),
        ({"validation": [*BATCHES, (INPUTS[0], CLASSES)]}, "validation: the model raised: "),
        ({"loss": raising}, "train: the loss raised on the first batch: KeyError: 'boxes'"),
        ({"loss": not_a_number}, "train: the loss of the first batch is nan, it must be finite"),
        ({"loss": lambda outputs, targets: outputs}, "train: the loss raised on the first batch: ValueError"),
        ({"metric": raising}, "validation: the metric 'raising' raised: KeyError: 'boxes'"),
        ({"metric": not_a_number}, "validation: the metric 'not_a_number' is nan, it must be finite"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError, match=f"^{message}") as caught:
        check_task(make(**changes))
    assert "\n" not in str(caught.value)


def test_a_loader_that_raises_is_named() -> None:
    class Broken:
        def __iter__(self) -> Iterator[Any]:
            raise OSError("disk gone")

    with pytest.raises(TaskError, match="train: the loader raised: OSError: disk gone"):
        check_task(make(train=Broken()))
