"""Trained students on disk: each is trained once, and found again by what it was trained from."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from kneepoint.tasks.errors import RunError


class StudentStore:
    """A folder of content-addressed weights, ``SHA256.safetensors``, and an index from keys to contents.

    Attributes:
        directory: Made when the first student is stored.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def load(self, key: str) -> dict[str, Tensor] | None:
        """The weights stored under ``key``, or None.

        Raises:
            RunError: If the stored file does not hold what its name says.
        """
        content = self._index().get(key)
        return None if content is None else load_tensors(self.directory, content)

    def store(self, key: str, tensors: Mapping[str, Tensor]) -> str:
        """Write ``tensors`` and remember them under ``key``; returns their SHA-256."""
        content = store_tensors(self.directory, tensors)
        index = {**self._index(), key: content}
        write_atomically(self.directory / "index.json", json.dumps(index, indent=1, sort_keys=True).encode())
        return content

    def _index(self) -> dict[str, str]:
        path = self.directory / "index.json"
        if not path.exists():
            return {}
        try:
            index = json.loads(path.read_text())
        except ValueError as error:
            raise RunError(f"{path} must be JSON; delete it to train the students again ({error})") from error
        return {str(key): str(content) for key, content in index.items()}


def store_tensors(directory: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> str:
    """Write ``tensors`` to ``directory/SHA256.safetensors`` and return the SHA-256 (64 hexadecimal digits)."""
    plain = {name: value.detach().contiguous() for name, value in tensors.items()}
    data = safetensors.torch.save(plain, dict(metadata) if metadata else None)
    content = hashlib.sha256(data).hexdigest()
    directory.mkdir(parents=True, exist_ok=True)
    write_atomically(directory / f"{content}.safetensors", data)
    return content


def load_tensors(directory: Path, content: str) -> dict[str, Tensor]:
    """Read what :func:`store_tensors` wrote.

    Raises:
        RunError: If there is no such file, or its bytes have another SHA-256.
    """
    tensors: dict[str, Tensor] = safetensors.torch.load(checked_bytes(directory, content))
    return tensors


def checked_bytes(directory: Path, content: str) -> bytes:
    """The bytes of ``directory/CONTENT.safetensors``, checked against their name.

    Raises:
        RunError: If the name is no SHA-256, the file is missing, or its bytes differ.
    """
    if len(content) != 64 or not set(content) <= set("0123456789abcdef"):
        raise RunError(f"stored weights are named by a SHA-256; got {content!r}")
    path = directory / f"{content}.safetensors"
    if not path.exists():
        raise RunError(f"{path} is missing: the run directory is incomplete")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != content:
        raise RunError(f"{path} does not hold what its name says: it was changed or damaged; delete it and resume the run")
    return data


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, and never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
