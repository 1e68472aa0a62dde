"""Device files: where they are, and how they are read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

import platformdirs
import yaml
from pydantic import BaseModel, ValidationError

from kneepoint.hardware_models.device import NAME, Device
from kneepoint.hardware_models.kernels import KernelFormat
from kneepoint.tasks.errors import DeviceError, nearest

SHIPPED = Path(__file__).parent / "device_files"
THIS_MACHINE = "this-machine"
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Both refuse tags that make objects; the one in C takes a fitted model of a megabyte in its stride."""


def load_device(name_or_path: str | Path) -> Device:
    """The device of that name, or in that file.

    Args:
        name_or_path: A name that ships or that the user's data folder holds, or a path that ends in ``.yaml``.

    Raises:
        DeviceError: If there is no such device, or if its file is malformed.
    """
    text = str(name_or_path)
    if text.endswith((".yaml", ".yml")):
        return _read(Path(text))
    if not NAME.fullmatch(text):
        raise DeviceError(
            "a device is a name of lower-case letters, digits, dots and hyphens, or a path ending in .yaml; "
            f"got {text!r}"
        )
    for folder in (user_folder(), SHIPPED):
        if (path := folder / f"{text}.yaml").is_file():
            return _read(path, expected=text)
    if text == THIS_MACHINE:
        raise DeviceError(
            "no device file describes this machine yet: run 'kneepoint devices calibrate', which takes ten minutes, or "
            "pass the path of a device file (.yaml) instead"
        )
    raise DeviceError(f"unknown device {text!r}; {nearest(text, list_devices())}; or pass the path of a .yaml file")


def list_devices() -> tuple[str, ...]:
    """Names of every device that ships or that the user's data folder holds."""
    found = {path.stem for folder in (SHIPPED, user_folder()) if folder.is_dir() for path in folder.glob("*.yaml")}
    return tuple(sorted(name for name in found if NAME.fullmatch(name)))


def user_folder() -> Path:
    """Where the user's own device files are looked for, before those that ship."""
    return platformdirs.user_data_path("kneepoint") / "devices"


def _safe_content(text: str) -> Any:
    """What ``yaml.safe_load`` gives, with the faster of the safe loaders."""
    loader = _LOADER(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _read(path: Path, expected: str | None = None) -> Device:
    try:
        content = _safe_content(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DeviceError(f"cannot read device file {path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DeviceError(f"device file {path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise DeviceError(f"device file {path} holds a mapping of fields; got {type(content).__name__}")
    try:
        device = Device.model_validate(content)
    except ValidationError as error:
        raise DeviceError(f"device file {path}: {_explain(error)}") from error
    if expected is not None and device.name != expected:
        raise DeviceError(f"device file {path} is named after its device; it says name: {device.name}")
    return device


def _explain(error: ValidationError) -> str:
    """All problems on one line: each key, what is wrong with it and the nearest known key."""
    return "; ".join(dict.fromkeys(_problem(entry) for entry in error.errors(include_url=False, include_context=False)))


def _problem(entry: Any) -> str:
    path = tuple(entry["loc"])
    if entry["type"] == "extra_forbidden":
        return f"unknown key {_dotted(path)!r}, {nearest(str(path[-1]), _known_keys(path[:-1]))}"
    if entry["type"] == "literal_error" and path[-1] == "[key]":  # pydantic's word for the key of a mapping
        return f"unknown format {_dotted(path[:-1])!r}, {nearest(str(path[-2]), get_args(KernelFormat))}"
    message = str(entry["msg"]).removeprefix("Value error, ")
    return f"{_dotted(path)}: {message}" if path else message


def _dotted(path: Iterable[object]) -> str:
    return ".".join(str(part) for part in path)


def _known_keys(path: tuple[object, ...]) -> Iterable[str]:
    """The fields of the part of a device that ``path`` leads to."""
    schema: Any = Device
    for part in path:
        if isinstance(schema, type) and issubclass(schema, BaseModel) and part in schema.model_fields:
            schema = _model_in(schema.model_fields[str(part)].annotation)
    return schema.model_fields if schema is not None else ()


def _model_in(annotation: Any) -> Any:
    """The schema that an annotation such as ``Power | None`` or ``tuple[Cache, ...]`` is about."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for entry in get_args(annotation) if (found := _model_in(entry))), None)
