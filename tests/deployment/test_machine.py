from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest

from kneepoint.deployment import device_program, machine
from kneepoint.deployment.machine import cores_for, machine_name, usable_cores
from kneepoint.tasks.errors import InputError


def described(folder: Path, siblings: list[str], capacities: list[int] | None = None) -> Path:
    for core, text in enumerate(siblings):
        (folder / f"cpu{core}" / "topology").mkdir(parents=True)
        (folder / f"cpu{core}" / "topology" / "thread_siblings_list").write_text(text + "\n")
        if capacities:
            (folder / f"cpu{core}" / "cpu_capacity").write_text(f"{capacities[core]}\n")
    return folder


@pytest.fixture
def _four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (machine, device_program):
        monkeypatch.setattr(module, "usable_cores", lambda: [0, 1, 2, 3])


@pytest.mark.usefixtures("_four_cores")
def test_threads_get_physical_cores_of_their_own(tmp_path: Path) -> None:
    system = described(tmp_path, ["0,2", "1,3", "0,2", "1,3"])
    assert [cores_for(threads, system) for threads in (1, 2, 3)] == [[1], [0, 1], [0, 1, 3]]


@pytest.mark.usefixtures("_four_cores")
def test_fast_cores_come_first(tmp_path: Path) -> None:
    system = described(tmp_path, ["0", "1", "2", "3"], [1024, 1024, 446, 446])
    assert [cores_for(threads, system) for threads in (1, 2, 3)] == [[1], [0, 1], [0, 1, 3]]


@pytest.mark.usefixtures("_four_cores")
def test_a_system_that_describes_nothing_is_taken_as_it_is(tmp_path: Path) -> None:
    assert cores_for(2, tmp_path) == [2, 3]


@pytest.mark.parametrize("threads", [0, -1, 100_000])
def test_there_is_a_core_for_every_thread(threads: int) -> None:
    with pytest.raises(InputError, match=rf"a core for every thread; got {threads} threads.* may use \d+ cores"):
        cores_for(threads)


def test_a_machine_is_named_by_what_latencies_depend_on() -> None:
    assert machine_name().endswith(f", {len(usable_cores())} cores, onnxruntime {onnxruntime.__version__}")
    assert not machine_name().startswith(",")
