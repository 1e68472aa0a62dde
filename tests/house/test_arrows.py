"""Imports run down the floors of the house, and importing a room stays cheap."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS = {
    "api": 7,
    "reports": 6,
    "search": 5,
    "objectives": 4,
    "deployment": 3,
    "compression": 2,
    "spaces": 1,
    "tasks": 0,
    "hardware_models": 0,
}
SIDEWAYS = {("hardware_models", "tasks.errors")}  # one tree of exceptions for the whole house


def imports(path: Path) -> Iterator[str]:
    """Every module that ``path`` imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(module: str) -> str:
    """The room a module of kneepoint lives in; modules of no other room are the front door's."""
    second = module.partition(".")[2].partition(".")[0]
    return second if second in FLOORS else "api"


def upward_arrows(room: str, path: Path) -> list[str]:
    found = []
    for module in imports(path):
        if module.split(".")[0] != "kneepoint":
            continue
        other = room_of(module)
        sideways = any(room == here and module.startswith(f"kneepoint.{there}") for here, there in SIDEWAYS)
        if other != room and FLOORS[other] >= FLOORS[room] and not sideways:
            found.append(f"{path.relative_to(ROOT)} imports {module}")
    return found


def test_every_room_is_there() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages == set(FLOORS)


@pytest.mark.parametrize("room", FLOORS)
def test_arrows_run_down_only(room: str) -> None:
    files = list((ROOT / room).rglob("*.py"))
    assert files
    assert [arrow for path in files for arrow in upward_arrows(room, path)] == []


def test_an_upward_arrow_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / "bad.py"
    path.write_text("def f() -> None:\n    from kneepoint.search.front import Front\n")
    assert upward_arrows("spaces", path) == ["bad.py imports kneepoint.search.front.Front"]
    assert upward_arrows("reports", path) == []


@pytest.mark.parametrize(
    "room", ["kneepoint", *(f"kneepoint.{room}" for room in FLOORS if room not in ("api", "reports"))]
)
def test_importing_a_room_loads_no_search(room: str) -> None:
    heavy = "('optuna', 'ray', 'kneepoint.search.driver', 'kneepoint.reports', 'plotly')"
    code = f"import sys, {room}; print([name for name in {heavy} if name in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_the_front_door_alone_is_light() -> None:
    code = "import sys, kneepoint; print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "False"
    )
