from __future__ import annotations

from pathlib import Path

import pytest

from kneepoint.tasks.documentation import FEWEST_WORDS, MASK, Document, load_documents
from kneepoint.tasks.errors import TaskError

SOURCE = '''
"""Short."""

def solve():
    """Solve a system that numpy.linalg and SciPy would solve, too, with far more care than this one does.

    Parameters
    ----------
    a : what is no prose at all but stands in the middle of it nevertheless
    """

class Solver:
    """Solve a system that numpy.linalg and SciPy would solve, too, with far more care than this does."""

async def other():
    r"""Another docstring with a \\d backslash, and with enough words in it to count as one:

    - a list, which is left out
    """
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / "made_package"
    (folder / "tests").mkdir(parents=True)
    (folder / "__init__.py").write_text(SOURCE)
    (folder / "broken.py").write_text("def (:\n")
    (folder / "warns.py").write_text(
        '"""A docstring with a \\d that Python warns of, which is none of our business here."""'
    )
    (folder / "tests" / "test_it.py").write_text(
        '"""Words of a test, however many there are of them, are no documentation."""'
    )
    monkeypatch.syspath_prepend(tmp_path)
    return folder.name


def test_prose_is_read_masked_and_never_twice(package: str) -> None:
    texts = {one.text for one in load_documents((package,))}
    assert texts == {
        f"Solve a system that {MASK}.linalg and {MASK} would solve, too, with far more care than this one does.",
        "Another docstring with a \\d backslash, and with enough words in it to count as one:",
        "A docstring with a \\d that Python warns of, which is none of our business here.",
    }


def test_no_more_than_asked_for(package: str) -> None:
    (document,) = load_documents((package,), 1)
    assert (document.package, document.module.split("/")[0]) == (package, package)


def test_what_holds_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty_package").mkdir()
    (tmp_path / "empty_package" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TaskError, match="packages with docstrings, 'empty_package' holds none"):
        load_documents(("empty_package",))
    with pytest.raises(TaskError, match="there is no 'absent_package': pip install absent_package"):
        load_documents(("absent_package",))


def test_a_real_package_is_split_by_its_modules() -> None:
    documents = load_documents(("networkx",), 120)
    assert len(documents) == 120
    assert {one.split for one in documents} == {"train", "validation", "test"}
    modules = {split: {one.module for one in documents if one.split == split} for split in ("train", "test")}
    assert not modules["train"] & modules["test"]
    assert not any("networkx" in one.text.lower() for one in documents)
    assert all(len(one.text.split()) >= FEWEST_WORDS // 2 for one in documents)


def test_the_split_hangs_on_the_module_alone() -> None:
    assert Document("a", "p", "p/m.py").split == Document("b", "p", "p/m.py").split
