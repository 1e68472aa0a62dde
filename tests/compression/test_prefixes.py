"""What networks share is computed once, and outputs are the same as if it had not been."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn

from kneepoint.compression.prefixes import SharedPrefixes
from kneepoint.spaces.tracing import copy_graph_module, trace


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.left, self.right = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.last = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = torch.relu(self.first(x))
        return {"logits": self.last(self.left(x) + self.right(x)), "hidden": x}


@pytest.fixture
def module() -> fx.GraphModule:
    torch.manual_seed(0)
    return trace(Branches(), torch.zeros(1, 4))


@pytest.fixture
def batches() -> list[Tensor]:
    return [torch.randn(3, 4), torch.randn(5, 4)]


def changed(module: fx.GraphModule, name: str) -> fx.GraphModule:
    return copy_graph_module(module, None, {name: torch.full_like(module.get_parameter(name), 0.5)})


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every step that is computed, by the name of its node."""
    seen: list[str] = []
    real = fx.Interpreter.run_node

    def run_node(self: fx.Interpreter, n: fx.Node) -> object:
        if n.op == "call_function":
            seen.append(n.name)
        return real(self, n)

    monkeypatch.setattr(fx.Interpreter, "run_node", run_node)
    return seen


@pytest.mark.parametrize("name", ["first.weight", "left.bias", "last.weight"])
@pytest.mark.parametrize("most_kept", [2**20, 900, 300, 0])
def test_outputs_are_those_of_the_changed_network(
    module: fx.GraphModule, batches: list[Tensor], name: str, most_kept: int
) -> None:
    other = changed(module, name)
    found = SharedPrefixes(module, batches, most_kept).outputs_of(other)
    for outputs, batch in zip(found, batches, strict=True):
        for key, value in other(batch).items():
            assert torch.equal(outputs[key], value)


def test_only_what_a_change_reaches_is_computed_again(
    module: fx.GraphModule, batches: list[Tensor], calls: list[str]
) -> None:
    shared = SharedPrefixes(module, batches)
    whole = calls[: len(calls) // 2]
    calls.clear()
    shared.outputs_of(changed(module, "right.weight"))
    assert len(calls) == 2 * 3  # right, the sum, last
    calls.clear()
    shared.outputs_of(copy_graph_module(module))
    assert calls == []
    shared.outputs_of(changed(module, "first.weight"))
    assert len(calls) == 2 * len(whole)


def test_a_copy_of_the_same_numbers_is_no_change(
    module: fx.GraphModule, batches: list[Tensor], calls: list[str]
) -> None:
    shared = SharedPrefixes(module, batches)
    calls.clear()
    shared.outputs_of(copy_graph_module(module, None, {"left.weight": module.get_parameter("left.weight").clone()}))
    assert calls == []


def test_another_shape_is_a_change(module: fx.GraphModule, batches: list[Tensor]) -> None:
    other = copy_graph_module(module, None, {"last.weight": torch.zeros(7, 4), "last.bias": torch.ones(7)})
    assert [outputs["logits"].shape[1] for outputs in SharedPrefixes(module, batches).outputs_of(other)] == [7, 7]
