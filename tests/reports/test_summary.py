import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kneepoint.reports import RunView, summary_lines
from kneepoint.reports.wording import short_id

WriteRun = Callable[..., Path]


def test_says_what_was_searched_and_what_came_out(run_directory: Path) -> None:
    searched, front, knee, rung = summary_lines(RunView.read(run_directory))
    assert "The search for digits-resnet measured 86 trials of" in searched
    assert "(2 failed)" in searched
    assert "sampler kneepoint and seed 0" in searched
    assert front == (
        "The front has 10 candidates and a hypervolume of 0.8123; all baselines together have 0.6912 (+17.5%)."
    )
    assert "lower than the teacher's 0.978" in knee
    assert "x faster on raspberry-pi-4b" in knee
    assert knee.endswith("x smaller.")
    assert "measured as ptq and as recovered: the ranks of their accuracy correlate by" in rung


def test_says_which_candidates_cannot_be_told_apart(make_run: WriteRun) -> None:
    def alike(content: dict[str, Any]) -> None:
        twin = next(one for one in content["fronts"]["all"] if one != content["knee"])
        content["alike"] = {"all": {content["knee"]: [twin], twin: [content["knee"]]}}

    view = RunView.read(make_run(front=alike))
    _, _, line, *_ = summary_lines(view)
    assert line.startswith("Of 10 candidates 2 cannot be told apart from another one by two standard errors")
    assert view.knee is not None
    assert line.endswith(f"from the knee {short_id(view.front.alike['all'][view.knee.id][0])} cannot.")


def test_says_how_many_trials_were_stopped(make_run: WriteRun) -> None:
    path = make_run()
    file = path / "trials.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    searched = [line for line in lines if line["baseline"] is None]
    for entry, samples in zip(searched, (64, 128, 256), strict=False):
        entry["samples"] = samples
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert (
        "3 trials were stopped as soon as the front surely dominated them, after 128 validation samples"
        in "\n".join(summary_lines(RunView.read(path)))
    )


def empty(content: dict[str, Any]) -> None:
    content.update(fronts={"all": []}, knee=None, candidates=[], baselines={}, teacher={}, hypervolume=0.0)


def test_an_empty_front(make_run: WriteRun) -> None:
    lines = summary_lines(RunView.read(make_run(front=empty)))
    assert len(lines) == 3
    assert lines[1].startswith("The front is empty")


def test_names_cannot_command_the_terminal(make_run: WriteRun) -> None:
    lines = summary_lines(RunView.read(make_run(front=lambda content: content.update(task="a\x1b[2J\nb"))))
    assert "a\\x1b[2J\\nb" in lines[0]
