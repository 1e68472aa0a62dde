"""Settings that every test shares."""

from __future__ import annotations

import os
import tempfile

import pytest
import torch

# What was calibrated on this machine is none of the tests' business; some list devices while they are collected.
os.environ["XDG_DATA_HOME"] = tempfile.mkdtemp(prefix="kneepoint-tests-")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Two threads that wait for each other on a busy machine are many times slower than one."""
    torch.set_num_threads(1)
