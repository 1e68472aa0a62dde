"""Scales of losses go forth and back, and their slopes are derivatives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kneepoint.search.sampling.warps import LEAST, WARPS, Warp

losses = st.floats(0.01, 0.95)


@pytest.mark.parametrize("warp", WARPS, ids=lambda warp: warp.name)
@given(loss=losses)
def test_there_and_back_is_the_same(warp: Warp, loss: float) -> None:
    assert float(warp.back(warp.forth(np.array([loss])))[0]) == pytest.approx(loss)


@pytest.mark.parametrize("warp", WARPS, ids=lambda warp: warp.name)
@given(loss=losses)
def test_slopes_are_derivatives(warp: Warp, loss: float) -> None:
    around = warp.forth(np.array([loss - 1e-6, loss + 1e-6]))
    assert float(warp.slope(np.array([loss]))[0]) == pytest.approx(float(np.diff(around)[0]) / 2e-6, rel=1e-4)


@pytest.mark.parametrize("warp", WARPS, ids=lambda warp: warp.name)
def test_what_lies_beyond_the_scale_stays_finite(warp: Warp) -> None:
    extremes = np.array([-1.0, 0.0, 1.0, 2.0])
    assert np.isfinite(warp.forth(extremes)).all()
    assert np.isfinite(warp.slope(extremes)).all()


@pytest.mark.parametrize("warp", WARPS, ids=lambda warp: warp.name)
def test_what_a_sum_misses_has_a_size(warp: Warp) -> None:
    assert (warp.sizes(np.array([-2.0, 0.0, 2.0])) >= LEAST).all()
