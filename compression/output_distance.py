"""How far small changes of single layers move a network's outputs, for all layers at once, by gradients.

A change of a layer's output by d moves the predicted distribution by a KL divergence of d^T F d / 2 nats in second
order, F being the Fisher information of the output (Amari 1998; Martens 2020, section 5). F is the mean of g g^T over
gradients g of log p(y) by that output, with labels y drawn from the prediction itself, so one backward pass serves
every layer, and every change of it is one inner product a sample.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from kneepoint.compression.soft_targets import Head, heads_of
from kneepoint.compression.watching import in_signature_order
from kneepoint.spaces.tracing import attribute_of
from kneepoint.tasks.batches import leaves, transform
from kneepoint.tasks.seeding import seeded

MOST_HELD = 2**29
"""Bytes of values that are held for one backward pass; larger batches are cut into pieces."""


def output_distances(
    module: fx.GraphModule,
    others: Sequence[fx.GraphModule],
    pairs: Sequence[tuple[Any, Any]],
    names: Collection[str],
    seed: int,
    bytes_a_sample: int = 0,
) -> list[dict[str, float]]:
    """How far each of the nodes ``names``, computed as another network does, would move the outputs of ``module``.

    Args:
        module: Differentiable: floats, without quantizers.
        others: Networks with nodes of the same names, that compute them otherwise: on rounded weights, say.
        pairs: Batches of (inputs, targets).
        bytes_a_sample: Of all values of the network for one sample.
        names: Of nodes of ``module``; one that another network does not have is not changed there.
        seed: Of the drawn labels.

    Returns:
        For each of ``others`` the distance by node, as :func:`kneepoint.compression.soft_targets.soft_loss` of
        temperature 1 would have it: nats a prediction where targets are classes, else a mean squared error.
    """
    moved = [dict.fromkeys(names, 0.0) for _ in others]
    samples = 0
    size = max(1, MOST_HELD // max(1, bytes_a_sample))
    for number, (inputs, targets) in enumerate(piece for pair in pairs for piece in _pieces(pair, size)):
        with seeded(seed + number):
            taken = _Gradients.of(module, in_signature_order(module, inputs), targets, names)
        samples += taken.samples
        for found, other in zip(moved, others, strict=True):
            for name, value in taken.moved_by(other).items():
                found[name] += value
    return [{name: value / samples for name, value in found.items()} for found in moved]


def _pieces(pair: tuple[Any, Any], size: int) -> Iterator[tuple[Any, Any]]:
    """A batch in pieces of at most so many samples."""
    inputs, targets = pair
    for start in range(0, len(leaves(inputs)[0]), size):
        piece = itemgetter(slice(start, start + size))
        yield transform(piece, inputs), transform(piece, targets)


class _Gradients:
    """One batch: the values of all nodes, and the gradients of a drawn log-likelihood by those of some.

    Args:
        values: Of the network, by node.
        gradients: By node.
        samples: Of the batch.
    """

    def __init__(self, values: Mapping[str, Any], gradients: Mapping[str, Tensor], samples: int) -> None:
        self._values = values
        self._gradients = gradients
        self.samples = samples

    @classmethod
    def of(
        cls, module: fx.GraphModule, arguments: Sequence[Tensor], targets: Any, names: Collection[str]
    ) -> _Gradients:
        """Of a network on the inputs of one batch."""
        interpreter = _Recorder(module, frozenset(names))
        outputs = interpreter.run(*arguments)
        recorded = interpreter.recorded
        found = torch.autograd.grad(_drawn(outputs, targets), list(recorded.values()), allow_unused=True)
        taken = {name: value for name, value in zip(recorded, found, strict=True) if value is not None}
        values = {node.name: _detached(value) for node, value in interpreter.env.items()}
        return cls(values, taken, len(leaves(outputs)[0]))

    def moved_by(self, other: fx.GraphModule) -> dict[str, float]:
        """By node, the distance summed over samples if it computed what ``other`` does from this network's values."""
        local = _Local(other, self._values)
        found = {}
        with torch.no_grad():
            for node in other.graph.nodes:
                if node.name in self._gradients:
                    difference = local.value(node) - self._values[node.name]
                    first_order = (difference * self._gradients[node.name]).flatten(1).sum(dim=1)
                    found[node.name] = float(first_order.double().square().sum())
        return found


class _Recorder(fx.Interpreter):
    """Runs a network and lets gradients be taken by the values of some nodes."""

    def __init__(self, module: fx.GraphModule, names: Collection[str]) -> None:
        super().__init__(module, garbage_collect_values=False)
        self._names = names
        self.recorded: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self._names:
            if not value.requires_grad:
                value = value.detach().requires_grad_()
            self.recorded[n.name] = value
        return value


class _Local:
    """Single nodes of a network, computed from another's values: what is not in the other's graph is computed, too.

    Args:
        module: Whose nodes.
        values: The other's, by node.
    """

    def __init__(self, module: fx.GraphModule, values: Mapping[str, Any]) -> None:
        self._module = module
        self._values = values

    def value(self, node: fx.Node) -> Any:
        """Of a call."""
        args: Any = fx.map_arg(node.args, self._read)
        kwargs: Any = fx.map_arg(node.kwargs, self._read)
        return node.target(*args, **kwargs)  # type: ignore[operator]  # a traced graph calls functions alone

    def _read(self, node: fx.Node) -> Any:
        if node.op == "get_attr":
            return attribute_of(self._module, str(node.target))
        return self._values[node.name] if node.name in self._values else self.value(node)


def _drawn(outputs: Any, targets: Any) -> Tensor:
    """A scalar whose gradient by one sample has the outputs' metric for its second moment.

    Where targets are classes it is the log-likelihood of labels drawn from the prediction, scaled so that half its
    square counts a prediction once; else a sum with normal weights.
    """
    heads = heads_of(outputs, outputs, targets)
    total: Tensor = torch.stack([_drawn_of(head) for head in heads]).sum() * len(heads) ** -0.5
    return total


def _drawn_of(head: Head) -> Tensor:
    """The share of one output."""
    values = head.student
    if not head.classes:
        weighed: Tensor = (torch.randn_like(values) * values).sum() * (len(values) / values.numel()) ** 0.5
        return weighed
    rows: Tensor = F.log_softmax(values, dim=-1)
    rows = rows.flatten(0, -2) if head.counted is None else rows[head.counted]
    labels = torch.multinomial(rows.detach().exp(), 1)
    scale: float = (len(values) / (2 * max(1, len(rows)))) ** 0.5
    return rows.gather(1, labels).sum() * scale


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value
