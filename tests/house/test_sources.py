"""Rules of the house that no linter knows."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("api", "compression", "deployment", "hardware_models", "objectives", "reports", "search", "spaces", "tasks")
SOURCES = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]


def test_every_ignored_lint_gives_its_reason() -> None:
    bare = re.compile(r"#\s*(noqa(:\s*[A-Z]+\d+(,\s*[A-Z]+\d+)*)?|type:\s*ignore(\[[\w\-, ]+\])?)\s*$")
    found = [
        f"{path}:{number}"
        for path in SOURCES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if bare.search(line)
    ]
    # A repeated reason stands at the first of the lines it belongs to.
    assert len(found) <= 2, found


def test_every_test_folder_mirrors_a_room() -> None:
    rooms = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms <= {*ROOMS, "benchmarks", "examples", "house"}


def test_nothing_is_unpickled() -> None:
    patterns = (
        r"\bimport pickle\b",
        r"\byaml\.load\(",
        r"(?<!safetensors\.)torch\.load\((?!.*weights_only=True)",
        r"(?<![.`\w])(eval|exec)\(",
    )
    unsafe = re.compile("|".join(patterns))
    pipes = ROOT / "search/workers/payload.py"  # what a search tells its own workers; no file of a run goes through it
    sources = [path for path in SOURCES if path != pipes]
    found = [f"{path}: {line}" for path in sources for line in path.read_text().splitlines() if unsafe.search(line)]
    assert found == []
