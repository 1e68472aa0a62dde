from __future__ import annotations

import subprocess
import sys

import pytest

import kneepoint.tasks


def test_importing_the_package_and_its_errors_does_not_import_torch() -> None:
    code = "import sys, kneepoint.tasks, kneepoint.tasks.errors; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", kneepoint.tasks.__all__)
def test_every_public_name_can_be_had(name: str) -> None:
    assert getattr(kneepoint.tasks, name) is not None
    assert name in dir(kneepoint.tasks)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match=r"module 'kneepoint\.tasks' has no attribute 'Tusk'"):
        _ = kneepoint.tasks.Tusk
