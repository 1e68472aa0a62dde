import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kneepoint.reports.run_view import PolicyEntry, RunView
from kneepoint.tasks.errors import RunError

WriteRun = Callable[..., Path]


def test_reads_the_three_files(run_directory: Path) -> None:
    view = RunView.read(str(run_directory))
    assert view.front.task == "digits-resnet"
    assert len(view.members()) == 10
    assert len(view.trials) == 102
    assert len(view.searched) == 86
    assert [trial.error for trial in view.failed][1] == "trial timed out"
    assert view.job["sampler"] == "kneepoint"
    assert view.job_text.startswith("task: digits.py:task")
    assert view.knee is not None
    assert view.knee.id == view.front.knee
    assert view.devices == ["raspberry-pi-4b", "x86-server"]


def test_members_come_best_quality_first(run_directory: Path) -> None:
    accuracies = [one.scores["accuracy"].value for one in RunView.read(run_directory).members()]
    assert accuracies == sorted(accuracies, reverse=True)


def test_a_device_has_a_front_of_its_own(run_directory: Path) -> None:
    view = RunView.read(run_directory)
    assert {one.id for one in view.members("x86-server")} == set(view.front.fronts["x86-server"])
    with pytest.raises(RunError, match=r"front for each device.*got 'x86-srver'.*did you mean 'x86-server'"):
        view.members("x86-srver")
    with pytest.raises(RunError, match="got 'all'"):
        view.members("all")


def test_baselines_leave_the_union_out(run_directory: Path) -> None:
    baselines = RunView.read(run_directory).baselines
    assert "all baselines" not in baselines
    assert len(baselines["random"]) == 8


@pytest.mark.parametrize(
    ("names", "quality"),
    [
        ([("size_mb", "minimize"), ("f1", "maximize"), ("accuracy", "maximize")], "accuracy"),
        ([("size_mb", "minimize"), ("f1", "maximize")], "f1"),
        ([("latency_ms@pi", "minimize"), ("perplexity", "minimize"), ("size_mb", "minimize")], "perplexity"),
        ([("size_mb", "minimize"), ("latency_ms@pi", "minimize")], "size_mb"),
    ],
)
def test_quality_is_what_costs_are_weighed_against(make_run: WriteRun, names: Any, quality: str) -> None:
    def front(content: dict[str, Any]) -> None:
        content["objectives"] = [{"name": name, "direction": way, "unit": None} for name, way in names]
        content["reference"] = {
            name: {"worst": 0.0, "ideal": 1.0} if way == "maximize" else {"worst": 1.0, "ideal": 0.0}
            for name, way in names
        }
        for candidate in content["candidates"]:
            candidate["scores"] = {name: {"value": 0.5, "error": None} for name, _ in names}

    view = RunView.read(make_run(front=front))
    assert view.quality.name == quality
    assert len(view.costs) == len(names) - 1


def test_what_a_policy_leaves_out_is_untouched(run_directory: Path) -> None:
    view = RunView.read(run_directory)
    teacher = view.baselines["teacher fp32"][0].policy
    assert set(view.bits(teacher).values()) == {32}
    assert len(view.bits(teacher)) == 18
    assert set(view.kept(teacher).values()) == {1.0}
    assert list(view.bits(teacher))[:3] == ["block1.conv1", "block1.conv2", "block2.conv1"]


def test_layers_come_in_natural_order(make_run: WriteRun) -> None:
    def records(log: list[dict[str, Any]]) -> None:
        for record in log:
            record["policy"]["layers"] = {f"layer{at}": {"weight_bits": 8, "activation_bits": 8} for at in (10, 9, 1)}

    def front(content: dict[str, Any]) -> None:
        for candidate in content["candidates"]:
            candidate["policy"]["layers"] = {}

    view = RunView.read(make_run(records=records, front=front))
    assert list(view.bits(view.trials[0].policy)) == ["layer1", "layer9", "layer10"]


def test_an_objective_by_its_name(run_directory: Path) -> None:
    view = RunView.read(run_directory)
    assert view.objective("latency_ms@raspberry-pi-4b").device == "raspberry-pi-4b"
    assert view.objective("size_mb").device is None
    with pytest.raises(RunError, match="did you mean 'size_mb'"):
        view.objective("size_mg")


@pytest.mark.parametrize("torn", [b'{"id": "12', b'{"id": "\xc3', b"\x00\x00\x00"])
def test_a_torn_last_line_is_ignored(make_run: WriteRun, torn: bytes) -> None:
    directory = make_run()
    with (directory / "trials.jsonl").open("ab") as file:
        file.write(torn)
    assert len(RunView.read(directory).trials) == 102


def test_a_whole_last_line_without_a_newline_counts(make_run: WriteRun) -> None:
    directory = make_run()
    path = directory / "trials.jsonl"
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))
    assert len(RunView.read(directory).trials) == 102


def test_a_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"a folder that kneepoint search wrote; '.*nowhere' is none: check the path"):
        RunView.read(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["front.json", "trials.jsonl", "job.yaml"])
def test_a_missing_file(make_run: WriteRun, name: str) -> None:
    directory = make_run()
    (directory / name).unlink()
    with pytest.raises(RunError, match=f"{name} is missing: .*kneepoint resume"):
        RunView.read(directory)


@pytest.mark.parametrize("schema", ["kneepoint.front/2", None, 7])
def test_another_schema(make_run: WriteRun, schema: Any) -> None:
    directory = make_run(front=lambda content: content.update(schema=schema))
    with pytest.raises(RunError, match=rf"has the schema 'kneepoint.front/1'; .* has {schema!r}: .*version"):
        RunView.read(directory)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, '{"schema": "kneepoint.front/1"}', "\xff"])
def test_a_front_that_is_no_front(make_run: WriteRun, text: str) -> None:
    directory = make_run()
    (directory / "front.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(RunError, match=r"front\.json"):
        RunView.read(directory)


def test_a_key_that_is_missing_in_the_front(make_run: WriteRun) -> None:
    directory = make_run(front=lambda content: content.pop("task"))
    with pytest.raises(RunError, match=r"front\.json, 'task': Field required.*kneepoint resume"):
        RunView.read(directory)


def break_score(content: dict[str, Any]) -> None:
    content["candidates"][3]["scores"]["accuracy"]["value"] = "0.9"


def break_error(content: dict[str, Any]) -> None:
    content["candidates"][3]["scores"]["accuracy"]["error"] = -1.0


def break_nan(content: dict[str, Any]) -> None:
    content["candidates"][3]["scores"]["accuracy"]["value"] = float("nan")


def break_keep(content: dict[str, Any]) -> None:
    content["candidates"][0]["policy"]["keep"] = {"block1": 1.5}


def break_knee(content: dict[str, Any]) -> None:
    content["knee"] = "no-such-id"


def break_front(content: dict[str, Any]) -> None:
    content["fronts"]["all"].append("ghost")


def break_all(content: dict[str, Any]) -> None:
    del content["fronts"]["all"]


def break_scores(content: dict[str, Any]) -> None:
    del content["candidates"][1]["scores"]["size_mb"]


def break_reference(content: dict[str, Any]) -> None:
    content["reference"]["size_mb"] = {"worst": 0.0, "ideal": 2.0}


def break_references(content: dict[str, Any]) -> None:
    del content["reference"]["size_mb"]


def break_ids(content: dict[str, Any]) -> None:
    content["candidates"].append(content["candidates"][0])


def break_names(content: dict[str, Any]) -> None:
    content["objectives"] = [content["objectives"][0]] * 2


@pytest.mark.parametrize(
    ("breaks", "message"),
    [
        (break_score, "candidates.3.scores.accuracy.value': .*number, got '0.9'"),
        (break_error, "candidates.3.scores.accuracy.error.*greater than or equal to 0, got -1.0"),
        (break_nan, "candidates.3.scores.accuracy.value': .*finite number, got nan"),
        (break_keep, "candidates.0.policy.keep.block1': .*less than or equal to 1, got 1.5"),
        (break_knee, "'no-such-id' is not one"),
        (break_front, "'ghost' is not one"),
        (break_all, "fronts has the key 'all'"),
        (break_scores, "a score for every objective; '.*' lacks 'size_mb'"),
        (break_reference, r"ideal of 'size_mb' is better than its worst \(minimize\); got worst=0.0, ideal=2.0"),
        (break_references, "every objective has a reference; 'size_mb' has none"),
        (break_ids, "distinct ids"),
        (break_names, "distinct names"),
    ],
)
def test_a_front_with_something_wrong(make_run: WriteRun, breaks: Any, message: str) -> None:
    with pytest.raises(RunError, match=message) as caught:
        RunView.read(make_run(front=breaks))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{torn", "line 4: Invalid JSON"),
        ('{"id": "x"}', "line 4, 'policy_id': Field required"),
        ("[1]", "line 4: Input should be an object"),
        ("NaN", "line 4"),
    ],
)
def test_a_malformed_line_before_the_last(make_run: WriteRun, line: str, message: str) -> None:
    directory = make_run()
    path = directory / "trials.jsonl"
    lines = path.read_text().splitlines()
    lines[3] = line
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(RunError, match=rf"trials\.jsonl, {message}.*remove the line.*kneepoint resume"):
        RunView.read(directory)


def test_a_malformed_last_line_that_was_written_whole_is_an_error(make_run: WriteRun) -> None:
    directory = make_run()
    with (directory / "trials.jsonl").open("a") as file:
        file.write("{torn\n")
    with pytest.raises(RunError, match="line 103"):
        RunView.read(directory)


def test_no_trials_yet(make_run: WriteRun) -> None:
    directory = make_run()
    (directory / "trials.jsonl").write_text("")
    assert RunView.read(directory).trials == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a", "holds \\['a'\\]"),
        ("", "holds None"),
        ("a: [", "does not parse"),
        ("!!python/object/apply:os.system ['true']", "does not parse"),
        ("a: \x01", "does not parse"),
        ("[" * 5000, "does not parse"),
    ],
)
def test_a_job_that_is_no_mapping(make_run: WriteRun, text: str, message: str) -> None:
    with pytest.raises(RunError, match=f"a job is a YAML mapping; .*job.yaml.*{message}.*restore"):
        RunView.read(make_run(job=text))


def test_a_job_that_is_no_text(make_run: WriteRun) -> None:
    directory = make_run()
    (directory / "job.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(RunError, match=r"UTF-8 text; .*job\.yaml"):
        RunView.read(directory)


def test_lone_surrogates_are_refused(make_run: WriteRun) -> None:
    directory = make_run()
    path = directory / "front.json"
    path.write_text(re.sub('"task": "[^"]*"', r'"task": "\\ud800"', path.read_text()))
    assert json.loads(path.read_text())["task"] == "\ud800"
    with pytest.raises(RunError, match=r"front\.json"):
        RunView.read(directory)


def test_residual_blocks_that_are_left_out_belong_to_the_architecture() -> None:
    policy = PolicyEntry.model_validate(
        {"student": "teacher", "keep": {"block:layer2.1": 0.0, "layer1.0": 0.5}, "layers": {}}
    )
    assert policy.architecture == "teacher without layer2.1"
