"""The figures of a run: quality against each cost, and the hypervolume over the trials.

plotly ships no type information, so a ``Figure`` is ``Any`` to a type checker; everything that goes into one is typed.
Texts in a figure are HTML to plotly: every name of the run is escaped before it becomes part of one.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from kneepoint.reports.axis_ranges import cost_range, is_logarithmic, quality_range
from kneepoint.reports.hypervolume import hypervolume_curve, nondominated
from kneepoint.reports.run_view import ALL_BASELINES, CandidateEntry, ObjectiveEntry, RunView, Scores, TrialEntry
from kneepoint.reports.wording import (
    number,
    objective_label,
    policy_text,
    printable,
    score_text,
    short_id,
    trouble_text,
)
from kneepoint.tasks.errors import RunError

FRONT_COLOR = "#3b82f6"
KNEE_COLOR = "#f59e0b"
TRIAL_COLORS = ("#8a94a6", "#4b8f8c", "#9a7fa8")
# Shape and colour both tell baselines apart; the colours read on light and dark paper.
BASELINE_MARKERS = (
    ("square", "#d55e00"),
    ("triangle-up", "#009e73"),
    ("triangle-down", "#cc79a7"),
    ("diamond", "#b8860b"),
    ("cross", "#7c6fd6"),
    ("x", "#c0392b"),
    ("pentagon", "#16a2b8"),
    ("hexagram", "#8d6e63"),
)


@dataclass(frozen=True)
class Layer:
    """One kind of mark in the figure of the front.

    Attributes:
        key: A name for scripts; it holds no text of the run.
        label: What the legend says, not yet escaped.
        symbol: The marker, in plotly's names.
        color: Its colour.
    """

    key: str
    label: str
    symbol: str
    color: str


def layers(view: RunView) -> list[Layer]:
    """What the figure of the front shows, in the order in which it is drawn."""
    fidelities = dict.fromkeys(trial.fidelity for trial in view.searched if not trial.failed)
    trials = [
        Layer(f"trial{at}", f"trial ({name})", "circle", TRIAL_COLORS[at % len(TRIAL_COLORS)])
        for at, name in enumerate(fidelities)
    ]
    baselines = []
    for at, name in enumerate(view.baselines):
        symbol, color = BASELINE_MARKERS[at % len(BASELINE_MARKERS)]
        # The second round of the same shapes is hollow.
        hollow = "-open" if at >= len(BASELINE_MARKERS) else ""
        baselines.append(Layer(f"baseline{at}", name, f"{symbol}{hollow}", color))
    return [*trials, *baselines, Layer("front", "front", "circle", FRONT_COLOR)]


def front_figure(view: RunView, cost: str | None = None) -> go.Figure:
    """Quality against cost: trials as dots, baselines, and the front with one standard error either way.

    The line through the front is what the front attains: the best quality at or below a cost. Members below it are on
    the front for another objective. The quality axis opens on the region of the front; hopeless trials lie outside it,
    where zooming out finds them.

    Args:
        view: The run.
        cost: The objective on the horizontal axis; None draws every cost beside the others.

    Returns:
        A ``plotly.graph_objects.Figure``; each trace carries its layer's key as ``meta`` and ids as ``customdata``.

    Raises:
        RunError: If the run has no objective called ``cost``, or has one objective alone.
    """
    costs = view.costs if cost is None else [view.objective(cost)]
    if not costs:
        raise RunError("a front is drawn over two objectives or more; this run has one: search again with a cost")
    figure = make_subplots(rows=1, cols=len(costs), horizontal_spacing=0.28 / max(4, len(costs)), shared_yaxes=False)
    for column, objective in enumerate(costs, start=1):
        _draw_panel(figure, _Panel(view, objective), column)
    figure.update_layout(
        template="none",
        width=None if len(costs) == 1 else 480 * len(costs),
        height=430,
        margin={"l": 64, "r": 16, "t": 16, "b": 44},
        legend={"orientation": "h", "yanchor": "top", "y": -0.2, "x": 0},
        hovermode="closest",
        font={"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 12},
    )
    return figure


@dataclass(frozen=True)
class _Panel:
    """One cost of a run against its quality."""

    view: RunView
    cost: ObjectiveEntry

    @property
    def quality(self) -> ObjectiveEntry:
        return self.view.quality

    def x(self, records: Iterable[CandidateEntry]) -> list[float]:
        return [record.scores[self.cost.name].value for record in records]

    def y(self, records: Iterable[CandidateEntry]) -> list[float]:
        return [record.scores[self.quality.name].value for record in records]

    def trials(self, fidelity: str) -> list[tuple[TrialEntry, Scores]]:
        """The trials of one fidelity that have both scores, and their scores."""
        return [
            (trial, trial.scores)
            for trial in self.view.searched
            if trial.fidelity == fidelity
            and not trial.failed
            and trial.scores is not None
            and self.cost.name in trial.scores
            and self.quality.name in trial.scores
        ]

    def all_costs(self) -> list[float]:
        """Every value that the horizontal axis has to reach."""
        fidelities = {trial.fidelity for trial in self.view.searched}
        trials = [scores[self.cost.name].value for name in fidelities for _, scores in self.trials(name)]
        return [*self.x(self.view.front.candidates), *trials]

    def attained(self, members: Sequence[CandidateEntry]) -> list[CandidateEntry]:
        """The members that no other one beats in both objectives of this panel, in order of cost."""
        points = [
            (
                -self.cost.sign * one.scores[self.cost.name].value,
                -self.quality.sign * one.scores[self.quality.name].value,
            )
            for one in members
        ]
        return [members[index] for index in nondominated(points)]


def _draw_panel(figure: go.Figure, panel: _Panel, column: int) -> None:
    members = panel.view.members()
    for trace in _traces(panel, members):
        trace.showlegend = trace.showlegend is not False and column == 1
        figure.add_trace(trace, row=1, col=column)
    log = is_logarithmic(panel.all_costs())
    figure.update_xaxes(
        title={"text": html.escape(printable(objective_label(panel.cost)), quote=False), "standoff": 8},
        range=cost_range(panel.all_costs(), log),
        type="log" if log else "linear",
        dtick="D2" if log else None,
        minorloglabels="complete" if log else None,
        **_AXIS,
        row=1,
        col=column,
    )
    figure.update_yaxes(
        title={"text": html.escape(printable(objective_label(panel.quality)), quote=False), "standoff": 8},
        range=quality_range(panel.view),
        **_AXIS,
        row=1,
        col=column,
    )
    if panel.view.knee is not None:
        _point_out_knee(figure, panel, panel.view.knee, log, column)


_AXIS: Mapping[str, object] = {
    "showline": False,
    "zeroline": False,
    "gridcolor": "rgba(128, 128, 128, 0.22)",
    "automargin": True,
    "exponentformat": "none",
}


def _point_out_knee(figure: go.Figure, panel: _Panel, knee: CandidateEntry, log: bool, column: int) -> None:
    """An arrow from the side where nothing can be: cheaper and better than the front."""
    cost = knee.scores[panel.cost.name].value
    figure.add_annotation(
        x=math.log10(cost) if log else cost,
        y=knee.scores[panel.quality.name].value,
        text="<b>knee</b>",
        showarrow=True,
        arrowhead=0,
        arrowwidth=1.5,
        arrowcolor=KNEE_COLOR,
        standoff=8,
        ax=38 * panel.cost.sign,
        ay=-34 * panel.quality.sign,
        row=1,
        col=column,
    )


def _traces(panel: _Panel, members: Sequence[CandidateEntry]) -> list[Any]:
    """The traces of a panel from the bottom up."""
    found = layers(panel.view)
    fidelities = list(dict.fromkeys(trial.fidelity for trial in panel.view.searched if not trial.failed))
    trials = [_trial_trace(panel, *pair) for pair in zip(found, fidelities, strict=False)]
    baselines = found[len(fidelities) : -1]
    marks = [_baseline_trace(panel, *pair) for pair in zip(baselines, panel.view.baselines.values(), strict=True)]
    return [*trials, *marks, _attained_trace(panel, members), _front_trace(panel, members, found[-1])]


def _trial_trace(panel: _Panel, layer: Layer, fidelity: str) -> Any:
    pairs = panel.trials(fidelity)
    return go.Scatter(
        x=[scores[panel.cost.name].value for _, scores in pairs],
        y=[scores[panel.quality.name].value for _, scores in pairs],
        **_marks(layer, size=5, opacity=0.5),
        customdata=[trial.id for trial, _ in pairs],
        hovertext=[_hover(panel.view, trial, scores, layer.label) for trial, scores in pairs],
    )


def _baseline_trace(panel: _Panel, layer: Layer, candidates: Sequence[CandidateEntry]) -> Any:
    texts = [
        _hover(panel.view, one, one.scores, layer.label + ("" if one.feasible else f" ({trouble_text(one)})"))
        for one in candidates
    ]
    return go.Scatter(
        x=panel.x(candidates),
        y=panel.y(candidates),
        **_marks(layer, size=10, opacity=0.95),
        customdata=[one.id for one in candidates],
        hovertext=texts,
    )


def _attained_trace(panel: _Panel, members: Sequence[CandidateEntry]) -> Any:
    """The steps through what the front attains in this panel: at a cost, the quality of the best member so far."""
    attained = panel.attained(members)
    return go.Scatter(
        x=panel.x(attained),
        y=panel.y(attained),
        mode="lines",
        line={"color": FRONT_COLOR, "width": 2, "shape": "hv" if panel.cost.sign < 0 else "vh"},
        hoverinfo="skip",
        showlegend=False,
        meta="front",
    )


def _front_trace(panel: _Panel, members: Sequence[CandidateEntry], layer: Layer) -> Any:
    knee = [one is panel.view.knee for one in members]
    trace = go.Scatter(
        x=panel.x(members),
        y=panel.y(members),
        **_marks(layer, size=9, opacity=1.0),
        error_x=_error_bars(one.scores[panel.cost.name].error for one in members),
        error_y=_error_bars(one.scores[panel.quality.name].error for one in members),
        customdata=[one.id for one in members],
        hovertext=[
            _hover(panel.view, one, one.scores, "knee of the front" if at else "front")
            for one, at in zip(members, knee, strict=True)
        ],
    )
    if any(knee):
        trace.marker.symbol = ["star" if one else layer.symbol for one in knee]
        trace.marker.size = [18 if one else 9 for one in knee]
        trace.marker.color = [KNEE_COLOR if one else layer.color for one in knee]
    return trace


def _marks(layer: Layer, size: int, opacity: float) -> dict[str, Any]:
    """What every trace of markers has in common."""
    return {
        "name": html.escape(printable(layer.label), quote=False),
        "legendgroup": layer.key,
        "meta": layer.key,
        "mode": "markers",
        "marker": {"symbol": layer.symbol, "size": size, "color": layer.color, "opacity": opacity},
        "hoverinfo": "text",
    }


def _error_bars(errors: Iterable[float | None]) -> dict[str, Any]:
    return {
        "type": "data",
        "array": [error or 0.0 for error in errors],
        "color": "rgba(59, 130, 246, 0.45)",
        "thickness": 1.2,
        "width": 0,
    }


def _hover(view: RunView, record: TrialEntry | CandidateEntry, scores: Scores, kind: str) -> str:
    """The text of a point: what it is, its policy, its scores."""
    values = [f"{one.name} {score_text(scores[one.name])}" for one in view.objectives if one.name in scores]
    lines = [f"{short_id(record.id)}, {kind}", policy_text(view, record.policy), *values, f"fidelity {record.fidelity}"]
    first, *rest = (html.escape(printable(line), quote=False) for line in lines)
    return "<br>".join([f"<b>{first}</b>", *rest])


def hypervolume_figure(view: RunView) -> go.Figure:
    """The hypervolume after each trial of the search, with that of all baselines together as a level to beat.

    Returns:
        A ``plotly.graph_objects.Figure``.
    """
    curve = hypervolume_curve(view)
    baselines = view.front.baselines.get(ALL_BASELINES)
    figure = go.Figure(
        go.Scatter(
            x=list(range(1, len(curve) + 1)),
            y=curve,
            mode="lines",
            name="the search",
            line={"color": FRONT_COLOR, "width": 2.5, "shape": "hv"},
            hovertemplate="after %{x} trials: %{y:.4f}<extra></extra>",
        )
    )
    if baselines is not None:
        _draw_level(figure, baselines.hypervolume, f"all baselines {number(baselines.hypervolume)}")
    figure.update_layout(
        template="none",
        height=320,
        margin={"l": 64, "r": 16, "t": 16, "b": 44},
        showlegend=False,
        font={"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 12},
    )
    figure.update_xaxes(title={"text": "trials of the search", "standoff": 8}, rangemode="tozero", **_AXIS)
    figure.update_yaxes(title={"text": "hypervolume", "standoff": 8}, rangemode="tozero", **_AXIS)
    return figure


def _draw_level(figure: go.Figure, level: float, text: str) -> None:
    """A dashed level, named at its right end below the line, where the curve has long left it behind."""
    figure.add_hline(
        y=level,
        line={"color": BASELINE_MARKERS[0][1], "width": 1.5, "dash": "dash"},
        annotation={"text": text, "xanchor": "right", "yanchor": "top", "font": {"color": BASELINE_MARKERS[0][1]}},
    )
