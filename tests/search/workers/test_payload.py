"""What travels to workers."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from kneepoint.references import load_reference
from kneepoint.search.workers.payload import packed, unpacked
from kneepoint.tasks.errors import JobError


def test_functions_of_a_job_s_own_file_travel_by_value(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("FACTOR = 3\n\n\ndef triple(x):\n    return FACTOR * x\n")
    data = packed(load_reference("mine.py:triple", tmp_path))
    (tmp_path / "data").write_bytes(data)
    (tmp_path / "mine.py").unlink()
    program = (
        "from pathlib import Path\nfrom kneepoint.search.workers.payload import unpacked\n"
        f"print(unpacked(Path({str(tmp_path / 'data')!r}).read_bytes())(14))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "42", done.stderr


def test_a_closure_travels() -> None:
    factor = 2
    assert unpacked(packed(lambda x: factor * x))(21) == 42


def test_what_cannot_travel_is_said() -> None:
    with pytest.raises(JobError, match=r"must be picklable to travel to workers: TypeError: .*; make what is named"):
        packed({"metric": threading.Lock()})
