from __future__ import annotations

import pickle

import pytest

from kneepoint.tasks import metrics
from kneepoint.tasks.metric import Metric

READY = [value for value in vars(metrics).values() if isinstance(value, Metric)]


def test_everything_it_names_is_there() -> None:
    assert [name for name in metrics.__all__ if not hasattr(metrics, name)] == []
    assert len(READY) >= 12


@pytest.mark.parametrize("metric", READY, ids=lambda metric: metric.name)
def test_the_ready_metrics_pickle(metric: Metric) -> None:
    assert pickle.loads(pickle.dumps(metric)) == metric  # noqa: S301


@pytest.mark.parametrize("metric", READY, ids=lambda metric: metric.name)
def test_the_ready_metrics_know_their_ideal(metric: Metric) -> None:
    assert metric.ideal is not None
