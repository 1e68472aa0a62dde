"""What ``torch.export`` says when it fails, as one line that names the user's own code."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch

_FOREIGN = (Path(torch.__file__).parent, Path(__file__).parent)
_LONGEST = 300  # characters
_FIXED_BATCH = re.compile(r"your code specialized it to be a constant \((\d+)\)")


def export_failure(error: Exception) -> str:
    """The cause of a failed export, and where in the user's code it arose, where the exporter knows."""
    text = str(error).strip()
    if fixed := _FIXED_BATCH.search(text):
        return f"the model fixes the batch size to that of its example, {fixed[1]}, in a shape or a comparison"
    first_line = (text.splitlines() or [type(error).__name__])[0][:_LONGEST].strip()
    place = user_place(error)
    return f"{first_line} (at {place})" if place else first_line


def user_place(error: BaseException) -> str:
    """``FILE:LINE, in FUNCTION`` of the innermost call that belongs to neither torch, Python nor this room, or ''."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename)]
    return f"{frames[-1].filename}:{frames[-1].lineno}, in {frames[-1].name}" if frames else ""


@contextlib.contextmanager
def quiet_export() -> Iterator[None]:
    """Without the exporter's own report on standard error, a graph of pages: the error carries what matters."""
    logger = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def _is_users(file: str) -> bool:
    path = Path(file)
    if not path.is_file():
        return False  # "<string>" and the like
    if any(folder in path.parents for folder in _FOREIGN):
        return False
    installed = "site-packages" in path.parts
    return "sympy" not in path.parts if installed else Path(sysconfig.get_path("stdlib")) not in path.parents
