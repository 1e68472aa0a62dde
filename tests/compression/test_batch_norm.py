from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from kneepoint.compression.batch_norm import fold, reestimate
from kneepoint.spaces.joint_space import JointSpace
from kneepoint.spaces.network import Network
from kneepoint.spaces.tracing import copy_graph_module, operator_name, tensors_of

SpaceOf = Callable[[str], JointSpace]


def outputs_of(space: JointSpace, module: nn.Module) -> list[Tensor]:
    outputs, _ = space.task.predict(module)
    return list(torch.utils._pytree.tree_leaves(outputs))


def test_the_folded_network_computes_the_same(name: str, space_of: SpaceOf) -> None:
    space = space_of(name)
    folded = fold(space.teacher, space.teacher.graph_module)
    for ours, expected in zip(outputs_of(space, folded), outputs_of(space, space.task.model), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_folding_leaves_no_batch_norm_but_the_one_in_front_of_a_layer(space_of: SpaceOf) -> None:
    network = space_of("vision").teacher
    folded = fold(network, network.graph_module)
    kinds = [operator_name(node) for node in folded.graph.nodes]
    assert kinds.count("batch_norm") == 1
    assert "dropout" not in kinds
    assert {"stem.bias", "depthwise.bias", "up.bias", "hidden.bias", "before.running_mean"} <= tensors_of(folded).keys()
    assert network.operation_of.keys() <= {node.name for node in folded.graph.nodes}


def test_a_weight_without_a_layer_gets_a_bias_beside_it(space_of: SpaceOf) -> None:
    network = space_of("functional").teacher
    assert "weight_bias" in tensors_of(fold(network, network.graph_module))


def test_folding_changes_nothing_it_was_given(space_of: SpaceOf) -> None:
    space = space_of("vision")
    before = {key: value.clone() for key, value in space.task.model.state_dict().items()}
    code = space.teacher.graph_module.code
    fold(space.teacher, space.teacher.graph_module)
    assert space.teacher.graph_module.code == code
    assert all(torch.equal(value, before[key]) for key, value in space.task.model.state_dict().items())


def test_given_values_are_folded_instead(space_of: SpaceOf) -> None:
    network = space_of("vision").teacher
    folded = fold(network, network.graph_module, {"norm2.running_mean": torch.full((8,), 3.0)})
    gain = torch.rsqrt(network.tensors()["norm2.running_var"] + 1e-5)
    assert torch.allclose(tensors_of(folded)["depthwise.bias"], -3.0 * gain)


def inputs(space: JointSpace) -> list[Any]:
    return [batch for batch, _ in space.task.train]


def test_statistics_are_those_of_the_data(space_of: SpaceOf) -> None:
    space = space_of("vision")
    module = space.teacher.graph_module
    measured = reestimate(module, inputs(space))
    images = torch.cat(inputs(space))
    stem = space.task.model.get_submodule("stem")(images)
    torch.testing.assert_close(measured["norm1.running_mean"], stem.mean((0, 2, 3)).detach(), rtol=1e-4, atol=1e-5)
    assert len(measured) == 2 * 5
    assert all(torch.isfinite(value).all() for value in measured.values())
    assert not any(value.is_inference() for value in measured.values())


def test_measuring_leaves_the_module_alone(space_of: SpaceOf) -> None:
    space = space_of("vision")
    before = {key: value.clone() for key, value in tensors_of(space.teacher.graph_module).items()}
    reestimate(space.teacher.graph_module, inputs(space))
    assert all(torch.equal(value, before[key]) for key, value in tensors_of(space.teacher.graph_module).items())


def test_a_single_sample_has_no_variance_and_is_left_out(space_of: SpaceOf) -> None:
    space = space_of("vision")
    module, batches = space.teacher.graph_module, inputs(space)
    with_tail = reestimate(module, [*batches, batches[0][:1]])
    assert all(torch.equal(value, with_tail[key]) for key, value in reestimate(module, batches).items())
    assert reestimate(module, [batches[0][:1]]) == {}


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.norm(x) + self.norm(x * 3 + 4))


def test_a_batch_norm_called_twice_averages_over_its_calls() -> None:
    network = Network(Twice().eval(), torch.randn(1, 3))
    x = torch.randn(64, 3)
    mean = reestimate(network.graph_module, [x])["norm.running_mean"]
    torch.testing.assert_close(mean, (x.mean(0) + (x * 3 + 4).mean(0)) / 2)


def test_without_batch_norm_nothing_is_measured(space_of: SpaceOf) -> None:
    space = space_of("text")
    assert reestimate(space.teacher.graph_module, inputs(space)) == {}


def test_keyword_batches_are_measured_by_name(space_of: SpaceOf) -> None:
    space = space_of("text")
    module = copy_graph_module(space.teacher.graph_module)
    assert reestimate(module, [dict(reversed(batch.items())) for batch in inputs(space)]) == {}
