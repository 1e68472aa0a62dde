from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kneepoint.compression.settings import CompressionSettings
from kneepoint.front_door import run_file
from kneepoint.job_file import default_threads, parse_job, read_job_file, resolve_job, resumable
from kneepoint.search.job import same_job
from kneepoint.search.workers.settings import Workers
from kneepoint.tasks.errors import DeviceError, InputError, JobError, ObjectiveError, RunError, SpaceError, TaskError

MINIMAL = {"task": "tiny_task.py:task", "objectives": ["accuracy"]}


def test_defaults_are_those_of_the_call(folder: Path) -> None:
    job = resolve_job(parse_job({**MINIMAL, "space": {"students": None}}, "job"), folder)
    assert job.trials == 100
    assert job.threads == default_threads() == 1
    assert job.space.students is None
    assert job.references["task"] == f"{(folder / 'tiny_task.py').resolve()}:task"


def test_overrides_reach_sections(folder: Path) -> None:
    job = read_job_file(folder / "job.yaml", ["trials=3", "training.student_steps=7", "space.weight_bits=[4, 8]"])
    assert (job.trials, job.training.student_steps, job.space.weight_bits) == (3, 7, [4, 8])


def test_formats_blocks_and_widths_of_a_space_survive_the_run_directory(folder: Path) -> None:
    space = {"weight_bits": [8, "w4a16", "w8a8-2:4"], "students": None, "blocks": True, "channel_multiple": 4}
    job = resolve_job(parse_job({**MINIMAL, "space": space}, "job"), folder)
    assert job.space.weight_bits == ("w4a16", "w8a8-2:4", 8)
    assert job.space.blocks
    assert job.space.teacher.channel_multiple == 4
    again = resolve_job(resumable(job.to_json()), folder)
    assert again.space.choices == job.space.choices
    assert again.space.formats == job.space.formats
    assert again.space.channel_multiple == 4


def test_full_training_is_recovery_for_longer_and_survives_the_run_directory(folder: Path) -> None:
    plain = resolve_job(parse_job(MINIMAL, "job"), folder)
    assert plain.settings.full is None
    job = resolve_job(parse_job({**MINIMAL, "training": {"recovery_steps": 5, "full_steps": 50}}, "job"), folder)
    assert job.settings.full == replace(job.settings.recovery, steps=50)
    assert resolve_job(resumable(job.to_json()), folder).settings == job.settings
    assert same_job(plain.to_json(), job.to_json()) == "training"


def test_every_way_to_distil_survives_the_run_directory(folder: Path) -> None:
    plain = resolve_job(parse_job(MINIMAL, "job"), folder)
    assert plain.settings == CompressionSettings()
    training = {
        "temperature": 4.0,
        "alpha": None,
        "float_share": 0.25,
        "distillation": {"hidden_hints": 0.5, "dynamic_weights": True, "precision": "float32", "accumulation": 2},
        "recovery_distillation": {"general_share": 0.5, "follow_gap": True, "warm_up": 0.0, "teacher_cache_mb": 0},
    }
    job = resolve_job(parse_job({**MINIMAL, "training": training}, "job"), folder)
    student, recovery = job.settings.student, job.settings.recovery
    assert (student.temperature, student.alpha, student.hidden_hints, student.accumulation) == (4.0, None, 0.5, 2)
    assert (recovery.temperature, recovery.general_share, recovery.follow_gap, recovery.warm_up) == (None, 0.5, True, 0)
    assert job.settings.float_share == 0.25
    assert resolve_job(resumable(job.to_json()), folder).settings == job.settings
    assert same_job(plain.to_json(), job.to_json()) == "training"


def test_workers_cluster_and_storage_survive_the_run_directory_and_are_no_part_of_the_job(folder: Path) -> None:
    plain = resolve_job(parse_job(MINIMAL, "job"), folder)
    more = {"workers": {"count": 3, "gpus": 0.5}, "ray": "auto", "storage": "postgresql://me@host/runs"}
    job = resolve_job(parse_job({**MINIMAL, **more}, "job"), folder)
    assert job.workers == Workers(3, gpus=0.5)
    again = resolve_job(resumable(job.to_json()), folder)
    assert (again.workers, again.ray, again.to_json()["storage"]) == (job.workers, "auto", job.to_json()["storage"])
    assert same_job(plain.to_json(), job.to_json()) is None


def test_a_key_of_workers_can_be_set_whatever_the_file_says(folder: Path) -> None:
    (folder / "workers.yaml").write_text("task: tiny_task.py:task\nobjectives: [accuracy]\nworkers: 2\n")
    job = read_job_file(folder / "workers.yaml", ["workers.retries=5"])
    assert resolve_job(job, folder).workers == Workers(2, retries=5)


def test_callbacks_are_names_or_references(folder: Path) -> None:
    (folder / "mine.py").write_text("import kneepoint\n\n\nclass Mine(kneepoint.Callback):\n    pass\n\n\nNOT = dict\n")
    job = resolve_job(parse_job({**MINIMAL, "callbacks": ["tensorboard", "mine.py:Mine"]}, "job"), folder)
    assert [type(entry).__name__ for entry in job.callbacks] == ["TensorBoardCallback", "Mine"]
    again = resolve_job(resumable(job.to_json()), Path("/"))
    assert [type(entry).__name__ for entry in again.callbacks] == ["TensorBoardCallback", "Mine"]
    with pytest.raises(JobError, match="unknown callback 'mlfow'; did you mean 'mlflow'"):
        resolve_job(parse_job({**MINIMAL, "callbacks": ["mlfow"]}, "job"), folder)
    with pytest.raises(JobError, match=r"mine.py:NOT must be or make a kneepoint.Callback; got dict"):
        resolve_job(parse_job({**MINIMAL, "callbacks": ["mine.py:NOT"]}, "job"), folder)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"workers": {"cuont": 2}}, "unknown key 'workers"),
        ({"objectivs": []}, "unknown key 'objectivs'; did you mean 'objectives'"),
        ({"space": {"weight_bit": [8]}}, "unknown key 'space.weight_bit'; did you mean 'weight_bits'"),
        ({"space": {"channel_multiple": 0}}, "space.channel_multiple: Input should be greater than or equal to 1"),
        ({"space": {"blocks": "some"}}, "space.blocks: Input should be a valid boolean; got 'some'"),
        ({"objectives": []}, "objectives: List should have at least 1 item"),
        ({"trials": "many"}, "trials: Input should be a valid integer; got 'many'"),
        ({"training": {"alpha": 2.0}}, "training.alpha: Input should be less than or equal to 1"),
        ({"training": {"float_share": -1}}, "training.float_share: Input should be greater than or equal to 0"),
        (
            {"training": {"distillation": {"hiden_hints": 1.0}}},
            "unknown key 'training.distillation.hiden_hints'; did you mean 'hidden_hints'",
        ),
        (
            {"training": {"recovery_distillation": {"precision": "half"}}},
            "training.recovery_distillation.precision: Input should be 'auto', 'float32' or 'bfloat16'; got 'half'",
        ),
        (
            {"training": {"distillation": {"accumulation": 0}}},
            "training.distillation.accumulation: Input should be greater than or equal to 1; got 0",
        ),
    ],
)
def test_a_wrong_key_or_value_is_named(change: dict[str, object], text: str) -> None:
    with pytest.raises(JobError, match=r"^job: ") as caught:
        parse_job({**MINIMAL, **change}, "job")
    assert text in str(caught.value)


def test_a_missing_key_is_named() -> None:
    with pytest.raises(JobError, match="the key 'task' is missing"):
        parse_job({"objectives": ["accuracy"]}, "job")


@pytest.mark.parametrize("override", ["trials", "=3", "task.deep=1", "trials=[1"])
def test_a_malformed_override_is_refused(folder: Path, override: str) -> None:
    with pytest.raises(JobError, match="--set"):
        read_job_file(folder / "job.yaml", [override])


@pytest.mark.parametrize("text", ["- a list", "a: [", "\x00"])
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "job.yaml").write_text(text)
    with pytest.raises(JobError, match=r"job\.yaml must"):
        read_job_file(tmp_path / "job.yaml")


@pytest.mark.parametrize(
    ("overrides", "kind", "text"),
    [
        (["task=tiny_task.py:nan_task"], TaskError, "NaN"),
        (["task=tiny_task.py:empty_task"], TaskError, "validation"),
        (["task=tiny_task.py:raising_task"], TaskError, "metric broke"),
        (["task=tiny_task.py:no_task"], JobError, "must return a kneepoint.Task; it returned int"),
        (["task=tiny_task.py:tusk"], JobError, "did you mean 'task'"),
        (["task=nowhere.py:task"], JobError, "there is no file"),
        (["objectives=[accuracy, latency_ms@raspbery-pi-4b]"], DeviceError, "did you mean 'raspberry-pi-4b'"),
        (["objectives=[acuracy]"], ObjectiveError, "did you mean 'accuracy'"),
        (["objectives=[accuracy, accuracy]"], ObjectiveError, "'accuracy' is there twice"),
        (["constraints=['accuracy_drop < lots']"], ObjectiveError, "a condition reads like"),
        (["constraints=['sise_mb <= 1']"], ObjectiveError, "did you mean 'size_mb'"),
        (["sampler=nsag2"], JobError, "did you mean 'nsga2'"),
        (["trials=0"], JobError, "trials is a whole number of at least 1"),
        (["minutes=-1"], JobError, "minutes is above 0"),
        (["threads=-1"], JobError, "threads is a whole number of at least 1"),
        (["space.weight_bits=[5]"], SpaceError, "weight_bits is one or more of"),
        (["space.keep=[0.0]"], SpaceError, "keep is one or more fractions"),
    ],
)
def test_bad_input_leaves_no_run_behind(
    folder: Path, tmp_path: Path, overrides: list[str], kind: type[InputError], text: str
) -> None:
    with pytest.raises(kind) as caught:
        run_file(folder / "job.yaml", tmp_path / "run", overrides, progress=False)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_constraint_nobody_meets_ends_the_run_and_names_the_nearest(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no candidate of 3 meets size_mb <= 1e-06; nearest: \w+ \(size_mb = "):
        run_file(
            folder / "job.yaml", tmp_path / "run", ["trials=3", "constraints=['size_mb <= 1e-06']"], progress=False
        )
    assert (tmp_path / "run" / "trials.jsonl").exists()


def test_a_directory_with_another_job_is_refused(folder: Path, finished: Path) -> None:
    before = (finished / "job.yaml").read_bytes()
    with pytest.raises(RunError, match=r"holds the run of another job \(seed differs\)"):
        run_file(folder / "job.yaml", finished, ["seed=1"], progress=False)
    assert (finished / "job.yaml").read_bytes() == before


def test_objectives_may_be_references(folder: Path) -> None:
    content = {**MINIMAL, "objectives": ["accuracy", "tiny_task.py:share_of_zero"], "space": {"students": None}}
    job = resolve_job(parse_job(content, "job"), folder)
    assert [(entry.name, entry.direction) for entry in job.objectives] == [
        ("accuracy", "maximize"),
        ("share_of_zero", "minimize"),
    ]
    assert resumable(job.to_json()).objectives == ["accuracy", f"{(folder / 'tiny_task.py').resolve()}:share_of_zero"]


def test_a_run_of_objects_cannot_be_resumed_from_its_file() -> None:
    with pytest.raises(JobError, match=r"call it with the same out= to resume"):
        resumable({"schema": "kneepoint.job/1", "task": None})
