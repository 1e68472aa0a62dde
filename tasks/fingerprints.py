"""Which problem a run belongs to: a digest of the network's state and its validation data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from kneepoint.tasks.batches import as_pair, leaves
from kneepoint.tasks.seeding import ORDER_SEED, seeded


def fingerprint(model: nn.Module, batches: Iterable[Any], label: str) -> str:
    """SHA-256 over the state of ``model``, the samples of ``batches`` in any order, and ``label``; 64 hex digits."""
    digest = hashlib.sha256(label.encode())
    for name, value in model.state_dict().items():
        if isinstance(value, Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(_rows(value.unsqueeze(0))[0])
    samples: list[bytes] = []
    with seeded(ORDER_SEED):
        for batch in batches:
            samples.extend(_sample_digests(as_pair(batch, "validation")))
    for sample in sorted(samples):
        digest.update(sample)
    return digest.hexdigest()


def _sample_digests(pair: tuple[Any, Any]) -> list[bytes]:
    """The SHA-256 of each (input, target) of a batch, or of the whole batch where a part is shared by its samples."""
    columns = [_rows(leaf) for part in pair for leaf in leaves(part)]
    if len({len(column) for column in columns}) > 1:
        columns = [[b"".join(column)] for column in columns]
    return [hashlib.sha256(b"".join(row)).digest() for row in zip(*columns, strict=True)]


def _rows(tensor: Tensor) -> list[bytes]:
    """The bytes of each entry along dimension 0, of a tensor of any dtype; a scalar is one entry."""
    entries = tensor.detach().cpu().contiguous().reshape(tensor.shape if tensor.dim() else (1,))
    rows = entries.flatten(1) if entries.dim() > 1 else entries.unsqueeze(1)
    return [row.tobytes() for row in rows.view(torch.uint8).numpy()]
