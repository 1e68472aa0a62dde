from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

from kneepoint.tasks.seeding import GeneratorStates, digest_seed, generators_kept, seeded


def draw() -> tuple[float, float, float]:
    return torch.rand(()).item(), float(np.random.rand()), random.random()  # noqa: NPY002, S311


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others() -> None:
    draws = []
    for seed in (7, 7, 8):
        with seeded(seed):
            draws.append(draw())
    assert draws[0] == draws[1]
    assert all(a != b for a, b in zip(draws[0], draws[2], strict=True))


def test_all_generators_go_on_as_if_nothing_had_happened() -> None:
    with seeded(1):
        draw()
        expected = draw()
    with seeded(1):
        draw()
        with seeded(2):
            draw()
        assert draw() == expected


def test_the_generators_are_restored_after_an_error() -> None:
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match="negative"), seeded(3):
        np.random.rand(int(torch.rand(()) - 2))  # noqa: NPY002 - a negative size
    assert torch.equal(torch.get_rng_state(), state)


def test_a_shuffling_loader_gives_the_same_batches_whatever_ran_before() -> None:
    loader = DataLoader(TensorDataset(torch.arange(20)), batch_size=5, shuffle=True)
    orders = []
    for _ in range(2):
        draw()
        with seeded(4):
            orders.append(torch.cat([batch for (batch,) in loader]).tolist())
    assert orders[0] == orders[1] != sorted(orders[0])


@given(st.lists(st.text() | st.integers(), max_size=4))
def test_a_digest_seed_is_a_valid_seed(parts: list[str | int]) -> None:
    seed = digest_seed(*parts)
    assert 0 <= seed < 2**63
    with seeded(seed):
        draw()


def test_a_digest_seed_tells_parts_apart() -> None:
    assert len({digest_seed("a", "b"), digest_seed("ab"), digest_seed("b", "a"), digest_seed(1), digest_seed("1")}) == 5


def test_a_digest_seed_is_the_same_in_another_process() -> None:
    code = "from kneepoint.tasks.seeding import digest_seed; print(digest_seed('student', 3))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(printed) == digest_seed("student", 3)


def test_states_survive_being_tensors() -> None:
    with seeded(5):
        draw()
        random.gauss(0, 1)  # which keeps a second number for the next call, as NumPy's does
        np.random.randn()  # noqa: NPY002 - the generator that is kept
        tensors = GeneratorStates.now().tensors()
        expected = [draw(), random.gauss(0, 1), np.random.randn()]  # noqa: NPY002
    with generators_kept():
        GeneratorStates.of_tensors(tensors).set()
        assert [draw(), random.gauss(0, 1), np.random.randn()] == expected  # noqa: NPY002
    with seeded(5):
        state = GeneratorStates.now()
    assert all(
        torch.equal(a, b)
        for a, b in zip(state.tensors().values(), GeneratorStates.of_seed(5).tensors().values(), strict=True)
        if not a.isnan().any()
    )
