"""Files of results: honest ones that no device has to measure, as a start for those that are not."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from kneepoint.deployment.bundles.plan import Plan, Planned

PLAN = Plan(seed=0, count=30, few=True)
_NETWORKS = Plan.networks
MACHINE = {
    "architecture": "aarch64",
    "system": "Linux",
    "processor": "Cortex-A72",
    "cores": 4,
    "memory_mb": 4000.0,
    "bandwidth_gb_s": 5.0,
    "caches": [[32, 20.0], [1024, 11.0]],
    "saturates": False,
    "governor": "performance",
}
HEADER: dict[str, Any] = {
    "schema": "kneepoint.results/1",
    "plan": {"seed": PLAN.seed, "few": True, "count": PLAN.count, "digest": "0" * 64},
    "kneepoint": "0.1.0",
    "onnxruntime": "1.31.1",
    "numpy": "2.0.0",
    "python": "3.8.10",
    "machine": MACHINE,
}


@cache
def planned() -> tuple[Planned, ...]:
    """The networks of the plan, drawn once."""
    return tuple(_NETWORKS(PLAN))


def line(number: int, us: float = 100.0, **changes: Any) -> dict[str, Any]:
    """What run.py writes of one network."""
    return {
        "kind": "network",
        "network": number,
        "sha256": planned()[number].sha256,
        "threads": 1,
        "us": us,
        "runs": 40,
        "spread": 0.01,
        "slowdown": 1.01,
        "tries": 1,
        "nodes": None,
        "seconds": 0.1,
        **changes,
    }


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes lines, those of text as they are, behind a header."""

    def write_lines(*lines: dict[str, Any] | str, header: dict[str, Any] | str = HEADER, end: str = "\n") -> Path:
        path = tmp_path / "board.jsonl"
        texts = [entry if isinstance(entry, str) else json.dumps(entry) for entry in (header, *lines)]
        path.write_text("\n".join(texts) + end)
        return path

    return write_lines


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No device of the user's is seen, and none is written."""
    monkeypatch.setattr("platformdirs.user_data_path", lambda name: tmp_path / "data" / name)


@pytest.fixture(autouse=True)
def _drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The networks of the plan are drawn once, not for every file of results."""
    monkeypatch.setattr(Plan, "networks", lambda plan: iter(planned()) if plan == PLAN else _NETWORKS(plan))
