from __future__ import annotations

import pytest
import torch

from kneepoint.compression.gap_schedule import ALPHAS, MEMORY, TEMPERATURES, GapSchedule


def test_temperature_and_alpha_fall_with_the_gap() -> None:
    schedule = GapSchedule()
    assert schedule(torch.tensor(1.0)) == pytest.approx((TEMPERATURES[1], ALPHAS[1]))
    found = [schedule(torch.tensor(0.0)) for _ in range(300)]
    assert found == sorted(found, reverse=True)
    assert found[-1] == pytest.approx((TEMPERATURES[0], ALPHAS[0]), abs=1e-4)


def test_the_gap_is_a_running_mean() -> None:
    schedule = GapSchedule()
    schedule(torch.tensor(0.2))
    assert float(schedule.gap) == pytest.approx(MEMORY + (1 - MEMORY) * 0.2)
