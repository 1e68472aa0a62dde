"""Train and eval mode, put back as they were found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def module_mode(module: nn.Module, training: bool) -> Iterator[None]:
    """Puts ``module`` in train or eval mode and restores the mode of every submodule afterwards.

    Each submodule is restored by itself because some of a user's may be frozen in eval mode inside a training model.
    """
    before = [(part, part.training) for part in module.modules()]
    module.train(training)
    try:
        yield
    finally:
        for part, was_training in before:
            part.training = was_training
