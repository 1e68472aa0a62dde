"""The file of workloads: what is written comes back, and what was damaged is dropped rather than believed."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kneepoint.hardware_models import Operator, OperatorTable, Tensor, Weight, Workload
from kneepoint.hardware_models.many_workloads import ManyWorkloads
from kneepoint.hardware_models.workload_file import WorkloadFile, canonical
from kneepoint.hardware_models.zoo.registry import build

ARENA = (256, 1024.0, 2, True, False)
RULES = ("activation",)


def workload(width: int, sparsity: str = "dense") -> Workload:
    """A linear layer with a relu, and a softmax."""
    tensors = {name: Tensor(name, (1, size)) for name, size in (("x", 4), ("a", width), ("b", width), ("c", width))}
    weight = Weight((width, 4), channels=width, sparsity=sparsity)
    operators = (
        Operator("fc", "linear", ("x",), "a", macs=4 * width, weight=weight),
        Operator("relu", "activation", ("a",), "b", function="relu"),
        Operator("softmax", "softmax", ("b",), "c", axes=(1,)),
    )
    return Workload.of(OperatorTable(operators, tensors, ("x",), ("c",)), RULES)


WORKLOADS = {"one": workload(8), "two": workload(16, "2:4"), "three": workload(8, "50%")}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of three workloads, written in two appends by two objects."""
    place = tmp_path / "w.jsonl"
    opened(place).append({"one": WORKLOADS["one"]})
    opened(place).append(WORKLOADS)
    return place


def opened(path: Path, **changes: Any) -> WorkloadFile:
    return WorkloadFile(path, **{"rules": RULES, "run": "a run", "arenas": [ARENA], **changes})


def same(many: ManyWorkloads, row: int, wanted: Workload) -> bool:
    begin = int(many.lengths[:row].sum())
    own = slice(begin, begin + int(many.lengths[row]))
    kernels, rows = many.kernels, many.rows[own]
    columns = (
        "kind",
        "format",
        "layout",
        "macs",
        "input_bytes",
        "weight_bytes",
        "output_bytes",
        "elements",
        "geometry",
    )
    alike = [np.array_equal(getattr(kernels, name)[rows], getattr(wanted, name)) for name in columns]
    alike.append(np.array_equal(many.surroundings[many.places[own]], wanted.surroundings))
    alike.append([kernels.functions[place] for place in rows] == list(wanted.functions))
    patterns = {place: kernels.sparse[int(at)] for place, at in enumerate(rows) if int(at) in kernels.sparse}
    buffers = many.buffers[row]
    alike += [patterns == wanted.sparse, np.array_equal(buffers.alive(), wanted.buffers.alive())]
    handed = (buffers.handed_integers(), wanted.buffers.handed_integers())
    alike.append(np.array_equal(handed[0].alive(), handed[1].alive()))
    sizes = (many.storage_bytes[row], many.resident_bytes[row])
    return all([*alike, sizes == (wanted.storage_bytes, wanted.resident_bytes)])


def test_what_is_written_comes_back(path: Path) -> None:
    file = opened(path)
    assert (file.damaged, len(file)) == (None, 3)
    many = file.workloads(["three", "one", "two"])
    assert [same(many, row, WORKLOADS[key]) for row, key in enumerate(many.keys)] == [True] * 3
    assert len(path.read_text().splitlines()) == 4  # nothing is there twice


def test_what_inputs_take_as_integers_comes_back(tmp_path: Path) -> None:
    wanted = Workload.of(build("MLPerf-Tiny KWS: DS-CNN", precision="int8"), RULES)
    file = opened(tmp_path / "w.jsonl")
    file.append({"one": wanted})
    (buffers,) = opened(file.path).workloads(["one"]).buffers
    assert same(opened(file.path).workloads(["one"]), 0, wanted)
    assert (
        buffers.alive()[0] - buffers.handed_integers().alive()[0] == 4 * 49 * 10
    )  # the quantized copy is what is handed in


def test_a_distinct_kernel_is_there_once(path: Path) -> None:
    assert len(opened(path).workloads(["one"]).kernels) < sum(map(len, WORKLOADS.values()))


def test_rules_have_one_order() -> None:
    assert canonical(("residual", "activation")) == canonical(("activation", "residual")) == ("activation", "residual")


def test_a_torn_line_is_written_again(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    file = opened(path)
    assert (file.damaged, "three" in file) == (None, False)
    file.append(WORKLOADS)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("change", [{"run": "another"}, {"rules": ("activation", "residual")}])
def test_the_file_of_another_run_counts_as_empty_and_is_written_anew(path: Path, change: dict[str, Any]) -> None:
    file = opened(path, **change)
    assert len(file) == 0
    assert "of another run, or another version wrote it" in str(file.damaged)
    file.append({"one": WORKLOADS["one"]})
    assert len(opened(path, **change)) == 1
    assert len(opened(path)) == 0


def test_the_arenas_of_the_file_stay(path: Path) -> None:
    assert list(opened(path, arenas=[]).workloads(["one"]).touched) == [ARENA]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 10**6), value=st.integers(0, 255))
def test_a_flipped_byte_is_found(path: Path, place: int, value: int) -> None:
    whole = path.read_bytes()
    place %= len(whole)
    path.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
    file = opened(path)
    many = file.workloads([key for key in WORKLOADS if key in file])
    assert all(same(many, row, WORKLOADS[key]) for row, key in enumerate(many.keys))
    path.write_bytes(whole)


def line_of(content: Any) -> bytes:
    text = json.dumps(content).encode()
    return b"%08x %s" % (zlib.crc32(text), text)


Spoil = Callable[[dict[str, Any]], None]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda line: line["rows"].__setitem__(0, 10**9), "a kernel is missing"),
        (lambda line: line["rows"].__setitem__(0, -1), "out of range"),
        (lambda line: line["rows"].__setitem__(0, 0.5), "numbers are whole"),
        (lambda line: line["rows"].append(0), "every kernel has a place"),
        (lambda line: line["places"].__setitem__(0, 99), "a place is missing"),
        (lambda line: line["kernels"][0].__setitem__(0, 99), "kind, format or layout is unknown"),
        (lambda line: line["kernels"][0].__setitem__(3, 2**70), ""),
        (lambda line: line["kernels"][0].__setitem__(-1, 77), "a word is missing"),
        (lambda line: line["kernels"][0].pop(), ""),
        (lambda line: line["kernels"].append(line["kernels"][0]), "not written again"),
        (lambda line: line.update(words=[1]), "words are texts"),
        (lambda line: line.update(words=["", "", "all zeros"]), "not written again"),
        (lambda line: line.update(span=True), "a span is missing"),
        (lambda line: line.update(inputs=[[10**6, 0]]), "an input has a buffer"),
        (lambda line: line.update(inputs=[[0]]), "a row has 2 numbers"),
        (lambda line: line["spans"][0][1].__setitem__(0, 50), "a buffer lives among kernels"),
        (lambda line: line["bytes"].append(1), "every buffer has a span"),
        (lambda line: line.update(sizes=[1]), "sizes are missing"),
        (lambda line: line.pop("around"), "around"),
        (lambda line: line.update(key=3), "every key is there once"),
    ],
)  # fmt: skip
def test_a_hostile_line_is_refused_whatever_its_checksum(path: Path, spoil: Spoil, said: str) -> None:
    header, first, *_ = path.read_bytes().split(b"\n")
    content = json.loads(first[9:])
    spoil(content)
    path.write_bytes(b"\n".join([header, line_of(content), b""]))
    file = opened(path)
    assert len(file) == 0
    assert str(file.damaged).startswith("line 2: ")
    assert said in str(file.damaged)
    file.append(WORKLOADS)
    assert len(opened(path)) == 3


@pytest.mark.parametrize(
    "arenas",
    [
        [[0, 1, 2, True, False]],
        [[256, -1, 2, True, False]],
        [["a", 1, 2, True, False]],
        3,
        [[1]],
        [[256, 1, 2, True, False]] * 99,
    ],
)
def test_hostile_arenas_are_refused(path: Path, arenas: Any) -> None:
    header, *rest = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([line_of({**json.loads(header[9:]), "arenas": arenas}), *rest]))
    file = opened(path)
    assert len(file) == 0
    assert file.damaged
    file.append(WORKLOADS)
    assert list(opened(path).workloads(["one"]).touched) == [ARENA]


def test_a_folder_in_its_place_is_said(tmp_path: Path) -> None:
    assert "cannot be read" in str(opened(tmp_path).damaged)
