from __future__ import annotations

import collections
from pathlib import Path

import pytest

from kneepoint.references import absolute_reference, load_reference, reference_to
from kneepoint.tasks.errors import JobError


def test_modules_and_files(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("value = 3\n")
    assert load_reference("mine.py:value", tmp_path) == 3
    assert load_reference("collections:OrderedDict", tmp_path) is collections.OrderedDict
    assert load_reference(absolute_reference("mine.py:value", tmp_path), Path("/")) == 3
    assert absolute_reference("collections:deque", tmp_path) == "collections:deque"


@pytest.mark.parametrize(
    ("reference", "text"),
    [
        ("mine.py", "a reference reads"),
        (":x", "a reference reads"),
        ("mine.py:valeu", "did you mean 'value'"),
        ("nowhere.py:x", "there is no file"),
        ("no_such_package_at_all:x", "cannot import"),
        ("broken.py:x", "running .*broken.py failed: ValueError: on purpose"),
    ],
)
def test_what_cannot_be_loaded_is_explained(tmp_path: Path, reference: str, text: str) -> None:
    (tmp_path / "mine.py").write_text("value = 3\n")
    (tmp_path / "broken.py").write_text("raise ValueError('on purpose')\n")
    with pytest.raises(JobError, match=text):
        load_reference(reference, tmp_path)


def test_only_importable_functions_have_a_reference() -> None:
    assert reference_to(load_reference) == "kneepoint.references:load_reference"
    assert reference_to(lambda: 0) is None
    assert reference_to(3) is None
