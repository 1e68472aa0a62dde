"""Which channels of a group matter: the usual criteria of structured pruning, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal, get_args

import torch
from torch import Tensor

from kneepoint.spaces.channel_flow import Layout
from kneepoint.spaces.network import Network
from kneepoint.spaces.tracing import operator_name
from kneepoint.tasks.errors import SpaceError, nearest

Importance = Literal["group_norm", "l1", "l2", "bn_scale", "taylor", "lamp"]
IMPORTANCES: tuple[Importance, ...] = get_args(Importance)
Tensors = Mapping[str, Tensor]
Scores = dict[str, Tensor]
"""For every group, a float64 score a channel; the larger the more important."""
_SMALL = 1e-12


def rank_channels(
    network: Network,
    tensors: Tensors,
    importance: Importance = "group_norm",
    gradients: Iterable[Tensors] | None = None,
) -> dict[str, Tensor]:
    """Channels of every group from most to least important.

    Rankings are nested: what stays at a quarter also stays at a half. Channels of equal importance stay in their order.

    Args:
        network: Whose groups to rank.
        tensors: Full-size values of the network's weights and biases, by name: its own, or those of the network with
            BatchNorm folded, so that its gain counts. ``bn_scale`` reads that gain itself, under its own name.
        importance: The criterion; :func:`channel_scores` defines them.
        gradients: For ``taylor``: one mapping a batch, of the loss by ``tensors``, under the same names.

    Raises:
        SpaceError: If the criterion is unknown, or ``taylor`` is given no gradients.
    """
    scores = channel_scores(network, tensors, importance, gradients)
    return {group: torch.argsort(score, descending=True, stable=True) for group, score in scores.items()}


def channel_scores(
    network: Network,
    tensors: Tensors,
    importance: Importance = "group_norm",
    gradients: Iterable[Tensors] | None = None,
) -> Scores:
    """How important every channel of every group is. The arguments are those of :func:`rank_channels`.

    With W_l[c] what weight l has of channel c, sums over l taken over the weights of c's group:

    - ``group_norm``: sum of ||W_l[c]||^2 / mean over d of ||W_l[d]||^2, over weights that write or read the channel
      (DepGraph's group norm; Fang et al., CVPR 2023, section 3.3).
    - ``l1``: sum of |W_l[c]|_1 over the weights that write the channel (Li et al., ICLR 2017).
    - ``l2``: the same with squares: the norm of the filters (He et al., "Soft filter pruning", IJCAI 2018).
    - ``bn_scale``: sum of |gamma[c]| over the BatchNorms behind the channel (Liu et al., "Network slimming", ICCV 2017,
      section 3); by ``group_norm`` in a group without BatchNorm.
    - ``taylor``: mean over batches of (sum of g * w over the weights and biases that write the channel)^2, g being the
      gradient of the loss: the first-order change of the loss without the channel, squared (Molchanov et al., CVPR
      2019, equation 8).
    - ``lamp``: sum of ||W_l[c]||^2 / sum of those ||W_l[d]||^2 that are not smaller, over the weights that write the
      channel: the score of Lee et al. (ICLR 2021, equation 3), of filters instead of weights. A layer's largest filter
      scores 1, so that scores compare across layers.

    Raises:
        SpaceError: If the criterion is unknown, or ``taylor`` is given no gradients.
    """
    if importance not in IMPORTANCES:
        raise SpaceError(f"unknown importance {importance!r}; {nearest(str(importance), IMPORTANCES)}")
    if importance == "taylor":
        if gradients is None:
            raise SpaceError("importance='taylor' needs the gradients of the loss by the weights; none were given")
        return _taylor(network, tensors, gradients)
    if importance == "bn_scale":
        return _gain(network, tensors)
    return _sum(network, tensors, *_WEIGHT_CRITERIA[importance])


def best_channels(ranking: Mapping[str, Tensor], counts: Mapping[str, int]) -> dict[str, Tensor]:
    """Sorted indices of the ``counts[group]`` most important channels of each group."""
    return {group: ranking[group][:count].sort().values for group, count in counts.items()}


# --- criteria ----------------------------------------------------------------------------------------------------


def _relative(norms: Tensor) -> Tensor:
    return norms / norms.mean().clamp_min(_SMALL)


def _share_of_the_larger(norms: Tensor) -> Tensor:
    order = torch.argsort(norms, descending=True, stable=True)
    scores = torch.empty_like(norms)
    scores[order] = norms[order] / torch.cumsum(norms[order], 0).clamp_min(_SMALL)
    return scores


def _as_it_is(norms: Tensor) -> Tensor:
    return norms


_WEIGHT_CRITERIA: Mapping[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], bool]] = {
    "group_norm": (torch.square, _relative, True),
    "l1": (torch.abs, _as_it_is, False),
    "l2": (torch.square, _as_it_is, False),
    "lamp": (torch.square, _share_of_the_larger, False),
}
"""What is summed over a channel's elements, how a weight's sums are scaled, and whether readers count."""


def _sum(
    network: Network,
    tensors: Tensors,
    measure: Callable[[Tensor], Tensor],
    scale: Callable[[Tensor], Tensor],
    readers: bool,
) -> Scores:
    scores = _zeros(network)
    for name, axes in _weight_axes(network, readers).items():
        values = measure(tensors[name].detach().double())
        for axis in axes:
            for group, sums in _per_channel(values, axis, network.flow.parameters[name][axis]):
                scores[group] += scale(sums)
    return scores


def _gain(network: Network, tensors: Tensors) -> Scores:
    scores = _sum(network, tensors, *_WEIGHT_CRITERIA["group_norm"])
    gains = _zeros(network)
    seen: set[str] = set()
    for name in _gains(network):
        for group, sums in _per_channel(tensors[name].detach().double().abs(), 0, network.flow.parameters[name][0]):
            gains[group] += sums
            seen.add(group)
    return {group: gains[group] if group in seen else score for group, score in scores.items()}


def _taylor(network: Network, tensors: Tensors, gradients: Iterable[Tensors]) -> Scores:
    total, batches = _zeros(network), 0
    for batch in gradients:
        change = _zeros(network)
        for name, axis, layout in _written(network, batch):
            product = tensors[name].detach().double() * batch[name].double()
            for group, sums in _per_channel(product, axis, layout):
                change[group] += sums
        total = {group: score + change[group].square() for group, score in total.items()}
        batches += 1
    if not batches:
        raise SpaceError("importance='taylor' needs gradients of at least one batch; there was none")
    return {group: score / batches for group, score in total.items()}


# --- channels of tensors -----------------------------------------------------------------------------------------


def _zeros(network: Network) -> Scores:
    return {group: torch.zeros(size, dtype=torch.float64) for group, size in network.groups.items()}


def _weight_axes(network: Network, readers: bool) -> dict[str, list[int]]:
    """For every weight, the axis of the channels it writes, or all of its axes."""
    axes: dict[str, list[int]] = {}
    for operation in network.operations:
        if operation.weight:
            every = range(len(network.flow.parameters[operation.weight]))
            written = 1 if operation.kind in ("conv_transpose", "embedding") else 0
            axes[operation.weight] = list(every) if readers else [written]
    return axes


def _written(network: Network, present: Tensors) -> Iterator[tuple[str, int, Layout]]:
    """Weights and biases of ``present``, with the axis of the channels that they write and its layout."""
    for weight, (axis,) in _weight_axes(network, readers=False).items():
        layout = network.flow.parameters[weight][axis]
        stem, dot, _ = weight.rpartition(".weight")
        bias = f"{stem}.bias" if dot else f"{weight}_bias"  # as folding BatchNorm names it
        yield from ((name, place, layout) for name, place in ((weight, axis), (bias, 0)) if name in present)


def _gains(network: Network) -> list[str]:
    """Names of the gains of all BatchNorms."""
    norms = [node for node in network.graph_module.graph.nodes if operator_name(node) == "batch_norm"]
    gains = [node.args[1] for node in norms]
    return list(dict.fromkeys(str(gain.target) for gain in gains if gain is not None and gain.op == "get_attr"))


def _per_channel(values: Tensor, axis: int, layout: Layout) -> Iterator[tuple[str, Tensor]]:
    """Sums of every channel's values along ``axis``, for each segment of the axis that belongs to a group."""
    sums = values.sum(dim=[dim for dim in range(values.dim()) if dim != axis]) if values.dim() > 1 else values
    offset = 0
    for segment in layout:
        size = segment.channels * segment.repeat
        if segment.group is not None:
            yield segment.group, sums[offset : offset + size].view(segment.channels, -1).sum(dim=1)
        offset += size
