"""A sum of contributions and a smooth rest, learned from settings whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from kneepoint.search.sampling.posterior import Codes, Floats, Posterior, Prior
from kneepoint.search.sampling.warps import RATIOS, SATURATING

COUNTS = (3, 4, 2, 4, 3)
STARTS = np.concatenate(([0], np.cumsum(COUNTS)))[:-1]


def settings(count: int, seed: int) -> Codes:
    random = np.random.default_rng(seed)
    return np.stack([random.integers(choices, size=count) for choices in COUNTS], axis=1)


def sums(codes: Codes, scale: float = 0.06) -> Floats:
    truth = np.random.default_rng(0).gamma(1.0, scale, size=sum(COUNTS))
    return np.asarray(truth[codes + STARTS].sum(axis=1))


def posterior(codes: Codes, losses: Floats, prior: Prior | None = None, error: float = 0.0) -> Posterior:
    return Posterior.of(COUNTS, prior or Prior.flat(COUNTS), codes, losses, np.full(len(losses), error))


def test_a_sum_is_learned_from_few_settings() -> None:
    codes, new = settings(30, 1), settings(50, 2)
    mean, spread = posterior(codes, sums(codes)).predict(new)
    assert mean == pytest.approx(sums(new), abs=0.05)
    assert (np.abs(mean - sums(new)) < 4 * spread).all()


@pytest.mark.parametrize(
    ("warp", "of"),
    [
        (SATURATING, lambda total: 1 - np.exp(-2 * total)),
        (RATIOS, lambda total: np.exp(3 * total - 4.0) / 10),
    ],
    ids=lambda entry: getattr(entry, "name", ""),
)
def test_the_scale_on_which_contributions_add_up_is_found(warp: object, of: object) -> None:
    codes = settings(60, 3)
    losses = of(sums(codes))  # type: ignore[operator]  # a function of the parameters above
    assert posterior(codes, losses).warp is warp


def test_what_the_sum_misses_is_learned_near_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def truth(codes: Codes) -> Floats:
        width = (1 + codes[:, 0]) / 3  # a narrower layer makes the others cheaper
        return np.asarray(sums(codes) * width)

    codes, new = settings(80, 4), settings(100, 5)
    model = posterior(codes, truth(codes))
    monkeypatch.setattr(Posterior, "_smoothed", lambda rough: rough)
    rough = posterior(codes, truth(codes))
    mean, spread = model.predict(new)
    assert np.abs(mean - truth(new)).mean() < 0.7 * np.abs(rough.predict(new)[0] - truth(new)).mean()
    assert np.mean(np.abs(mean - truth(new)) < 2 * spread) > 0.8


def test_measured_settings_are_known_and_others_less() -> None:
    codes = settings(12, 6)
    model = posterior(codes, sums(codes))
    known, _ = model.predict(codes)
    assert known == pytest.approx(sums(codes), abs=0.05)
    assert model.predict(codes)[1].mean() < model.predict(settings(40, 7))[1].mean()


def test_noise_is_not_learned_by_heart() -> None:
    codes = np.repeat(settings(1, 8), 20, axis=0)
    noisy = 0.5 + np.random.default_rng(0).normal(0, 0.1, 20)
    mean, spread = posterior(codes, noisy, error=0.1).predict(codes[:1])
    assert mean[0] == pytest.approx(noisy.mean(), abs=0.05)
    assert 0.01 < spread[0] < 0.1


def test_a_prior_tells_before_anything_is_measured_and_its_unit_does_not_matter() -> None:
    truth = np.random.default_rng(0).gamma(1.0, 0.06, size=sum(COUNTS))
    codes, new = settings(6, 9), settings(50, 10)
    told = Prior(1000 * truth, 1000 * truth + 1, np.ones(len(truth), np.bool_))
    informed, blind = posterior(codes, sums(codes), told), posterior(codes, sums(codes))
    off = [np.abs(model.predict(new)[0] - sums(new)).mean() for model in (informed, blind)]
    assert off[0] < off[1]


def test_draws_are_spread_as_the_contributions_are() -> None:
    codes = settings(15, 11)
    model = posterior(codes, sums(codes))
    drawn = model.draw(np.random.default_rng(0), 4000)
    assert drawn.mean(axis=0) == pytest.approx(model.mean, abs=0.05)
    assert drawn.shape == (4000, sum(COUNTS))
    again = model.draw(np.random.default_rng(0), 4000)
    assert (drawn == again).all()


def test_one_measurement_is_enough_to_go_on() -> None:
    codes = settings(1, 12)
    mean, spread = posterior(codes, np.array([0.4])).predict(settings(5, 13))
    assert np.isfinite(mean).all()
    assert (spread > 0).all()


def test_settings_that_contribute_the_same_are_no_trouble() -> None:
    """Differences of 1e-10 are rounding, and no distance."""
    codes = np.array([[2, 3, 1, 3, 2], [1, 2, 0, 2, 1], [0, 0, 0, 0, 0]])
    losses = np.exp(np.array([-0.2974897, -0.2974897, -0.09531018]))
    model = Posterior.of(COUNTS, Prior.flat(COUNTS), codes, losses, np.zeros(3), (RATIOS,))
    assert np.isfinite(model.draw(np.random.default_rng(0), 3)).all()
    assert np.isfinite(model.predict(settings(20, 14))).all()


@examples(deadline=None, max_examples=60)
@given(st.integers(1, 12), st.floats(1e-6, 0.95), st.floats(0.0, 0.9), st.integers(0, 1000))
def test_any_measurements_give_finite_beliefs(count: int, level: float, width: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    codes = settings(count, seed)
    losses = np.clip(level + width * (random.random(count) - 0.5), -0.2, 1.5)
    model = posterior(codes, losses, error=float(random.choice((0.0, 0.01))))
    mean, spread = model.predict(settings(10, seed + 1))
    assert np.isfinite(mean).all()
    assert (spread > 0).all()
    assert np.isfinite(model.draw(random, 2)).all()
