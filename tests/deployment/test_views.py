from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from kneepoint.deployment.views import idle_views, keep_sizes, merge_views
from kneepoint.spaces.axis_shapes import RESHAPES
from kneepoint.spaces.tracing import copy_graph_module, operator_name, source_of, trace


class Views(nn.Module):
    def __init__(self, compute: Any) -> None:
        super().__init__()
        self.compute = compute

    def forward(self, x: Tensor) -> Any:
        return self.compute(x) * 1


def edit(graph: fx.Graph, may_merge: bool = True) -> None:
    idle = idle_views(graph)
    keep_sizes(graph)
    for node in idle:
        node.replace_all_uses_with(source_of(node))
    merge_views(graph, lambda node: sizes(node) if may_merge else None)


def sizes(node: fx.Node) -> list[int]:
    return [size if isinstance(size, int) else -1 for size in node.meta["val"].shape]


@pytest.mark.parametrize(
    ("compute", "left"),
    [
        (lambda x: x.reshape(-1, 4, 6), 0),
        (lambda x: x.unflatten(2, (2, 3)).unsqueeze(1), 1),
        (lambda x: x.reshape(-1, 6).reshape(-1, 2, 2, 6), 1),
        (lambda x: x.flatten(1).contiguous().unflatten(1, (2, 12)), 1),
        (lambda x: x.reshape(-1, 2, 2, 6).transpose(1, 3).reshape(-1, 24), 2),
        (lambda x: x.unsqueeze(1).expand(x.shape[0], 1, 4, 6).squeeze(1), 1),
    ],
)
def test_what_changes_nothing_goes_and_pairs_are_one(compute: Any, left: int) -> None:
    module = trace(Views(compute), torch.randn(2, 4, 6))
    edited = copy_graph_module(module, edit)
    assert sum(operator_name(node) in RESHAPES for node in edited.graph.nodes) == left
    for batch in (1, 3, 8):
        x = torch.randn(batch, 4, 6)
        torch.testing.assert_close(edited(x), module(x), rtol=0, atol=0)


def test_sizes_that_must_stay_open_are_not_written_down() -> None:
    module = trace(Views(lambda x: x.unflatten(2, (2, 3)).unsqueeze(1)), torch.randn(2, 4, 6))
    edited = copy_graph_module(module, lambda graph: edit(graph, may_merge=False))
    assert sum(operator_name(node) in RESHAPES for node in edited.graph.nodes) == 2


def test_an_expansion_names_the_sizes_it_changes() -> None:
    module = trace(Views(lambda x: x[:, :, None].expand(x.shape[0], 4, 3, 6)), torch.randn(2, 4, 6))
    edited = copy_graph_module(module, edit)
    (expansion,) = [node for node in edited.graph.nodes if operator_name(node) == "expand"]
    assert list(expansion.args[1]) == [-1, -1, 3, -1]
    torch.testing.assert_close(edited(torch.ones(3, 4, 6)), torch.ones(3, 4, 3, 6))
