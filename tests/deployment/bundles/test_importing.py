from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from kneepoint.deployment.bundles import import_results, importing
from kneepoint.hardware_models.cost_model import CostModel
from kneepoint.hardware_models.devices import list_devices, load_device
from kneepoint.hardware_models.onnx_reader import read_onnx
from kneepoint.hardware_models.workload import Workload
from kneepoint.tasks.errors import DeviceError
from tests.deployment.bundles.conftest import Write, line, planned

RULES = ("activation",)


def latencies(factor: float = 3.0, spread: float = 0.0) -> list[float]:
    """Of a board that is so many times slower than the one that ships."""
    model = CostModel(load_device("raspberry-pi-4b").at_threads(1))
    noise = np.exp(spread * np.random.default_rng(0).standard_normal(len(planned())))
    tables = [read_onnx(one.network.model, batch=one.network.batch) for one in planned()]
    costs = [model.cost(Workload.of(table, RULES)).latency_ms * 1e3 for table in tables]
    return [float(factor * cost * one) for cost, one in zip(costs, noise, strict=True)]


def board(write: Write, threads: tuple[int, ...] = (1,), count: int = 30, **changes: object) -> Path:
    us = latencies(spread=0.03)
    lines = [line(number, us[number] / n**0.5, threads=n, **changes) for n in threads for number in range(count)]
    return write(*lines)


def test_few_latencies_adapt_the_most_similar_device(write: Write) -> None:
    imported = import_results(board(write), "new-board")
    assert imported.method == "adapted"
    assert imported.base == "raspberry-pi-4b"
    assert imported.errors["mape"] < 0.1
    device = load_device("new-board")
    assert device == imported.device
    assert device.relative_error == pytest.approx(imported.errors["rms_log"], abs=1e-3)
    assert "Adapted from device 'raspberry-pi-4b' by 30 whole-network latencies" in device.sources["relative_error"]
    assert "mean absolute error" in device.sources["relative_error"]
    assert device.memory.limit_mb == 4000
    assert device.runtime_version == "1.31.1"
    table = read_onnx(planned()[0].network.model, batch=1)
    cost = CostModel(device).cost(Workload.of(table, device.fusion))
    assert cost.latency_ms == pytest.approx(latencies()[0] / 1e3, rel=0.15)


def test_two_thread_counts_say_how_it_scales(write: Write) -> None:
    device = import_results(board(write, threads=(1, 4)), "new-board").device
    assert device.thread_exponent == pytest.approx(0.5, abs=0.01)
    assert device.at_threads(4).threads == 4


def test_what_people_should_know_is_said(write: Write) -> None:
    imported = import_results(board(write, slowdown=2.0), "new-board")
    assert any("the device was noisy: 30 of 30 timings were disturbed" in note for note in imported.notes)
    assert any("no probe was looked at" in note for note in imported.notes)
    assert json.loads(json.dumps(imported.to_json()))["base"] == "raspberry-pi-4b"


def test_a_device_much_unlike_any_known_one_is_said_to_be(write: Write) -> None:
    random = np.random.default_rng(0)
    lines = [line(number, float(us)) for number, us in enumerate(np.exp(random.uniform(3, 12, 30)))]
    imported = import_results(write(*lines), "new-board")
    assert imported.device.relative_error > 0.5
    assert any("the error is large" in note for note in imported.notes)


def test_a_base_may_be_chosen(write: Write) -> None:
    assert import_results(board(write), "new-board", "x86-server").base == "x86-server"


def test_adapted_devices_and_those_of_other_runtimes_kernels_are_no_bases(write: Write) -> None:
    path = board(write)
    import_results(path, "first")
    bases = {name for name in list_devices() if not load_device(name).refined} - {"first", "second"}
    assert set(import_results(path, "second").candidates) == bases
    assert {"raspberry-pi-4b", "x86-server"} <= bases


def test_fewer_than_twenty_networks_are_refused(write: Write) -> None:
    with pytest.raises(DeviceError, match="takes 20 networks or more; the results have 19"):
        import_results(board(write, count=19), "new-board")
    with pytest.raises(DeviceError, match="no network that was timed"):
        import_results(write(), "new-board")


@pytest.mark.parametrize("name", ["../../x", "a/b", "A", "", "x" * 65, "a\x1b[31m", ".."])
def test_names_of_devices_are_no_paths(write: Write, tmp_path: Path, name: str) -> None:
    with pytest.raises(DeviceError, match="a device name has up to 64 lower-case letters") as caught:
        import_results(board(write), name)
    assert str(caught.value).isprintable()
    assert not list(tmp_path.rglob("*.yaml"))


def test_a_name_that_is_taken_is_not_written_over(write: Write) -> None:
    path = board(write)
    with pytest.raises(DeviceError, match="'raspberry-pi-4b' ships: give another --name"):
        import_results(path, "raspberry-pi-4b")
    import_results(path, "mine")
    with pytest.raises(DeviceError, match="'mine' is one of yours"):
        import_results(path, "mine")
    assert import_results(path, "mine", replace=True).device.name == "mine"


def test_the_name_is_that_of_the_file_by_default(write: Write) -> None:
    assert import_results(board(write)).device.name == "board"


def test_profiles_without_probes_are_not_fitted(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """How to read them is not known."""
    monkeypatch.setattr(importing, "FEWEST_TO_FIT", 25)
    us = latencies()
    lines = []
    for one in planned():
        graph = one.network.model.graph.node
        nodes = [[node.output[0], node.op_type, 1, us[one.number] / len(graph)] for node in graph]
        lines.append(line(one.number, us[one.number], nodes=nodes))
    assert import_results(write(*lines), "no-probes").method == "adapted"
