"""The wheel holds the package, all of it, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("compression", "deployment", "hardware_models", "objectives", "reports", "search", "spaces", "tasks")


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What a wheel built from a copy of the sources holds."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("api", *ROOMS, "tests", "benchmarks", "examples"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", "out", "."]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (wheel,) = (source / "out").glob("*.whl")
    return zipfile.ZipFile(wheel).namelist()


def test_it_holds_the_package_alone(names: list[str]) -> None:
    outside = [name for name in names if not name.startswith("kneepoint/") and ".dist-info/" not in name]
    assert outside == []


def test_it_holds_every_source_file(names: list[str]) -> None:
    expected = {f"kneepoint/{path.name}" for path in (ROOT / "api").glob("*.py")}
    expected |= {f"kneepoint/{path.relative_to(ROOT)}" for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    expected |= {f"kneepoint/{path.relative_to(ROOT)}" for path in (ROOT / "hardware_models").rglob("*.yaml")}
    expected |= {f"kneepoint/{path.relative_to(ROOT)}" for path in (ROOT / "hardware_models").rglob("*.csv")}
    assert expected | {"kneepoint/py.typed"} == {name for name in names if name.startswith("kneepoint/")}
