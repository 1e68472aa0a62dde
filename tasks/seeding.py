"""Random numbers that do not depend on what ran before."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

ORDER_SEED = 0  # every pass over a split for scores runs under it: a shuffling loader then gives one order


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds the global generators of torch (CPU), NumPy and Python, and restores all three afterwards.

    A user's loader with ``shuffle=True`` or random augmentation then gives the same batches for the same seed,
    whatever ran before, and what runs after is not disturbed.
    """
    python_state = random.getstate()
    numpy_state = np.random.get_state()  # noqa: NPY002 - users' loaders draw from this one
    torch_state = torch.get_rng_state()
    try:
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 - the widest seed it takes
        torch.default_generator.manual_seed(seed)
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        torch.set_rng_state(torch_state)


def digest_seed(*parts: str | int) -> int:
    """A seed in [0, 2**63) that depends on ``parts`` alone: the same in every process and on every machine."""
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
