"""The front of a run as a picture, for a page or a slide."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import plotly.graph_objects as go

from kneepoint.reports.figures import front_figure
from kneepoint.reports.files import write_atomically
from kneepoint.reports.run_view import RunView
from kneepoint.tasks.errors import JobFailed, RunError


def write_picture(directory: str | os.PathLike[str], destination: str | os.PathLike[str]) -> Path:
    """Writes the front of a run as a PNG, every cost beside the others.

    Args:
        directory: The run directory.
        destination: The file to write; its name ends in ``.png``.

    Returns:
        The path of the file.

    Raises:
        RunError: If the run is malformed, or ``destination`` does not end in ``.png`` or cannot be written.
        JobFailed: If kaleido, or the browser that it draws with, is missing.
    """
    path = Path(destination)
    if path.suffix.lower() != ".png":
        raise RunError(f"a picture is a PNG file; got {str(path)!r}: give a name that ends in .png")
    figure = front_figure(RunView.read(directory))
    figure.update_layout(paper_bgcolor="white", plot_bgcolor="white")
    write_atomically(path, _png(figure))
    return path


def _png(figure: go.Figure) -> bytes:
    if importlib.util.find_spec("kaleido") is None:
        raise JobFailed("pictures are drawn by kaleido, which is not installed: pip install kneepoint[pictures]")
    try:
        return bytes(figure.to_image(format="png", scale=2))
    except Exception as error:  # kaleido's errors share no base: no browser, a browser that dies, one that hangs
        raise JobFailed(
            f"kaleido could not draw the picture ({error}): it needs Chrome or Chromium, "
            "which plotly_get_chrome installs; kneepoint report needs neither"
        ) from error
