"""Names of Python objects in job files: ``package.module:name`` or ``file.py:name``."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from kneepoint.tasks.errors import JobError, nearest


def load_reference(reference: str, folder: Path) -> Any:
    """The object that ``reference`` names.

    Args:
        reference: ``package.module:name`` or ``file.py:name``.
        folder: What a relative file is relative to.

    Raises:
        JobError: If the module cannot be imported or has no such name.
    """
    where, colon, name = reference.rpartition(":")
    if not colon or not where or not name:
        raise JobError(f"a reference reads 'package.module:name' or 'file.py:name'; got {reference!r}")
    module = _load_file(folder / where) if where.endswith(".py") else _import(where)
    if not hasattr(module, name):
        public = [entry for entry in vars(module) if not entry.startswith("_")]
        raise JobError(f"{where} has no {name!r}; {nearest(name, public)}")
    return getattr(module, name)


def absolute_reference(reference: str, folder: Path) -> str:
    """``reference`` with a file's full path, so that it can be read from anywhere."""
    where, _, name = reference.rpartition(":")
    return f"{(folder / where).resolve()}:{name}" if where.endswith(".py") else reference


def reference_to(function: Any) -> str | None:
    """How a job file can name a module-level function or class; None for one that it cannot."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if module in (None, "__main__") or name is None or "." in name or "<" in name:
        return None
    return f"{module}:{name}" if module in sys.modules else None


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise JobError(f"cannot import {name!r}: {error}; is it installed in this environment?") from error


def _load_file(path: Path) -> ModuleType:
    path = path.resolve()
    if not path.is_file():
        raise JobError(f"there is no file {path}")
    name = f"kneepoint_user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise JobError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's own code
        del sys.modules[name]
        raise JobError(f"running {path} failed: {type(error).__name__}: {error}") from error
    return module
