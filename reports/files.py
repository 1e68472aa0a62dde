"""Writing a file whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from kneepoint.tasks.errors import RunError


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file that is whole or not there at all, whatever interrupts the writing.

    Raises:
        RunError: If its folder does not exist or cannot be written to.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise RunError(
            f"{path} cannot be written ({error.strerror}): give a folder that exists and is yours"
        ) from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except OSError as error:
        raise RunError(f"{path} cannot be written ({error.strerror}): make room, or give another place") from error
    finally:
        Path(name).unlink(missing_ok=True)
