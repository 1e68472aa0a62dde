from __future__ import annotations

import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from benchmarks import few_shot
from benchmarks.few_shot import Results, Row, measure, trained_on
from benchmarks.few_shot_page import page
from benchmarks.few_shot_settings import SETTINGS, Visitor, _duty_cycle
from kneepoint.hardware_models.cost_model import CostModel
from kneepoint.hardware_models.devices import load_device
from kneepoint.hardware_models.workload import Workload

SUBJECTS = list(islice(trained_on(), 24))


def test_every_network_is_visited_in_every_setting_and_only_once_a_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(few_shot, "PASSES", 1)
    monkeypatch.setattr("benchmarks.few_shot_settings._SECONDS", 0.001)
    results = Results.open(tmp_path / "results.json", fresh=False)
    measure(SUBJECTS[:2], results)
    again = Results.open(tmp_path / "results.json", fresh=False)
    assert again.us == results.us
    assert again.us.keys() == {setting.name for setting in SETTINGS}
    measure(SUBJECTS[:2], again)
    assert again.us == results.us
    assert all(len(visits) == 1 for found in again.us.values() for visits in found.values())


def test_an_adapted_device_predicts_what_is_a_multiple_of_itself(tmp_path: Path) -> None:
    setting = SETTINGS[0]
    price = CostModel(load_device("x86-server").model_copy(update={"fusion": setting.rules}))
    costs = [price.cost(Workload.of(one.table, setting.rules)).latency_ms * 3000 for one in SUBJECTS]
    us = {one.name: [cost] for one, cost in zip(SUBJECTS, costs, strict=True)}
    results = Results(tmp_path / "results.json", "here", {setting.name: us})
    logs, stated = few_shot._adapted("x86-server, adapted", setting, SUBJECTS[:20], SUBJECTS[20:], results)
    assert np.abs(logs).max() < 0.01
    assert stated is not None
    assert stated < 0.01


def test_the_page_has_a_row_for_every_method() -> None:
    rows = [Row(setting.name, "a, adapted", 20, 0.1, 0.05, 0.5, 0.2, 0.15) for setting in SETTINGS]
    facts = {"networks": 3, "lowest_us": 10, "highest_us": 2000, **{setting.name: 1.5 for setting in SETTINGS}}
    text = page(rows, "a machine", load_device("x86-server"), facts)
    assert text.count("| a, adapted | 20 | 10.0% | 5.0% | 50% | 20.0% | 15.0% |") == len(SETTINGS)
    assert max(map(len, text.splitlines())) < 200


def test_a_duty_cycle_leaves_half_a_core() -> None:
    wall, busy = time.perf_counter(), time.process_time()
    with _duty_cycle():
        while time.perf_counter() - wall < 0.6:
            pass
    assert time.process_time() - busy < 0.45


def test_profiles_are_of_the_setting() -> None:
    names = {setting.name: {row[1] for row in Visitor(setting).nodes(SUBJECTS[0].model)} for setting in SETTINGS}
    assert "ReorderOutput" not in names["no blocked kernels"]
