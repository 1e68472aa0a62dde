"""What every cut network must be equal to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kneepoint.spaces.masking import masked
from kneepoint.spaces.network import Network
from kneepoint.spaces.surgery import cut
from kneepoint.spaces.tracing import copy_graph_module, split_inputs
from kneepoint.tasks.batches import leaves


def assert_cut_equals_masked(network: Network, kept: Mapping[str, Tensor], batch: Any) -> None:
    """The network with the channels ``kept`` computes what the full one does with the others silenced."""
    args, kwargs = batch
    full_module = copy_graph_module(network.graph_module, None, masked(network, kept))
    with torch.no_grad():
        small, full = leaves(cut(network, kept)(*args, **kwargs)), leaves(full_module(*args, **kwargs))
    for ours, expected in zip(small, full, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def assert_every_group_may_go(network: Network, inputs: Any) -> None:
    """Each group alone, then all of them, cut to half, to the last channel and to the first."""
    batch = split_inputs(inputs)
    for groups in [*([group] for group in network.groups), list(network.groups)]:
        for some in (slice(1, None, 2), slice(-1, None), slice(0, 1)):
            kept = {group: torch.arange(network.groups[group])[some] for group in groups}
            assert_cut_equals_masked(network, kept, batch)
