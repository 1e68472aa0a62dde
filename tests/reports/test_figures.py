import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kneepoint.reports import RunView, front_figure, hypervolume_figure
from kneepoint.reports.figures import BASELINE_MARKERS, layers
from kneepoint.tasks.errors import RunError

WriteRun = Callable[..., Path]
SIZE = "size_mb"


def traces(figure: Any, key: str) -> list[Any]:
    return [trace for trace in figure.data if trace.meta == key]


def test_every_cost_has_a_panel(run_directory: Path) -> None:
    view = RunView.read(run_directory)
    figure = front_figure(view)
    assert [figure.layout[f"xaxis{at}"].title.text for at in ("", 2, 3)] == [
        "latency_ms@raspberry-pi-4b, lower is better",
        "latency_ms@x86-server, lower is better",
        "size_mb (MB), lower is better",
    ]
    # One legend for all panels.
    assert sum(bool(trace.showlegend) for trace in figure.data) == len(layers(view))


def test_one_panel_holds_trials_baselines_and_the_front(run_directory: Path) -> None:
    view = RunView.read(run_directory)
    figure = front_figure(view, SIZE)
    line, front = traces(figure, "front")
    assert list(front.customdata) == [one.id for one in view.members()]
    assert list(front.error_y.array) == [one.scores["accuracy"].error for one in view.members()]
    assert set(front.error_x.array) == {0.0}  # sizes have no error
    assert front.marker.symbol.count("star") == 1
    assert front.customdata[front.marker.symbol.index("star")] == view.front.knee
    drawn = sum(len(trace.x) for at in (0, 1) for trace in traces(figure, f"trial{at}"))
    assert drawn == len([one for one in view.searched if not one.failed])
    assert len(traces(figure, "baseline7")[0].x) == 8
    assert line.mode == "lines"


def test_the_line_is_what_the_front_attains(run_directory: Path) -> None:
    line, _ = traces(front_figure(RunView.read(run_directory), SIZE), "front")
    assert list(line.x) == sorted(line.x)
    assert list(line.y) == sorted(line.y)
    assert line.line.shape == "hv"


def test_the_knee_is_pointed_out_where_it_is(run_directory: Path) -> None:
    view = RunView.read(run_directory)
    (note,) = front_figure(view, SIZE).layout.annotations
    assert view.knee is not None
    assert note.x == pytest.approx(math.log10(view.knee.scores[SIZE].value))
    assert note.y == view.knee.scores["accuracy"].value
    assert note.ax < 0 > note.ay


def test_points_tell_their_policy_on_hover(run_directory: Path) -> None:
    view = RunView.read(run_directory)
    _, front = traces(front_figure(view, SIZE), "front")
    text = front.hovertext[0]
    assert view.members()[0].id[:8] in text
    assert "bits, keeps" in text
    assert "accuracy 0.9" in text


def test_names_are_text_to_plotly(make_run: WriteRun) -> None:
    def front(content: dict[str, Any]) -> None:
        content["baselines"] = {
            f"<a href='x'>{name}" if name == "random" else name: entry for name, entry in content["baselines"].items()
        }

    figure = front_figure(RunView.read(make_run(front=front)), SIZE)
    (random,) = traces(figure, "baseline7")
    assert random.name.startswith("&lt;a href='x'&gt;")
    assert "<a" not in random.hovertext[0]


def test_more_baselines_than_shapes_are_hollow(make_run: WriteRun) -> None:
    def front(content: dict[str, Any]) -> None:
        some = content["baselines"]["random"]
        content["baselines"] = {f"number {at}": some for at in range(len(BASELINE_MARKERS) + 2)}

    found = [one.symbol for one in layers(RunView.read(make_run(front=front))) if one.key.startswith("baseline")]
    assert found[-2:] == ["square-open", "triangle-up-open"]
    assert len(set(found)) == len(found)


def test_an_unknown_cost(run_directory: Path) -> None:
    with pytest.raises(RunError, match="got 'size': did you mean 'size_mb'"):
        front_figure(RunView.read(run_directory), "size")


def test_a_run_with_one_objective_has_no_front_to_draw(make_run: WriteRun) -> None:
    view = RunView.read(make_run(front=lambda content: content.update(objectives=content["objectives"][:1])))
    with pytest.raises(RunError, match="over two objectives or more; this run has one"):
        front_figure(view)


def test_an_empty_front(make_run: WriteRun) -> None:
    def front(content: dict[str, Any]) -> None:
        content.update(fronts={"all": []}, knee=None)

    figure = front_figure(RunView.read(make_run(front=front)), SIZE)
    assert not figure.layout.annotations
    assert all(len(trace.x) == 0 for trace in traces(figure, "front"))


def test_the_hypervolume_over_the_trials(run_directory: Path) -> None:
    figure = hypervolume_figure(RunView.read(run_directory))
    assert list(figure.data[0].x) == list(range(1, 87))
    assert figure.layout.annotations[0].text == "all baselines 0.6912"
