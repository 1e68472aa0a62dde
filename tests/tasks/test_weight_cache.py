from __future__ import annotations

from pathlib import Path

import platformdirs
import pytest
import torch
from torch import nn

from kneepoint.tasks.weight_cache import FOLDER_VARIABLE, cache_folder, load_weights, save_weights


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_folder_is_the_users_unless_one_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == folder
    monkeypatch.delenv(FOLDER_VARIABLE)
    assert cache_folder() == platformdirs.user_cache_path("kneepoint")


def test_weights_come_back_and_nothing_else_is_left(folder: Path) -> None:
    saved, loaded = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    nn.init.uniform_(saved.weight)
    save_weights(saved, "norm.safetensors")
    assert load_weights(loaded, "norm.safetensors")
    assert torch.equal(saved.weight, loaded.weight)
    assert [path.name for path in folder.iterdir()] == ["norm.safetensors"]


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 100])
def test_a_corrupt_file_counts_as_none(folder: Path, content: bytes) -> None:
    folder.mkdir()
    (folder / "bad.safetensors").write_bytes(content)
    assert not load_weights(nn.Linear(2, 2), "bad.safetensors")


def test_a_truncated_file_counts_as_none(folder: Path) -> None:
    save_weights(nn.Linear(2, 2), "cut.safetensors")
    whole = (folder / "cut.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[:-4])
    assert not load_weights(nn.Linear(2, 2), "cut.safetensors")


def test_no_file_counts_as_none(folder: Path) -> None:
    assert not load_weights(nn.Linear(2, 2), "absent.safetensors")


def test_weights_of_another_network_leave_the_module_untouched(folder: Path) -> None:
    save_weights(nn.Linear(2, 3), "other.safetensors")
    module = nn.Linear(2, 2)
    before = module.weight.clone()
    assert not load_weights(module, "other.safetensors")
    assert torch.equal(module.weight, before)


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "file" / "cache"))
    save_weights(nn.Linear(2, 2), "lost.safetensors")
    assert not load_weights(nn.Linear(2, 2), "lost.safetensors")


@pytest.mark.usefixtures("folder")
def test_tied_weights_are_kept_too() -> None:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    module = nn.Sequential(first, second)
    save_weights(module, "tied.safetensors")
    with torch.no_grad():
        kept = first.weight.clone()
        first.weight.zero_()
    assert load_weights(module, "tied.safetensors")
    assert torch.equal(first.weight, kept)
    assert second.weight is first.weight
