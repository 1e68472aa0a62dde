from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from onnx import TensorProto, helper, save

from benchmarks import hardware_models, hardware_models_files, hardware_models_measuring
from benchmarks.hardware_models_bars import kernel_bars, network_bars
from benchmarks.hardware_models_diagnosis import diagnose
from benchmarks.hardware_models_files import MIXED, Case, Maker, cases, path_of, prepare
from benchmarks.hardware_models_judging import MODELS, by_group, facts, frame_of, worst
from benchmarks.hardware_models_measuring import PASSES, Measured, Results, Worker
from benchmarks.hardware_models_networks import SUBJECTS, rounded
from benchmarks.hardware_models_page import COLUMN, Findings, page
from benchmarks.hardware_models_prices import Price, Pricer
from kneepoint.deployment import to_onnx
from kneepoint.hardware_models import load_device, read_onnx
from kneepoint.hardware_models.calibrated import Calibration
from kneepoint.tasks.errors import InputError
from kneepoint.tasks.seeding import seeded

SMALL = "depthwise-tiny"
ROWS = {  # variant: low, measured, high, predicted
    "w32": (95, 100, 105, 104),
    "w8a8": (45, 50, 55, 60),
    "w32@0.5": (60, 70, 80, 70),
    "w8a8@0.5": (62, 72, 82, 65),
}


def price(predicted: float, macs: int = 1000) -> Price:
    return Price(predicted_us=predicted, coverage=1.0, roofline_us=2 * predicted, macs=macs, dominant="conv 100%")


def frame(networks: tuple[str, ...] = ("resnet18-96",)) -> pd.DataFrame:
    measured: dict[Case, Measured] = {}
    prices = {}
    for network in networks:
        for variant, (low, middle, high, predicted) in ROWS.items():
            case = Case(network, variant, 1, 1)
            measured[case] = Measured("", [low, middle, high])
            prices[case] = price(predicted, macs=10 * middle)
    return frame_of(measured, prices)


def test_every_family_has_sizes_settings_and_odd_widths() -> None:
    families = {subject.family for subject in SUBJECTS.values()}
    assert families == {"ResNet", "MobileNetV3", "EfficientNet", "ConvNeXt", "ViT", "BERT", "tiny"}
    for family in families:
        subjects = [subject for subject in SUBJECTS.values() if subject.family == family]
        assert len(subjects) >= 3
        assert {setting for subject in subjects for setting in subject.settings} >= {(1, 1)}
        assert all(MIXED in subject.variants for subject in subjects)
    assert {(case.threads, case.batch) for case in cases()} == {(1, 1), (2, 1), (1, 8), (2, 8)}
    assert 150 <= len(cases()) <= 260


def test_channels_are_rounded_as_mobilenets_round() -> None:
    assert [rounded(channels) for channels in (3, 16, 18, 36, 92)] == [8, 16, 24, 40, 96]


def test_a_case_is_named_by_all_that_it_is() -> None:
    assert Case(SMALL, "w8a8@0.5", 2, 8).name == "depthwise-tiny/w8a8@0.5/t2b8"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with some variants of one network; the others are not there for as long."""
    folder = tmp_path_factory.mktemp("files")
    few = replace(SUBJECTS[SMALL], variants=("w32", "w8a8", MIXED))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hardware_models_files, "SUBJECTS", {**SUBJECTS, SMALL: few})
        list(prepare(SMALL, folder))
        yield folder


def test_files_are_written_once(files: Path) -> None:
    assert len(list(files.iterdir())) == 3
    assert list(prepare(SMALL, files)) == []


def test_files_of_other_versions_go(files: Path) -> None:
    kept = set(files.iterdir())
    (files / f"{SMALL}-w8a8-0123456789ab.onnx").write_bytes(b"")
    hardware_models._remove_outdated(SMALL, files)
    assert set(files.iterdir()) == kept


def test_a_file_is_what_the_exporter_writes(files: Path) -> None:
    maker, variant = Maker(SMALL), "w8a8"
    with seeded(0):
        compressed = maker._compressor(variant).compress(maker.policy(variant))
        written = to_onnx(compressed, maker._task.example_input).SerializeToString()
    assert path_of(files, SMALL, variant).read_bytes() == written


def test_mixed_policies_have_odd_widths(files: Path) -> None:
    table = read_onnx(path_of(files, SMALL, MIXED))
    widths = {operator.weight.shape[0] for operator in table.operators if operator.weight}
    assert any(width % 2 for width in widths)


def test_a_network_costs_what_its_file_costs(files: Path) -> None:
    pricer = Pricer(load_device("x86-server"))
    chosen = cases((SMALL,))
    prices = dict(pricer.prices(chosen, files))
    assert list(pricer.differing(chosen, prices)) == []
    assert all(found.predicted_us == found.roofline_us > 0 < found.macs for found in prices.values())
    wrong = {**prices, chosen[0]: price(1.0)}
    assert list(pricer.differing(chosen, wrong)) == [chosen[0]]


def test_one_case_is_taken_apart_by_kernel_kinds(files: Path) -> None:
    text = diagnose(Case(SMALL, "w8a8", 1, 1), files, load_device("x86-server"))
    assert "depthwise_conv" in text
    assert "depthwise-tiny/w8a8/t1b1: measured" in text


@pytest.fixture
def model(tmp_path: Path) -> Path:
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])
    opsets = [helper.make_opsetid("", 21)]
    path = tmp_path / "model.onnx"
    save(helper.make_model(helper.make_graph(nodes, "g", [given], [made]), opset_imports=opsets, ir_version=10), path)
    return path


def test_a_worker_times_a_visit_and_reads_the_machine(model: Path) -> None:
    with Worker(1, model) as worker:
        before = len(worker.readings)
        found, _ = worker.visit(model, 8, 0.001)
        assert found > 0
        assert len(worker.readings) == before + 2 >= 12


def test_a_worker_that_dies_says_at_which_model(model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "no.onnx").write_bytes(b"nothing")
    with Worker(1, model) as worker, pytest.raises(RuntimeError, match=r"ended while it ran no\.onnx"):
        worker.visit(tmp_path / "no.onnx", 1, 0.001)


class Script:
    """Stands for a worker: every third visit is disturbed."""

    def __init__(self, threads: int, reference: Path) -> None:
        self.visits = 0

    def __enter__(self) -> Script:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def visit(self, path: Path, batch: int, seconds: float) -> tuple[float, bool]:
        self.visits += 1
        return float(self.visits), self.visits % 3 == 0


def test_every_case_is_visited_until_it_has_enough_clean_visits(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware_models_measuring, "Worker", Script)
    monkeypatch.setattr(hardware_models_measuring, "REFERENCE", (SMALL, "w32"))
    chosen, path = cases((SMALL,)), tmp_path / "results" / "r.json"
    results = Results.open(path, fresh=False)
    hardware_models_measuring.measure(chosen, files, results, PASSES, 0.0, lambda *_: None)
    assert all(len(found.clean_us) == PASSES or found.visits == PASSES + 3 for found in results.measured.values())
    assert 0.2 < results.disturbed_share < 0.4
    again = Results.open(path, fresh=False)
    assert again.measured == results.measured
    monkeypatch.setattr(hardware_models_measuring, "Worker", None)  # nothing is left to do, so nothing starts
    finished = [case for case in chosen if len(again.measured[case.name].clean_us) == PASSES]
    hardware_models_measuring.measure(finished, files, again, PASSES, 0.0, lambda *_: None)
    assert Results.open(path, fresh=True).measured == {}


def test_another_machine_starts_anew(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps({"machine": "another", "cases": {"a": asdict(Measured("", [1.0]))}}))
    assert Results.open(path, fresh=False).measured == {}


def test_another_file_is_measured_anew(files: Path) -> None:
    case = cases((SMALL,))[0]
    results = Results(None, "", {case.name: Measured("of another file", [1.0])})
    assert results.of(case, files).clean_us == []


def test_disturbed_visits_count_only_where_few_others_are() -> None:
    assert Measured("", [1.0, 2.0, 3.0], [9.0]).latency_us.value == 2.0
    assert Measured("", [1.0], [9.0, 8.0]).latency_us.value == 8.0
    interval = Measured("", [3.0, 1.0, 2.0]).latency_us
    assert (interval.low, interval.high) == (1.0, 3.0)


def test_facts_are_those_of_the_errors() -> None:
    found = facts(frame(), COLUMN)  # errors of +4 %, +20 %, 0 % and -9.7 %
    assert (found.cases, found.within_5, found.within_10) == (4, 0.5, 0.75)
    assert found.mape == pytest.approx((0.04 + 0.2 + 0 + 7 / 72) / 4)
    assert found.worst == pytest.approx(0.2)
    assert found.bias == pytest.approx(0.02)
    assert found.tau == pytest.approx(4 / 6)  # one pair of six is the wrong way round


def test_pairs_that_cannot_be_told_apart_are_ties() -> None:
    found = facts(frame(), COLUMN)
    assert (found.order, found.pairs, found.ties) == (1.0, 1, 1)  # with half of the channels, the intervals overlap
    assert found.decided_tau == 1.0


def test_every_family_has_a_macs_constant_of_the_others() -> None:
    rows = frame(("resnet18-96", "vit-192-96"))
    rows.loc[rows.family == "ViT", "macs"] *= 2
    found = frame_of(
        {Case(row["network"], row["variant"], 1, 1): Measured("", [row["measured_us"]]) for row in records(rows)},
        {Case(row["network"], row["variant"], 1, 1): price(1.0, row["macs"]) for row in records(rows)},
    )
    ratios = found.macs_us / found.measured_us
    assert ratios[found.family == "ResNet"].to_numpy() == pytest.approx(0.5)
    assert ratios[found.family == "ViT"].to_numpy() == pytest.approx(2.0)


def records(rows: pd.DataFrame) -> list[Mapping[Any, Any]]:
    return list(rows.to_dict("records"))


def test_bars_are_held_against_the_facts() -> None:
    bars = network_bars(facts(frame(), COLUMN), 1)
    assert [bar.reached for bar in bars] == [False, False, False, True, False]
    assert bars[3].figure == "100.0% of 1 pairs, 1 more too close to tell"
    assert bars[4].figure == "1 of 4 cases differ"
    exact = frame().assign(predicted_us=lambda rows: rows.measured_us)
    assert all(bar.reached for bar in network_bars(facts(exact, COLUMN), 0))


def test_a_device_without_calibration_says_nothing_of_single_kernels() -> None:
    (bar,) = kernel_bars(load_device("x86-server"))
    assert (bar.reached, bar.figure) == (False, "the device file says nothing of them")


def test_every_thread_count_is_held_against_the_mean_over_all_kernels() -> None:
    errors = {"kernels": 5461, "large_kernel_mape": 0.05, "weighted_kernel_error": 0.04}
    held_out = {"1": {**errors, "kernel_mape": 0.07}, "2": {**errors, "kernel_mape": 0.37}}
    device = load_device("x86-server")
    calibrated = device.model_copy(update={"calibration": Calibration(threads={"1": None}, held_out=held_out)})
    one, two = kernel_bars(calibrated)
    assert (one.reached, two.reached) == (True, False)
    assert two.name == "single kernels never sampled: mean error of 8%, threads 2"
    assert two.figure == "37.0% of 5,461 kernels (5.0% of those of 5 us and more, 4.0% weighted by time)"


def test_the_worst_come_first() -> None:
    assert [row["variant"] for row in worst(frame(), COLUMN, 2)] == ["w8a8", "w8a8@0.5"]


def test_the_page_tells_of_all_families_bars_and_bad_rows() -> None:
    rows = frame(("resnet18-96", "vit-192-96"))
    results = Results(None, "one machine")
    bars = network_bars(facts(rows, COLUMN), 1)
    text = page(Findings(rows, bars, results, load_device("x86-server")), "picture.png")
    assert "![" in text
    assert "(picture.png)" in text
    assert "**no** | 50.0%" in text
    assert text.count("| ViT |") == len(MODELS)
    assert "| `resnet18-96/w8a8/t1b1` | 0.060 | 0.050 (0.045 to 0.055) | +20.0% | conv 100% |" in text
    assert max(map(len, text.splitlines())) < 400


def test_groups_of_cases_come_with_all_of_them() -> None:
    found = by_group(frame(("resnet18-96", "vit-192-96")), COLUMN, lambda rows: rows.family)
    assert [(name, one.cases) for name, one in found.items()] == [("ResNet", 4), ("ViT", 4), ("all", 8)]


def test_a_quick_run_has_every_family() -> None:
    chosen = hardware_models.selected([], quick=True)
    assert {case.family for case in chosen} == {subject.family for subject in SUBJECTS.values()}
    assert {case.variant for case in chosen} == {"w32", "w8a8"}
    assert len(chosen) <= 20


def test_unknown_networks_and_cases_are_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"there is no network 'resnet'; .*resnet18-96"):
        hardware_models.selected(["resnet"], quick=False)
    for arguments in (["--only", "resnet"], ["--diagnose", "resnet18-96"], ["--diagnose", "resnet18-96/w9/t1b1"]):
        assert hardware_models.main([*arguments, "--device", "x86-server", "--cache", str(tmp_path)]) == 2
        assert capsys.readouterr().err.count("\n") == 1
