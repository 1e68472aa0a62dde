from __future__ import annotations

import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kneepoint.deployment.bundles import import_results, reading
from kneepoint.deployment.bundles.reading import read_results
from kneepoint.tasks.errors import DeviceError
from tests.deployment.bundles.conftest import HEADER, MACHINE, Write, line


def header(**changes: Any) -> dict[str, Any]:
    return {**HEADER, **changes}


def machine(**changes: Any) -> dict[str, Any]:
    return header(machine={**MACHINE, **changes})


def refusal(path: Path) -> str:
    """The one line that an import ends with."""
    with pytest.raises(DeviceError) as caught:
        import_results(path, "new-board")
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) < 700
    return text


def test_honest_results_are_read(write: Write) -> None:
    results = read_results(write(line(0), line(1, threads=2), {**line(2), "nodes": [["Conv0", "Conv", 10, 1.5]]}))
    assert set(results.networks) == {(0, 1), (1, 2), (2, 1)}
    assert results.header.machine.processor == "Cortex-A72"
    assert results.notes == ()


def test_a_last_line_that_was_cut_off_is_left_out_and_said(write: Write) -> None:
    results = read_results(write(line(0), json.dumps(line(1))[:50], end=""))
    assert set(results.networks) == {(0, 1)}
    assert results.notes == ("line 3, the last, was cut off and is left out",)


def test_networks_that_did_not_run_are_counted(write: Write) -> None:
    refused = {"kind": "refused", "network": 1, "sha256": "0" * 64, "threads": 1, "reason": "no kernel", "seconds": 0.1}
    assert read_results(write(line(0), refused)).refused == 1


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("no json", "line 2: a line holds one JSON object; got 'no json'"),
        ("[1, 2]", "line 2: a line holds one JSON object; got a list of 2"),
        ("[" * 100_000, "line 2: a line holds one JSON object of a few levels"),
        ("", "line 2: a line holds one JSON object; got an empty one"),
        ('{"kind": "network", "kind": "network"}', "a key comes twice"),
        (json.dumps(line(0)).replace("100.0", "NaN"), "numbers are finite; got NaN"),
        (json.dumps(line(0)).replace("100.0", "Infinity"), "numbers are finite; got Infinity"),
        (json.dumps(line(0)).replace("100.0", "1e999"), r"us: .*; got inf"),
        (json.dumps(line(0)).replace("100.0", "9" * 5000), "line 2: a line holds one JSON object"),
        (line(0, -1.0), r"line 2: us: .* greater than 0; got -1\.0"),
        (line(0, 0.0), r"us: .* greater than 0; got 0\.0"),
        (line(0, 1e12), "us: .* less than or equal to 3600000000"),
        ({**line(0), "us": "100"}, "us: .* valid number; got '100'"),
        (line(0, runs=10**9), "runs: .* less than or equal to 100000; got 1000000000"),
        (line(0, threads=0), "threads: .* greater than or equal to 1; got 0"),
        (line(0, threads=True), "threads: .* valid integer; got True"),
        (line(0, nodes=[["a" * 3_000_000, "Conv", 1, 1.0]]), "a line has at most 2 MB; got 3.0"),
        (line(0, nodes=[["a" * 1_000_000, "Conv", 1, 1.0]]), "nodes.0.0: .* at most 200 characters; got 'aaaa"),
        (line(0, nodes=[["\x1b[31mred", "Conv", 1, 1.0]]), r"nodes.0.0: .*printable.*got '\?\[31mred'"),
        (line(0, nodes=[["a", "Conv", -1, 1.0]]), "nodes.0.2: .* greater than or equal to 0"),
        (line(0, nodes=[["a", "Conv", 1, -1.0]]), "nodes.0.3: .* greater than 0"),
        ({**line(0), "network": 4999}, "the plan has networks 0 to 29; got 4999"),
        ({**line(0), "network": 10**9}, "network: .* less than 5000; got 1000000000"),
        ({**line(0), "network": -1}, "network: .* greater than or equal to 0; got -1"),
        ({**line(0), "sha256": "../../etc/passwd"}, r"sha256: .*; got '\.\./\.\./etc/passwd'"),
        ({**line(0), "kind": "\x1b]0;title\x07"}, "kind: .*; got an object with 11 keys"),
        ({**line(0), "\x1b[2J": 1}, r"the key '\?\[2J' is unknown"),
        ({"kind": "network", "network": 0}, "the key 'sha256' is missing"),
    ],
)
def test_hostile_lines_are_refused_with_their_number(write: Write, bad: dict[str, Any] | str, message: str) -> None:
    text = refusal(write(bad))
    assert re.search(message, text), text
    assert "board.jsonl, line 2:" in text
    assert text.endswith("copy the file from the device again, or measure anew with a bundle of this version")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (json.dumps(line(0)), "results begin with a header, an object with the key 'schema'; got an object with 11"),
        (header(schema="kneepoint.results/9"), "reads the schema 'kneepoint.results/1'; got 'kneepoint.results/9'"),
        (header(schema="x" * 10_000), "got 'xxxxx"),
        (header(schema=["\x1b"]), "got "),
        (header(onnxruntime="\x1b[31m"), "onnxruntime: .*; got '.\\[31m'"),
        (header(plan={**HEADER["plan"], "count": 10**9}), "plan.count: .* less than or equal to 5000"),
        (header(plan={**HEADER["plan"], "count": 1000}), "a small bundle holds 20 to 100 networks; got 1000"),
        (header(plan={**HEADER["plan"], "seed": -1}), "plan.seed: .* greater than or equal to 0"),
        (machine(processor="\x1b[2J"), "machine.processor: .*printable"),
        (machine(processor="a\nb"), "machine.processor: .*printable"),
        (machine(governor="x" * 1000), "machine.governor: .* at most 200 characters"),
        (machine(cores=0), "machine.cores: .* greater than or equal to 1"),
        (machine(memory_mb=-5.0), "machine.memory_mb: .* greater than 0"),
        (machine(caches=[[1, 1.0]] * 100), "machine.caches: .* at most 8 items"),
        (machine(bandwidth_gb_s=None), "machine.bandwidth_gb_s: .* valid number; got None"),
    ],
)
def test_hostile_headers_are_refused(write: Write, bad: dict[str, Any] | str, message: str) -> None:
    text = refusal(write(line(0), header=bad))
    assert re.search(message, text), text
    assert ", line 1: " in text


def test_a_network_stands_there_once(write: Write) -> None:
    assert "line 3: a network stands there once for a thread count; network 0 on 1 thread(s) comes a second" in refusal(
        write(line(0), line(0))
    )


def test_networks_are_those_of_the_plan(write: Write) -> None:
    text = refusal(write(line(0), {**line(1), "sha256": "f" * 64}))
    assert "line 3: network 1 of seed 0 has the SHA-256" in text
    assert "ffffffffffff... in the results" in text


def test_results_of_another_seed_do_not_fit(write: Write) -> None:
    assert "network 0 of seed 7" in refusal(write(line(0), header=header(plan={**HEADER["plan"], "seed": 7})))


def test_a_binary_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "board.jsonl"
    path.write_bytes(b"\x7fELF\xff\xfe" * 100 + b"\n")
    assert "line 1: results are lines of JSON in UTF-8; got bytes that are no text" in refusal(path)


def test_a_huge_file_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LARGEST_BYTES", 1_000_000)
    path = tmp_path / "board.jsonl"
    with path.open("wb") as stream:
        stream.truncate(10**12)  # sparse
    assert "results have at most 1 MB" in refusal(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    assert "is a folder: name the file in it" in refusal(tmp_path)
    assert "No such file" in refusal(tmp_path / "missing.jsonl")
    assert "is no name of a file" in refusal(Path("a\0b"))
    (tmp_path / "empty").write_text("")
    assert "is empty" in refusal(tmp_path / "empty")
    os.mkfifo(tmp_path / "pipe")
    assert "is none: check the path" in refusal(tmp_path / "pipe")
    assert "No such file" in refusal(tmp_path / "\x1b[31m")


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")))
def test_nothing_but_one_clear_line_comes_of_noise(content: bytes) -> None:
    with tempfile.NamedTemporaryFile() as stream:
        stream.write(json.dumps(HEADER).encode() + b"\n" + content + b"\n")
        stream.flush()
        with pytest.raises(DeviceError) as caught:
            read_results(stream.name)
    assert str(caught.value).isprintable()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(line(0))), json_values)
def test_any_value_in_any_place_is_accepted_or_refused_in_one_line(key: str, value: Any) -> None:
    with tempfile.NamedTemporaryFile() as stream:
        stream.write("\n".join([json.dumps(HEADER), json.dumps({**line(0), key: value}), ""]).encode())
        stream.flush()
        said = ""
        try:
            read_results(stream.name)
        except DeviceError as error:
            said = str(error)
    assert said.isprintable()
