"""Trained weights kept between runs in the user's cache folder, as safetensors."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

import platformdirs
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

FOLDER_VARIABLE = "KNEEPOINT_CACHE"


def cache_folder() -> Path:
    """The folder that the environment variable ``KNEEPOINT_CACHE`` names, else the user's cache folder."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    return Path(chosen) if chosen else platformdirs.user_cache_path("kneepoint")


def load_weights(module: nn.Module, name: str) -> bool:
    """Loads the cached weights ``name`` into ``module``; False where there are none that can be read and fit."""
    try:
        weights = load((cache_folder() / name).read_bytes())
    except (OSError, SafetensorError):  # absent or corrupt
        return False
    # Compared before loading: load_state_dict copies what fits before it refuses the rest.
    expected = {key: value.shape for key, value in module.state_dict().items()}
    if {key: value.shape for key, value in weights.items()} != expected:
        return False
    module.load_state_dict(weights)
    return True


def save_weights(module: nn.Module, name: str) -> None:
    """Keeps the weights of ``module`` as ``name``: whole or not at all, whoever else writes the same file.

    A folder that cannot be written is no error: it only costs the time to train again.
    """
    folder = cache_folder()
    # Copies, because tied weights share memory, which the format refuses.
    data = save({key: value.detach().clone().contiguous() for key, value in module.state_dict().items()})
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=name, suffix=".part", delete=False) as file:
            file.write(data)
        Path(file.name).replace(folder / name)
