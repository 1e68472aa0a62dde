import importlib.util
from collections.abc import Callable
from pathlib import Path

import plotly.graph_objects as go
import pytest

from kneepoint.reports import write_picture
from kneepoint.tasks.errors import JobFailed, RunError

WriteRun = Callable[..., Path]


def pretend_kaleido(monkeypatch: pytest.MonkeyPatch, installed: bool) -> None:
    found = importlib.util.find_spec

    def find(name: str, package: str | None = None) -> object:
        """Others, plotly's own lazy loading among them, are answered truly."""
        return (object() if installed else None) if name == "kaleido" else found(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find)


def test_without_kaleido_the_extra_is_named(
    run_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_kaleido(monkeypatch, installed=False)
    with pytest.raises(JobFailed, match=r"pip install kneepoint\[pictures\]"):
        write_picture(run_directory, tmp_path / "front.png")
    assert list(tmp_path.iterdir()) == []


def test_writes_what_kaleido_draws(run_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_kaleido(monkeypatch, installed=True)
    monkeypatch.setattr(go.Figure, "to_image", lambda self, **settings: b"\x89PNG")
    assert write_picture(run_directory, tmp_path / "front.png").read_bytes() == b"\x89PNG"


def test_a_browser_that_is_missing(run_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_browser(self: object, **settings: object) -> bytes:
        raise RuntimeError("no browser")

    pretend_kaleido(monkeypatch, installed=True)
    monkeypatch.setattr(go.Figure, "to_image", no_browser)
    with pytest.raises(JobFailed, match=r"could not draw the picture \(no browser\).*plotly_get_chrome"):
        write_picture(run_directory, tmp_path / "front.png")


def test_another_format_is_refused(run_directory: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"a picture is a PNG file; got .*front\.svg.*ends in \.png"):
        write_picture(run_directory, tmp_path / "front.svg")
