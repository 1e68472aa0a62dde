"""Trained students on disk: each is trained once, and found again by what it was trained from."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from kneepoint.tasks.errors import RunError

_FACTS = "kneepoint"


class StudentStore:
    """A folder of content-addressed weights, ``SHA256.safetensors``, and a small file for every key that names one.

    Several workers may store students at the same time: no file is written by two keys.

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
        path = self._entry(key)
        if not path.exists():
            return None
        try:
            content = json.loads(path.read_text())["content"]
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{path} must be what a run wrote; delete it to train the student again ({error})"
            ) from error
        return load_tensors(self.directory, str(content))

    def store(self, key: str, tensors: Mapping[str, Tensor]) -> str:
        """Write ``tensors`` and remember them under ``key``; returns their SHA-256."""
        content = store_tensors(self.directory, tensors)
        entry = json.dumps({"key": key, "content": content}, indent=1)
        write_atomically(self._entry(key), entry.encode())
        return content

    def forget(self, key: str) -> None:
        """Delete what is stored under ``key``, which nothing else names; nothing happens where there is none."""
        path = self._entry(key)
        with suppress(OSError, ValueError, KeyError, TypeError, RunError):
            weights = stored_path(self.directory, str(json.loads(path.read_text())["content"]))
            path.unlink()
            weights.unlink()

    def _entry(self, key: str) -> Path:
        return self.directory / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"


def store_tensors(directory: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any] | None = None) -> str:
    """Write ``tensors`` to ``directory/SHA256.safetensors`` and return the SHA-256 (64 hexadecimal digits).

    Args:
        directory: Made where it is missing.
        tensors: By name; equal tensors and facts make equal files.
        facts: JSON to keep with them.
    """
    # Cloned, because safetensors refuses tensors that share memory, as tied weights do.
    plain = {name: value.detach().clone().contiguous() for name, value in tensors.items()}
    # One entry, because safetensors writes several in a random order, and the file would have another name each time.
    metadata = {_FACTS: json.dumps(facts, sort_keys=True)} if facts else None
    data = safetensors.torch.save(plain, metadata)
    content = hashlib.sha256(data).hexdigest()
    directory.mkdir(parents=True, exist_ok=True)
    write_atomically(directory / f"{content}.safetensors", data)
    return content


def stored_facts(data: bytes) -> dict[str, Any]:
    """The facts kept in a file, from its bytes; empty where there are none.

    The layout is that of https://huggingface.co/docs/safetensors: the header's length in 8 bytes, then JSON.
    """
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    facts: dict[str, Any] = json.loads(header.get("__metadata__", {}).get(_FACTS, "{}"))
    return facts


def load_tensors(directory: Path, content: str) -> dict[str, Tensor]:
    """Read what :func:`store_tensors` wrote.

    Raises:
        RunError: If there is no such file, or its bytes have another SHA-256.
    """
    tensors: dict[str, Tensor] = safetensors.torch.load(checked_bytes(directory, content))
    return tensors


def stored_path(directory: Path, content: str) -> Path:
    """``directory/CONTENT.safetensors``.

    Raises:
        RunError: If the name is no SHA-256, and might lead elsewhere.
    """
    if len(content) != 64 or not set(content) <= set("0123456789abcdef"):
        raise RunError(f"stored weights are named by a SHA-256; got {content!r}")
    return directory / f"{content}.safetensors"


def checked_bytes(directory: Path, content: str) -> bytes:
    """The bytes of ``directory/CONTENT.safetensors``, checked against their name.

    Raises:
        RunError: If the name is no SHA-256, the file is missing, or its bytes differ.
    """
    path = stored_path(directory, content)
    if not path.exists():
        raise RunError(f"{path} is missing: the run directory is incomplete")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != content:
        raise RunError(
            f"{path} does not hold what its name says: it was changed or damaged; delete it and resume the run"
        )
    return data


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, and never a part."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
