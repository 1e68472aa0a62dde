"""Which channels of a group stay, in one step or in several with training between them.

Pruning in stages takes part of the channels, trains, ranks what is left by the trained weights, and goes on: the
rankings at large cuts then come from a network that has adapted to smaller ones (Han et al., NeurIPS 2015, section 3;
Molchanov et al., ICLR 2017, figure 1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor, fx, nn

from kneepoint.compression.batch_norm import fold
from kneepoint.compression.distillation import Distillation, distill
from kneepoint.spaces.network import Network, indices, varies
from kneepoint.spaces.policy import BLOCK, Policy
from kneepoint.spaces.ranking import Importance, best_channels, rank_channels
from kneepoint.spaces.surgery import cut, trainable
from kneepoint.spaces.tracing import copy_graph_module, tensors_of
from kneepoint.tasks.batches import as_pair, leaves
from kneepoint.tasks.errors import SpaceError
from kneepoint.tasks.seeding import seeded
from kneepoint.tasks.task import Task
from kneepoint.tasks.training import Progress

IMPORTANCE_SAMPLES = 512
"""Training samples that first-order importance is averaged over."""
Ranker = Callable[[Mapping[str, Tensor], fx.GraphModule], Mapping[str, Tensor]]
"""Ranks the channels of full-size values, given also the network folded with them."""
StageProgress = Callable[[int], Progress | None]
"""For a stage, counted from 0, what its training reports to."""


def channel_ranking(
    network: Network,
    folded: fx.GraphModule,
    importance: Importance = "group_norm",
    tensors: Mapping[str, Tensor] | None = None,
    gradients: Iterable[Mapping[str, Tensor]] | None = None,
) -> dict[str, Tensor]:
    """Channels of every group from most to least important, with BatchNorm's gain counted in.

    Args:
        network: Whose groups to rank.
        folded: The network with BatchNorm folded (full width).
        importance: One of :data:`kneepoint.spaces.ranking.IMPORTANCES`.
        tensors: The values before folding, by name, where ``bn_scale`` finds BatchNorm's gains; by default the
            network's own.
        gradients: For ``taylor``; those of :func:`loss_gradients`.

    Raises:
        SpaceError: If the criterion is unknown, or ``taylor`` is given no gradients.
    """
    known = {**network.tensors(), **(tensors or {}), **tensors_of(folded)}
    return rank_channels(network, known, importance, gradients)


def ranker(task: Task, network: Network, importance: Importance, seed: int) -> Ranker:
    """Ranks by a criterion, with the gradients it needs.

    Args:
        task: Gives the loss and the data of ``taylor``.
        network: Whose groups to rank.
        importance: One of :data:`kneepoint.spaces.ranking.IMPORTANCES`.
        seed: Governs which batches of the training data are drawn.
    """

    def rank(values: Mapping[str, Tensor], folded: fx.GraphModule) -> dict[str, Tensor]:
        gradients = loss_gradients(task, network, folded, seed) if importance == "taylor" else None
        return channel_ranking(network, folded, importance, values, gradients)

    return rank


def loss_gradients(
    task: Task, network: Network, folded: fx.GraphModule, seed: int, samples: int = IMPORTANCE_SAMPLES
) -> Iterator[dict[str, Tensor]]:
    """Gradients of the task's loss by the layers' weights and biases, a batch of training data at a time.

    Args:
        task: Gives the loss and the data.
        network: The structure of ``folded``.
        folded: The network with BatchNorm folded; left untouched.
        seed: Governs which batches come.
        samples: Batches are drawn until so many samples were seen.
    """
    state = tensors_of(folded)
    wanted = {name: state[name].detach().clone().requires_grad_() for name in _layer_tensors(network, folded)}
    module = copy_graph_module(folded, None, {name: value.detach() for name, value in state.items()} | wanted)
    with seeded(seed):
        batches = list(first_pairs(task.train, samples))
    for inputs, targets in batches:
        loss = task.loss(task.call(module, inputs), targets)
        found = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
        yield {name: value for name, value in zip(wanted, found, strict=True) if value is not None}


def kept_channels(network: Network, policy: Policy, ranking: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Sorted indices of the channels that ``policy`` keeps, for the groups of ``network`` it thins out."""
    counts = network.channels(policy)
    return best_channels(ranking, {group: counts[group] for group in policy.keep_of if group in counts})


# --- stages ------------------------------------------------------------------------------------------------------


def stages(policy: Policy, steps: int) -> list[Policy]:
    """Policies from coarse to fine, the last one ``policy`` itself.

    A kept fraction k is reached through k^(1/steps), k^(2/steps), ...: every stage takes the same share of what is
    left. Residual blocks go in the first stage. The stages before the last prune only: their layers are untouched.

    Args:
        policy: Where to arrive.
        steps: How many stages.

    Raises:
        SpaceError: If there is not at least one step.
    """
    if type(steps) is not int or steps < 1:
        raise SpaceError(f"pruning takes 1 step or more; got {steps!r}")
    gone = dict.fromkeys((BLOCK + name for name in policy.dropped_blocks), 0.0)
    thinned = [{group: share ** (step / steps) for group, share in policy.keep_of.items()} for step in range(1, steps)]
    return [*(Policy.build(dict(policy.student) or "teacher", gone | keep) for keep in thinned), policy]


def prune_in_stages(
    task: Task,
    network: Network,
    tensors: Mapping[str, Tensor],
    policy: Policy,
    steps: int,
    rank: Ranker,
    training: Distillation,
    seed: int,
    progress: StageProgress = lambda _: None,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Prune coarse, train, rank again, prune finer, and so on.

    The training between the stages is that of the float network with its BatchNorm; what follows the last cut
    (re-estimation, quantization, recovery) is left to the caller, as if it had been the only one.

    Args:
        task: Its model teaches, its training data is trained on.
        network: The structure, without the blocks that the policy leaves out.
        tensors: Full-size values to start from, by name.
        policy: Where to arrive.
        steps: How many stages; with 1 nothing is trained.
        rank: Ranks the channels before every cut; :func:`ranker` makes one.
        training: How the network is trained after every stage but the last.
        seed: Governs the training.
        progress: For every stage, what its training reports to.

    Returns:
        The channels to keep, by group, as sorted indices of the full network, each stage's among those of the one
        before; and full-size values to cut, of which those of channels that went are zero.
    """
    kept: dict[str, Tensor] = {}
    values = dict(tensors)
    *coarse, last = stages(policy, steps)
    for stage, target in enumerate(coarse):
        kept = _next_kept(network, target, values, rank, kept)
        values = train_pruned(task, network, kept, values, training, seed + stage, progress(stage))
    return _next_kept(network, last, values, rank, kept), values


def train_pruned(
    task: Task,
    network: Network,
    kept: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    training: Distillation,
    seed: int,
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """Train a float network of some channels, with its BatchNorm, which learns faster than what is left after folding.

    Args:
        task: Its model teaches, its training data is trained on.
        network: The full structure.
        kept: Sorted indices of the channels that are left, by group.
        tensors: Full-size values to start from, by name; left untouched.
        training: How it is trained.
        seed: Governs the training.
        progress: What it reports to.

    Returns:
        Full-size values, of which those of channels that went are zero.
    """
    small = trainable(cut(network, kept, _with_parameters(network, tensors)))
    distill(task, small, training, seed, progress)
    return {**tensors, **expanded(network, kept, tensors_of(small))}


def among_kept(ranking: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A ranking in which channels that went before come last, so that whatever is kept now was kept then."""
    ordered = dict(ranking)
    for group, rows in kept.items():
        stayed = torch.isin(ranking[group], rows)
        ordered[group] = torch.cat([ranking[group][stayed], ranking[group][~stayed]])
    return ordered


def expanded(network: Network, kept: Mapping[str, Tensor], small: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Values of a network cut to ``kept`` at their places in the full one, with zeros for the channels that went.

    Args:
        network: The full structure.
        kept: Sorted indices of the channels that the small network has, for every thinned group.
        small: The small network's values, by name; those of other names than the full network's are left out.
    """
    return {
        name: _expanded(small[name].detach(), name, network, kept) for name in network.flow.parameters if name in small
    }


def _next_kept(
    network: Network,
    policy: Policy,
    values: Mapping[str, Tensor],
    rank: Ranker,
    kept: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    folded = fold(network, network.graph_module, values)
    return kept_channels(network, policy, among_kept(rank(values, folded), kept))


def _with_parameters(network: Network, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The values as parameters where the network's own are, and training may change them."""
    own = network.tensors()
    return {
        name: nn.Parameter(value.detach()) if isinstance(own.get(name), nn.Parameter) else value
        for name, value in values.items()
    }


def _expanded(small: Tensor, name: str, network: Network, kept: Mapping[str, Tensor]) -> Tensor:
    result = small
    for axis, layout in enumerate(network.flow.parameters[name]):
        if varies(layout):
            shape = list(result.shape)
            shape[axis] = network.parameter_shapes[name][axis]
            rows = indices(layout, kept)
            result = result.new_zeros(shape).index_copy_(axis, rows, result)
    return result


def _layer_tensors(network: Network, folded: fx.GraphModule) -> list[str]:
    """Names of the weights and biases of every layer."""
    names = [
        str(source.target)
        for node in folded.graph.nodes
        if node.name in network.operation_of and network.operation_of[node.name].weight
        for source in node.all_input_nodes
        if source.op == "get_attr"
    ]
    return list(dict.fromkeys(names))


def first_pairs(batches: Iterable[object], samples: int) -> Iterator[tuple[object, object]]:
    """Whole batches until ``samples`` are reached."""
    seen = 0
    for batch in batches:
        if seen >= samples:
            return
        inputs, targets = as_pair(batch, "train")
        seen += len(leaves(inputs)[0])
        yield inputs, targets
