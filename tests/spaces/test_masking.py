from __future__ import annotations

from collections.abc import Callable

import torch

from kneepoint.spaces.masking import masked
from kneepoint.spaces.network import Network

NetworkOf = Callable[[str], Network]


def test_weights_are_zero_where_they_read_what_goes_and_only_there(network_of: NetworkOf) -> None:
    network = network_of("residual")
    tensors = masked(network, {"a": torch.tensor([1, 4])})
    assert tensors["b.weight"].abs().sum(dim=(0, 2, 3)).nonzero().flatten().tolist() == [1, 4]
    before = network.tensors()
    assert [name for name, value in tensors.items() if not torch.equal(value, before[name])] == ["b.weight"]


def test_a_transposed_convolution_reads_along_the_first_axis(network_of: NetworkOf) -> None:
    tensors = masked(network_of("unet"), {"down2": torch.tensor([0, 7])})
    assert tensors["up.weight"].abs().sum(dim=(1, 2, 3)).nonzero().flatten().tolist() == [0, 7]
