from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from kneepoint.tasks.fingerprints import fingerprint

INPUTS = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
CLASSES = (INPUTS[:, 0] > 0.3).long()
BATCHES = [(INPUTS[i : i + 16], CLASSES[i : i + 16]) for i in range(0, 50, 16)]


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))


def test_order_and_batches_do_not_count() -> None:
    shuffled = DataLoader(TensorDataset(INPUTS, CLASSES), batch_size=7, shuffle=True)
    assert fingerprint(network(), BATCHES, "a") == fingerprint(network(), shuffled, "a")
    assert len(fingerprint(network(), BATCHES, "a")) == 64


def test_weights_dtype_data_and_label_count() -> None:
    nudged = network()
    with torch.no_grad():
        next(nudged.parameters()).view(-1)[0] += 1e-6
    found = {
        fingerprint(network(), BATCHES, "a"),
        fingerprint(nudged, BATCHES, "a"),
        fingerprint(network().double(), BATCHES, "a"),
        fingerprint(network().bfloat16(), BATCHES, "a"),
        fingerprint(network(), BATCHES[:-1], "a"),
        fingerprint(network(), [(INPUTS, 1 - CLASSES)], "a"),
        fingerprint(network(), BATCHES, "b"),
    }
    assert len(found) == 7


def test_the_global_generator_does_not_count() -> None:
    class Augmented:
        def __iter__(self) -> object:
            return iter([(INPUTS + torch.randn(50, 4), CLASSES)])

    first = fingerprint(network(), Augmented(), "a")  # type: ignore[arg-type]
    torch.rand(3)
    assert fingerprint(network(), Augmented(), "a") == first  # type: ignore[arg-type]


def test_what_the_samples_of_a_batch_share_counts_too() -> None:
    def batch(shared: Tensor) -> list[tuple[dict[str, Tensor], Tensor]]:
        return [({"inputs": INPUTS, "shared": shared}, CLASSES)]

    shared = [torch.tensor(1.0), torch.tensor(2.0), torch.ones(1, 3)]
    assert len({fingerprint(network(), batch(value), "a") for value in shared}) == 3
