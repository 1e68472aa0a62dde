from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from kneepoint.compression.student_store import StudentStore, load_tensors, store_tensors, write_atomically
from kneepoint.tasks.errors import RunError


def test_what_is_stored_is_found_again(tmp_path: Path) -> None:
    store = StudentStore(tmp_path / "students")
    assert store.load("a") is None
    tensors = {"x": torch.randn(3, 2), "n": torch.tensor(4), "t": torch.randn(2, 3).t()}
    store.store("a", tensors)
    store.store("b", {"x": torch.zeros(1)})
    found = StudentStore(tmp_path / "students").load("a")
    assert found is not None
    assert all(torch.equal(found[name], value) for name, value in tensors.items())


def test_equal_weights_are_one_file(tmp_path: Path) -> None:
    store = StudentStore(tmp_path)
    assert store.store("a", {"x": torch.ones(2)}) == store.store("b", {"x": torch.ones(2)})
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    assert store.load("b") is not None


def test_tensors_that_share_memory_are_stored(tmp_path: Path) -> None:
    weight = torch.randn(4)
    found = load_tensors(tmp_path, store_tensors(tmp_path, {"a": weight, "b": weight, "c": weight[1:]}))
    assert torch.equal(found["a"], found["b"])
    assert torch.equal(found["c"], weight[1:])


def test_many_writers_lose_nothing(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda i: StudentStore(tmp_path).store(f"key {i % 10}", {"x": torch.full((2,), i % 10)}), range(40)
            )
        )
    for i in range(10):
        found = StudentStore(tmp_path).load(f"key {i}")
        assert found is not None
        assert found["x"][0] == i


@pytest.mark.parametrize("text", ["not json", "[]", "{}"])
def test_a_damaged_entry_says_what_to_do(tmp_path: Path, text: str) -> None:
    store = StudentStore(tmp_path)
    store.store("a", {"x": torch.ones(1)})
    (entry,) = tmp_path.glob("*.json")
    entry.write_text(text)
    with pytest.raises(RunError, match="delete it to train the student again"):
        store.load("a")


def test_an_entry_that_points_nowhere(tmp_path: Path) -> None:
    store = StudentStore(tmp_path)
    store.store("a", {"x": torch.ones(1)})
    (entry,) = tmp_path.glob("*.json")
    entry.write_text(json.dumps({"key": "a", "content": "0" * 64}))
    with pytest.raises(RunError, match="is missing: the run directory is incomplete"):
        store.load("a")
    entry.write_text(json.dumps({"key": "a", "content": "../x"}))
    with pytest.raises(RunError, match=r"named by a SHA-256; got '\.\./x'"):
        store.load("a")


def test_files_are_replaced_whole(tmp_path: Path) -> None:
    write_atomically(tmp_path / "f", b"old")
    write_atomically(tmp_path / "f", b"new")
    assert (tmp_path / "f").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_what_is_forgotten_is_gone_and_nothing_else(tmp_path: Path) -> None:
    store = StudentStore(tmp_path / "students")
    store.store("a", {"x": torch.ones(2)})
    store.store("b", {"x": torch.zeros(2)})
    store.forget("a")
    store.forget("never stored")
    assert store.load("a") is None
    assert store.load("b") is not None
    assert len(list(store.directory.glob("*.safetensors"))) == 1


def test_forgetting_never_leads_out_of_the_folder(tmp_path: Path) -> None:
    store, outside = StudentStore(tmp_path / "students"), tmp_path / "mine.safetensors"
    store.store("a", {"x": torch.ones(2)})
    outside.write_bytes(b"weights")
    (entry,) = store.directory.glob("*.json")
    entry.write_text(json.dumps({"key": "a", "content": "../mine"}))
    store.forget("a")
    assert outside.exists()
