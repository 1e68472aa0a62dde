"""A run in a few sentences: what was searched, what came out, what the knee gives up and gains."""

from __future__ import annotations

import math
import statistics

from kneepoint.reports.run_view import ALL, ALL_BASELINES, CandidateEntry, RunView
from kneepoint.reports.rungs import PROXY, Rung, rungs
from kneepoint.reports.wording import (
    counted,
    difference_text,
    gain_text,
    joined,
    number,
    policy_text,
    printable,
    ratio_text,
    score_text,
    short_id,
)


def summary_lines(view: RunView) -> list[str]:
    """The run in plain sentences, one a line: the search, the front, the knee, what fidelities say of each other.

    Names from the run stand in them as they are, but for characters that a terminal would obey, which are spelled out.
    """
    ladder = [_rung_line(view, one) for one in rungs(view)]
    lines = [_search_line(view), _raced_line(view), _front_line(view), _alike_line(view), _knee_line(view), *ladder]
    return [printable(line) for line in lines if line]


def _search_line(view: RunView) -> str:
    searched = view.searched
    failed = len(view.failed)
    settings = joined(
        [f"{key} {view.job[key]}" for key in ("sampler", "seed") if isinstance(view.job.get(key), str | int)]
    )
    minutes = sum(trial.seconds for trial in view.trials) / 60
    return (
        f"The search for {view.front.task} measured {counted(len(searched), 'trial')} of "
        f"{counted(len({trial.policy_id for trial in searched}), 'policy', 'policies')}"
        f"{f' ({failed} failed)' if failed else ''} on {joined([objective.name for objective in view.objectives])}"
        f"{f' with {settings}' if settings else ''}, in {minutes:.1f} minutes of trial time."
    )


def _raced_line(view: RunView) -> str:
    raced = [trial.samples for trial in view.searched if trial.samples is not None]
    if not raced:
        return ""
    return (
        f"{counted(len(raced), 'trial')} {'was' if len(raced) == 1 else 'were'} stopped as soon as the front surely "
        f"dominated them, after {counted(int(statistics.median(raced)), 'validation sample')} in the median."
    )


def _alike_line(view: RunView) -> str:
    """Which members measurement does not tell from the knee, and how many have such a twin."""
    alike = view.front.alike.get(ALL, {})
    if not alike:
        return ""
    twins = alike.get(view.knee.id, []) if view.knee else []
    named = f"; from the knee {joined([short_id(one) for one in twins])} cannot" if twins else ""
    return (
        f"Of {len(view.members())} candidates {len(alike)} cannot be told apart from another one by two standard "
        f"errors of whatever has an error{named}."
    )


def _front_line(view: RunView) -> str:
    front = view.front
    members = len(view.members())
    if not members:
        return "The front is empty: no trial that meets the constraints has ended."
    line = f"The front has {counted(members, 'candidate')} and a hypervolume of {number(front.hypervolume)}"
    baselines = front.baselines.get(ALL_BASELINES)
    if baselines is None:
        return f"{line}."
    gain = gain_text(front.hypervolume, baselines.hypervolume)
    return f"{line}; all baselines together have {number(baselines.hypervolume)}{f' ({gain})' if gain else ''}."


def _knee_line(view: RunView) -> str:
    knee = view.knee
    if knee is None:
        return ""
    score = knee.scores[view.quality.name]
    parts = [f"has {view.quality.name} {score_text(score)}{_drop(view, knee)}"]
    if gains := knee_gains(view, knee):
        parts.append(f"is {joined(gains)}")
    return f"The knee, {short_id(knee.id)} ({policy_text(view, knee.policy)}), {' and '.join(parts)}."


def _drop(view: RunView, knee: CandidateEntry) -> str:
    teacher = view.front.teacher.get(view.quality.name)
    if teacher is None:
        return ""
    return f", {difference_text(view.quality, teacher.value, knee.scores[view.quality.name].value)},"


def _rung_line(view: RunView, rung: Rung) -> str:
    name = view.quality.name
    order = f"the ranks of their {name} correlate by {rung.tau:.2f} (Kendall's tau)"
    if math.isnan(rung.tau):
        order = f"one of the two says nothing about the order of their {name}"
    if rung.lower == PROXY:
        return f"Against the sums of their layers' sensitivities, {rung.candidates} candidates were measured: {order}."
    changed = f"it changed by {view.quality.sign * rung.gain:+.4f} in the median"
    return f"{rung.candidates} candidates were measured as {rung.lower} and as {rung.upper}: {order}, and {changed}."


def knee_gains(view: RunView, knee: CandidateEntry) -> list[str]:
    """What the knee gains over the fp32 teacher, one phrase a cost that both have."""
    pairs = [(cost, view.front.teacher.get(cost.name), knee.scores[cost.name].value) for cost in view.costs]
    phrases = [ratio_text(cost, teacher.value, value) for cost, teacher, value in pairs if teacher is not None]
    return [phrase for phrase in phrases if phrase]
