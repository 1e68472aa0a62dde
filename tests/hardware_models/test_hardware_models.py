"""The room as a whole."""

from __future__ import annotations

import subprocess
import sys

import kneepoint.hardware_models as room


def test_the_room_never_loads_torch() -> None:
    code = "import sys, kneepoint.hardware_models; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode == 0


def test_every_public_name_exists() -> None:
    assert all(hasattr(room, name) for name in room.__all__)
