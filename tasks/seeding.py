"""Random numbers that do not depend on what ran before."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

ORDER_SEED = 0  # every pass over a split for scores runs under it: a shuffling loader then gives one order


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds the global generators of torch, NumPy and Python, and restores all of them afterwards.

    A user's loader with ``shuffle=True`` or random augmentation then gives the same batches for the same seed,
    whatever ran before, and what runs after is not disturbed.
    """
    with generators_kept():
        _seed(seed)
        yield


@contextmanager
def generators_kept() -> Iterator[None]:
    """Restores the global generators afterwards."""
    before = GeneratorStates.now()
    try:
        yield
    finally:
        before.set()


@dataclass(frozen=True)
class GeneratorStates:
    """Where the global generators stand.

    Attributes:
        python: That of the module ``random``.
        numpy: NumPy's legacy one, which users' loaders draw from.
        torch: That of the CPU.
        cuda: That of the current CUDA device; None where the process has not used one.
    """

    python: tuple[Any, ...]
    numpy: tuple[Any, ...]
    torch: Tensor
    cuda: Tensor | None

    @classmethod
    def now(cls) -> GeneratorStates:
        """Where they stand now."""
        cuda = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
        legacy: Any = np.random.get_state()  # noqa: NPY002 - users' loaders draw from this one
        return cls(random.getstate(), legacy, torch.get_rng_state(), cuda)

    @classmethod
    def of_seed(cls, seed: int) -> GeneratorStates:
        """Where they stand after ``seed`` was planted in all of them."""
        with seeded(seed):
            return cls.now()

    def set(self) -> None:
        """Make the global generators stand here."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)  # noqa: NPY002 - users' loaders draw from this one
        torch.set_rng_state(self.torch)
        if self.cuda is not None:
            torch.cuda.set_rng_state(self.cuda)

    def tensors(self) -> dict[str, Tensor]:
        """The states as tensors, for a file that holds nothing else."""
        version, words, gauss = self.python
        _, keys, position, has_gauss, cached = self.numpy
        found = {
            "python": torch.tensor([version, *words]),
            "python_gauss": torch.tensor(math.nan if gauss is None else gauss, dtype=torch.float64),
            "numpy": torch.tensor([*keys.tolist(), position, has_gauss]),
            "numpy_gauss": torch.tensor(cached, dtype=torch.float64),
            "torch": self.torch.clone(),
        }
        return found if self.cuda is None else {**found, "cuda": self.cuda.clone()}

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor]) -> GeneratorStates:
        """The inverse of ``tensors``.

        Raises:
            KeyError: One of them is missing.
        """
        version, *words = tensors["python"].tolist()
        gauss = float(tensors["python_gauss"])
        *keys, position, has_gauss = tensors["numpy"].tolist()
        numpy = ("MT19937", np.array(keys, dtype=np.uint32), position, has_gauss, float(tensors["numpy_gauss"]))
        python = (version, tuple(words), None if math.isnan(gauss) else gauss)
        return cls(python, numpy, tensors["torch"].clone(), tensors.get("cuda"))


def digest_seed(*parts: str | int) -> int:
    """A seed in [0, 2**63) that depends on ``parts`` alone: the same in every process and on every machine."""
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - the widest seed it takes
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(seed)
