"""The tables of the HTML report. What comes from the run is escaped here, at the place where it is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from kneepoint.reports.run_view import ALL, ALL_BASELINES, CandidateEntry, PolicyEntry, RunView, Scores
from kneepoint.reports.strips import BIT_COLORS, bits_strip, kept_strip
from kneepoint.reports.wording import (
    column_decimals,
    counted,
    gain_text,
    mean_bits,
    mean_kept,
    number,
    printable,
    score_text,
    short_id,
    trouble_text,
)

_MOST_FAILURES = 200
_MOST_ALIKE = 3


def safe(text: str) -> str:
    """The text as HTML, in an element or an attribute."""
    return escape(printable(text))


def front_table_html(view: RunView) -> str:
    """The front, a row for each member, with its policy as strips that unfold into lists."""
    members = view.members()
    if not members:
        return "<p>The front is empty.</p>"
    tested = any(member.test for member in members)
    heads = [("candidate", ""), ("student", ""), *_POLICY_HEADS, *_score_heads(view)]
    heads += [(f"test {view.quality.name}", "number")] if tested else []
    alike = view.front.alike.get(ALL, {})
    heads += [("not told apart from", "")] if alike else []
    places = _places(view, members)
    rows = []
    for member in members:
        cells = [_id_cell(view, member), _cell(safe(member.policy.architecture)), *_policy_cells(view, member.policy)]
        cells += _score_cells(view, member.scores, places)
        cells += [_test_cell(view, member)] if tested else []
        cells += [_alike_cell(alike.get(member.id, []))] if alike else []
        cells.append(_cell(safe(member.fidelity)))
        rows.append(_row(member, "knee" if member is view.knee else "", cells))
    return _table([*heads, ("fidelity", "")], rows, "The front, best first") + _bits_legend(view, members)


def _alike_cell(others: Sequence[str]) -> str:
    """The first few of the members that two standard errors do not tell from this one."""
    shown = [f"<code>{safe(short_id(one))}</code>" for one in others[:_MOST_ALIKE]]
    more = len(others) - len(shown)
    return _cell(", ".join(shown) + (f" and {more} more" if more > 0 else ""))


def baselines_html(view: RunView) -> str:
    """The hypervolume of each set of baselines, and the candidates in them."""
    if not view.front.baselines:
        return "<p>This run has no baselines.</p>"
    return _volumes_table(view) + _baseline_candidates(view)


def _volumes_table(view: RunView) -> str:
    front = view.front.hypervolume
    rows = [_volume_row("the front of this run", len(view.members()), front, "")]
    for name, entry in sorted(view.front.baselines.items(), key=lambda item: -item[1].hypervolume):
        row = _volume_row(name, len(entry.ids), entry.hypervolume, gain_text(front, entry.hypervolume))
        rows.append(row.replace("<tr>", '<tr class="total">', 1) if name == ALL_BASELINES else row)
    heads = [("set", ""), ("candidates", "number"), ("hypervolume", "number"), ("gain of the front", "number")]
    return _table(heads, rows, "Hypervolumes over all objectives")


def _volume_row(name: str, count: int, volume: float, gain: str) -> str:
    cells = [
        _cell(safe(name)),
        _number_cell(str(count), count),
        _number_cell(number(volume), volume),
        _number_cell(gain, float(gain[:-1]) if gain else 0.0),
    ]
    return f"<tr>{''.join(cells)}</tr>"


def _baseline_candidates(view: RunView) -> str:
    pairs = [(name, one) for name, candidates in view.baselines.items() for one in candidates]
    places = _places(view, [one for _, one in pairs])
    rows = [
        _row(
            one,
            "" if one.feasible else "infeasible",
            [
                _cell(safe(name) + ("" if one.feasible else f' <span class="tag">{safe(trouble_text(one))}</span>')),
                _cell(safe(one.policy.architecture)),
                *_policy_cells(view, one.policy),
                *_score_cells(view, one.scores, places),
                _cell(safe(one.fidelity)),
            ],
        )
        for name, one in pairs
    ]
    heads = [("baseline", ""), ("student", ""), *_POLICY_HEADS, *_score_heads(view), ("fidelity", "")]
    table = _table(heads, rows, "Baseline candidates")
    return f"<details><summary>{counted(len(pairs), 'baseline candidate')}</summary>{table}</details>"


def failures_html(view: RunView) -> str:
    """The trials that failed and why; empty where none did."""
    failed = view.failed
    rows = [
        f"<tr>{_cell(f'<code>{safe(short_id(trial.id))}</code>')}{_cell(safe(trial.fidelity))}"
        f"{_number_cell(f'{trial.seconds:.1f}', trial.seconds)}{_cell(safe(trial.worker))}"
        f'<td class="reason">{safe(trial.error or "no scores")}</td></tr>'
        for trial in failed[:_MOST_FAILURES]
    ]
    if not rows:
        return ""
    heads = [("trial", ""), ("fidelity", ""), ("seconds", "number"), ("worker", ""), ("reason", "")]
    more = len(failed) - len(rows)
    note = f"<p>{more} more are in trials.jsonl.</p>" if more else ""
    return _table(heads, rows, "Failed trials") + note


def versions_html(versions: Iterable[tuple[str, str]]) -> str:
    """The libraries of the run and their versions; empty where the job names none."""
    rows = [f"<tr>{_cell(safe(name))}{_cell(f'<code>{safe(version)}</code>')}</tr>" for name, version in versions]
    return _table([("library", ""), ("version", "")], rows, "Versions") if rows else ""


_POLICY_HEADS = [("weight bits", ""), ("kept", "")]


def _score_heads(view: RunView) -> list[tuple[str, str]]:
    return [(objective.name, "number") for objective in view.objectives]


def _places(view: RunView, candidates: Sequence[CandidateEntry]) -> Mapping[str, int]:
    return {
        one.name: column_decimals([candidate.scores[one.name] for candidate in candidates]) for one in view.objectives
    }


def _id_cell(view: RunView, candidate: CandidateEntry) -> str:
    star = '<span class="star" title="knee of the front">★</span> ' if candidate is view.knee else ""
    title = safe(candidate.id) + (f", {safe(candidate.artifact)}" if candidate.artifact else "")
    return f'<td class="id">{star}<code title="{title}">{safe(short_id(candidate.id))}</code></td>'


def _policy_cells(view: RunView, policy: PolicyEntry) -> list[str]:
    bits, kept = view.bits(policy), view.kept(policy)
    bit_texts = {name: str(count) for name, count in bits.items()}
    kept_texts = {name: f"{100 * share:.0f}%" for name, share in kept.items()}
    return [
        _unfolding_cell(bits_strip(bits), mean_bits(view, policy), bit_texts),
        _unfolding_cell(kept_strip(kept), mean_kept(view, policy), kept_texts),
    ]


def _unfolding_cell(strip: str, mean: str, texts: Mapping[str, str]) -> str:
    """A strip beside its mean; unfolding it lists its values."""
    key = float(mean.rstrip("%"))
    if not strip:
        return f'<td data-key="{key}">{mean}</td>'
    listing = "".join(f"<li>{safe(name)} <b>{text}</b></li>" for name, text in texts.items())
    summary = f'<summary><span class="mean">{mean}</span>{strip}</summary>'
    return f'<td data-key="{key}"><details class="policy">{summary}<ul>{listing}</ul></details></td>'


def _score_cells(view: RunView, scores: Scores, places: Mapping[str, int]) -> list[str]:
    return [
        _number_cell(_score_html(score_text(scores[one.name], places[one.name])), scores[one.name].value)
        for one in view.objectives
    ]


def _score_html(text: str) -> str:
    value, _, error = text.partition(" ")
    return f'{value} <span class="error">{error}</span>' if error else value


def _test_cell(view: RunView, candidate: CandidateEntry) -> str:
    score = (candidate.test or {}).get(view.quality.name)
    return _number_cell(_score_html(score_text(score)), score.value) if score else _cell("")


def _bits_legend(view: RunView, candidates: Sequence[CandidateEntry]) -> str:
    """The colours of the strips, of the bit-widths that occur."""
    used = sorted({count for one in candidates for count in view.bits(one.policy).values()} & set(BIT_COLORS))
    keys = "".join(f'<span><i style="background:{BIT_COLORS[count]}"></i>{count} bits</span>' for count in used)
    note = "A cell is a layer, a bar a channel group; means count each once. Click a strip for its values."
    return f'<p class="note bits">{keys} {note}</p>'


def _row(candidate: CandidateEntry, kind: str, cells: Sequence[str]) -> str:
    return f'<tr class="{kind}" data-id="{safe(candidate.id)}">{"".join(cells)}</tr>'


def _cell(content: str) -> str:
    return f"<td>{content}</td>"


def _number_cell(content: str, key: float) -> str:
    return f'<td class="number" data-key="{key!r}">{content}</td>'


def _table(heads: Sequence[tuple[str, str]], rows: Sequence[str], caption: str) -> str:
    """A table that scrolls sideways on narrow screens; its heads sort it."""
    head = "".join(
        f'<th scope="col" class="{kind}"><button type="button">{_breakable(safe(name))}</button></th>'
        for name, kind in heads
    )
    return (
        f'<div class="scroll"><table class="sortable"><caption>{caption}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _breakable(name: str) -> str:
    """Puts the device of an objective on a line of its own: the column need not be wider than its numbers."""
    return name.replace("@", "<br>@", 1)
