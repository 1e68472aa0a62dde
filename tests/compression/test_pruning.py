from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx

from kneepoint.compression.batch_norm import fold
from kneepoint.compression.distillation import Distillation
from kneepoint.compression.pruning import (
    among_kept,
    channel_ranking,
    expanded,
    kept_channels,
    loss_gradients,
    prune_in_stages,
    ranker,
    stages,
    train_pruned,
)
from kneepoint.spaces.joint_space import JointSpace
from kneepoint.spaces.network import Network
from kneepoint.spaces.policy import LayerPolicy, Policy
from kneepoint.spaces.ranking import IMPORTANCES, Importance
from kneepoint.spaces.surgery import cut
from kneepoint.spaces.tracing import tensors_of
from kneepoint.tasks.errors import SpaceError

SpaceOf = Callable[[str], JointSpace]
TRAINING = Distillation(steps=3, learning_rate=1e-2)


def tensors(network: Network) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.tensors().items()}


def folded(network: Network) -> fx.GraphModule:
    return fold(network, network.graph_module, tensors(network))


@pytest.mark.parametrize("importance", IMPORTANCES)
def test_every_criterion_ranks_every_network(name: str, importance: Importance, space_of: SpaceOf) -> None:
    space = space_of(name)
    network, module = space.teacher, folded(space.teacher)
    ranking = channel_ranking(network, module, importance, gradients=loss_gradients(space.task, network, module, 0, 16))
    assert {group: len(order) for group, order in ranking.items()} == network.groups
    few, many = (
        kept_channels(network, Policy.build(keep=dict.fromkeys(network.groups, share)), ranking) for share in (0.3, 0.6)
    )
    assert all(set(few[group].tolist()) <= set(many[group].tolist()) for group in network.groups)


def test_gradients_are_those_of_the_tasks_loss(space_of: SpaceOf) -> None:
    space = space_of("vision")
    module = folded(space.teacher)
    found = list(loss_gradients(space.task, space.teacher, module, 0, samples=16))
    assert len(found) == 2  # batches of 8
    inputs, targets = next(iter(space.task.train))
    weight = tensors_of(module)["head.weight"].requires_grad_()
    (expected,) = torch.autograd.grad(space.task.loss(module(inputs), targets), weight)
    weight.requires_grad = False
    assert torch.allclose(found[0]["head.weight"], expected, atol=1e-6)
    assert {"stem.weight", "stem.bias"} <= set(found[0])


def test_groups_that_left_with_a_block_are_passed_over(space_of: SpaceOf) -> None:
    network = space_of("vision").teacher
    ranking = channel_ranking(network, folded(network))
    (block,) = network.blocks
    policy = Policy.build(keep={f"block:{block}": 0.0, "late": 0.5, "stem": 0.5})
    kept = kept_channels(network.without(policy.dropped_blocks), policy, ranking)
    assert {group: len(rows) for group, rows in kept.items()} == {"late": 3, "stem": 4}


def test_stages_go_from_coarse_to_fine_by_equal_shares() -> None:
    policy = Policy.build({"width": 0.5}, {"a": 0.125, "b": 0.5, "block:c": 0.0}, {"a": LayerPolicy.of_bits(4)})
    first, second, last = stages(policy, 3)
    assert first.keep_of == pytest.approx({"a": 0.5, "b": 0.5 ** (1 / 3)})
    assert second.keep_of == pytest.approx({"a": 0.25, "b": 0.5 ** (2 / 3)})
    assert last is policy
    for stage in (first, second):
        assert stage.student == policy.student
        assert stage.dropped_blocks == {"c"}
        assert not stage.layers
    assert stages(policy, 1) == [policy]


@pytest.mark.parametrize("steps", [0, -1, 1.5, True])
def test_there_is_at_least_one_stage(steps: int) -> None:
    with pytest.raises(SpaceError, match="pruning takes 1 step or more; got"):
        stages(Policy.build(), steps)


def test_channels_that_went_stay_away() -> None:
    ranking = {"a": torch.tensor([3, 0, 2, 1]), "b": torch.tensor([1, 0])}
    ordered = among_kept(ranking, {"a": torch.tensor([1, 2])})
    assert ordered["a"].tolist() == [2, 1, 3, 0]
    assert ordered["b"].tolist() == [1, 0]


def test_expanding_undoes_cutting(name: str, network: Network) -> None:
    del name
    kept = {group: torch.arange(size)[::2] for group, size in network.groups.items()}
    small = cut(network, kept)
    wide = expanded(network, kept, tensors_of(small))
    assert all(wide[key].shape == value.shape for key, value in network.tensors().items() if key in wide)
    again = cut(network, kept, {**network.tensors(), **wide})
    assert all(torch.equal(value, tensors_of(small)[key]) for key, value in tensors_of(again).items())
    gone = [key for key, value in wide.items() if value.shape != tensors_of(small)[key].shape]
    assert all((wide[key] == 0).sum() >= wide[key].numel() - tensors_of(small)[key].numel() for key in gone)


def test_stages_train_in_between_and_keep_fewer_of_the_same_channels(space_of: SpaceOf) -> None:
    space = space_of("vision")
    network, before = space.teacher, tensors(space.teacher)
    policy = Policy.build(keep=dict.fromkeys(network.groups, 0.25))
    seen: list[int] = []

    def progress(stage: int) -> None:
        seen.append(stage)

    seed, rank = 3, ranker(space.task, network, "taylor", 0)
    kept, values = prune_in_stages(space.task, network, before, policy, 3, rank, TRAINING, seed, progress)
    coarse, _ = prune_in_stages(space.task, network, before, stages(policy, 3)[0], 1, rank, TRAINING, seed)
    assert seen == [0, 1]
    assert {group: len(rows) for group, rows in kept.items()} == network.channels(policy)
    assert all(set(rows.tolist()) <= set(coarse[group].tolist()) for group, rows in kept.items())
    assert not torch.equal(values["head.weight"], before["head.weight"])
    assert all(torch.equal(value, before[key]) for key, value in network.tensors().items())
    again, same = prune_in_stages(space.task, network, before, policy, 3, rank, TRAINING, seed)
    assert all(torch.equal(rows, again[group]) for group, rows in kept.items())
    assert all(torch.equal(value, same[key]) for key, value in values.items())
    inputs, _ = next(iter(space.task.train))
    assert cut(network, kept, values)(inputs).isfinite().all()


def test_one_stage_is_plain_pruning(space_of: SpaceOf) -> None:
    space = space_of("vision")
    network, before = space.teacher, tensors(space.teacher)
    policy = Policy.build(keep=dict.fromkeys(network.groups, 0.5))
    kept, values = prune_in_stages(
        space.task, network, before, policy, 1, ranker(space.task, network, "group_norm", 0), TRAINING, 0
    )
    plain = kept_channels(network, policy, channel_ranking(network, folded(network), "group_norm", before))
    assert all(torch.equal(rows, plain[group]) for group, rows in kept.items())
    assert all(value is before[key] for key, value in values.items())


def test_a_pruned_network_trains_with_its_batch_norm(space_of: SpaceOf) -> None:
    space = space_of("vision")
    network, before = space.teacher, tensors(space.teacher)
    kept = {group: torch.arange(size // 2) for group, size in network.groups.items()}
    after = train_pruned(space.task, network, kept, before, TRAINING, 0)
    assert before.keys() == after.keys()
    weight, mean = after["stem.weight"], after["norm1.running_mean"]
    assert not torch.equal(weight[:4], before["stem.weight"][:4])
    assert not torch.equal(mean[:4], before["norm1.running_mean"][:4])
    assert bool((weight[4:] == 0).all() and (mean[4:] == 0).all())
    assert all(torch.equal(value, before[key]) for key, value in network.tensors().items())
