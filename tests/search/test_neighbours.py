"""Steps of a parameter stay within its distribution, and near."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from kneepoint.search import neighbours
from kneepoint.search.neighbours import neighbour

DISTRIBUTIONS: list[BaseDistribution] = [
    IntDistribution(0, 3),
    IntDistribution(-5, 7, step=3),
    IntDistribution(1, 1000, log=True),
    FloatDistribution(-1.0, 1.0),
    FloatDistribution(1e-6, 10.0, log=True),
    FloatDistribution(0.0, 1.0, step=0.1),
    CategoricalDistribution(("a", "b", None)),
]


@given(st.sampled_from(DISTRIBUTIONS), st.sampled_from([-1, 0, 1]), st.integers(0, 999))
def test_a_neighbour_lies_in_the_distribution(distribution: BaseDistribution, way: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    if isinstance(distribution, CategoricalDistribution):
        value = distribution.choices[0]
    else:
        assert isinstance(distribution, IntDistribution | FloatDistribution)
        value = distribution.low
    for _ in range(20):
        value = neighbour(value, distribution, rng, way)
        assert distribution._contains(distribution.to_internal_repr(value))


def test_a_way_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "JUMP", 0.0)
    rng = np.random.default_rng(0)
    for distribution, value in ((IntDistribution(0, 9), 5), (FloatDistribution(0.0, 1.0), 0.5)):
        assert all(neighbour(value, distribution, rng, 1) > value for _ in range(20))
        assert all(neighbour(value, distribution, rng, -1) < value for _ in range(20))
    assert {neighbour(5, IntDistribution(0, 9), rng) for _ in range(50)} == {4, 6}


def test_a_foreign_distribution_is_refused() -> None:
    class Other(BaseDistribution):
        def to_internal_repr(self, param_value_in_external_repr: object) -> float:
            return 0.0

        def single(self) -> bool:
            return False

        def _contains(self, param_value_in_internal_repr: float) -> bool:
            return True

    with pytest.raises(TypeError, match="a distribution is categorical, int or float"):
        neighbour(1, Other(), np.random.default_rng(0))
