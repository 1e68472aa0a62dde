from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kneepoint.spaces.export_errors import export_failure, user_place
from kneepoint.spaces.tracing import trace
from kneepoint.tasks.errors import SpaceError


class Branch(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return x * 2 if x.sum() > 0 else x  # the line that the error names


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 4), Branch())

    def forward(self, x: Tensor) -> Any:
        return self.body(x)


class Fixed(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return x.view(2, -1)


class Raising(nn.Module):
    def forward(self, x: Tensor) -> Any:
        raise ValueError


def line_of(text: str) -> int:
    with open(__file__) as lines:
        return next(number for number, line in enumerate(lines, 1) if text in line)


def test_the_error_names_the_users_line() -> None:
    place = rf"\(at {__file__}:{line_of('the line that')}, in forward\)"
    with pytest.raises(SpaceError, match=place):
        trace(Nested(), torch.randn(1, 4))


def test_a_fixed_batch_size_is_called_so() -> None:
    with pytest.raises(SpaceError, match="the model fixes the batch size to that of its example, 2, in a shape"):
        trace(Fixed(), torch.randn(1, 4))


def test_an_error_without_text_is_named() -> None:
    with pytest.raises(SpaceError, match=r"it said: ValueError \(at .*, in forward\)"):
        trace(Raising(), torch.randn(1, 4))


def test_the_exporters_own_report_stays_away(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SpaceError):
        trace(Branch(), torch.randn(1, 4))
    print("the user's", file=sys.stderr)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "the user's\n")


def test_without_code_of_the_user_there_is_no_place() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.zeros(2).view(3)
    assert user_place(caught.value).endswith("in test_without_code_of_the_user_there_is_no_place")
    assert user_place(RuntimeError()) == ""
    assert export_failure(RuntimeError("one\ntwo")) == "one"
