from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kneepoint.reports import RunView, hypervolume_curve
from kneepoint.reports.hypervolume import losses, nondominated

WriteRun = Callable[..., Path]
POINT = st.tuples(st.floats(0, 1), st.floats(0, 1))


def two_objectives(content: dict[str, Any]) -> None:
    content["objectives"] = [one for one in content["objectives"] if one["name"] in ("accuracy", "size_mb")]
    content["reference"] = {"accuracy": {"worst": 0.1, "ideal": 1.0}, "size_mb": {"worst": 2.0, "ideal": 0.0}}


def replaying(*trials: tuple[float, float, dict[str, Any]]) -> Callable[[list[dict[str, Any]]], None]:
    """Replaces the log by trials of (accuracy, size_mb, changes of the record)."""

    def replace(log: list[dict[str, Any]]) -> None:
        pattern = next(one for one in log if one["baseline"] is None)
        log[:] = [
            pattern
            | {
                "id": str(at),
                "scores": {"accuracy": {"value": a, "error": None}, "size_mb": {"value": s, "error": None}},
            }
            | changes
            for at, (a, s, changes) in enumerate(trials)
        ]

    return replace


def curve_of(make_run: WriteRun, *trials: tuple[float, float, dict[str, Any]]) -> list[float]:
    return hypervolume_curve(RunView.read(make_run(front=two_objectives, records=replaying(*trials))))


def test_known_areas(make_run: WriteRun) -> None:
    # Losses (1/3, 1/2), then (2/3, 1/4): the second adds a rectangle of 1/3 by 1/4.
    curve = curve_of(make_run, (0.7, 1.0, {}), (0.4, 0.5, {}))
    assert curve == pytest.approx([2 / 3 * 1 / 2, 2 / 3 * 1 / 2 + 1 / 3 * 1 / 4])


def test_points_beyond_the_reference_add_nothing(make_run: WriteRun) -> None:
    assert curve_of(make_run, (0.05, 0.1, {}), (0.9, 2.5, {}), (0.1, 2.0, {})) == [0.0, 0.0, 0.0]


def test_failures_and_proxies_repeat_the_value_before(make_run: WriteRun) -> None:
    failed = {"scores": None, "error": "boom"}
    curve = curve_of(make_run, (0.7, 1.0, {}), (0.0, 0.0, failed), (0.99, 0.01, {"fidelity": "proxy"}))
    assert curve == pytest.approx([1 / 3] * 3)


def test_baselines_do_not_count(make_run: WriteRun) -> None:
    assert curve_of(make_run, (0.7, 1.0, {}), (0.99, 0.01, {"baseline": "uniform"})) == pytest.approx([1 / 3])


def test_a_trial_that_lacks_a_score_has_no_losses(run_directory: Path) -> None:
    view = RunView.read(run_directory)
    trial = view.trials[0]
    assert trial.scores is not None
    assert losses(view, trial) is not None
    assert losses(view, trial.model_copy(update={"scores": {"accuracy": trial.scores["accuracy"]}})) is None


def test_the_curve_never_falls(run_directory: Path) -> None:
    curve = hypervolume_curve(RunView.read(run_directory))
    assert len(curve) == 86
    assert curve == sorted(curve)
    assert 0 < curve[-1] < 1


@given(st.lists(POINT, max_size=20))
def test_nondominated_keeps_exactly_what_nothing_beats(points: list[tuple[float, float]]) -> None:
    kept = [points[index] for index in nondominated(points)]
    beaten = {p for p in points if any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points)}
    assert sorted(kept) == sorted(set(points) - beaten)
    assert kept == sorted(kept)
