"""Settings that every test shares."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Two threads that wait for each other on a busy machine are many times slower than one."""
    torch.set_num_threads(1)
