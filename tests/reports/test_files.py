from pathlib import Path

import pytest

from kneepoint.reports.files import write_atomically
from kneepoint.tasks.errors import RunError


def test_replaces_what_was_there_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_replaced_and_what_it_leads_to_is_left_alone(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    link = tmp_path / "link"
    link.symlink_to(outside)
    write_atomically(link, b"new")
    assert outside.read_bytes() == b"precious"
    assert not link.is_symlink()


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cannot be written \(No such file or directory\): give a folder that exists"):
        write_atomically(tmp_path / "nowhere" / "file", b"")


def test_a_place_that_is_taken_by_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(RunError, match="cannot be written"):
        write_atomically(tmp_path / "file", b"")
    assert [one.name for one in tmp_path.iterdir()] == ["file"]
