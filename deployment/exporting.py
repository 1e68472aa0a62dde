"""A compressed network as a deployable folder: the artifact, checked, and a manifest that says what it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime

from kneepoint.compression.compressed import CompressedNetwork
from kneepoint.compression.student_store import write_atomically
from kneepoint.deployment.float_kernels import FloatKernel, float_kernels
from kneepoint.deployment.onnx_export import to_onnx
from kneepoint.deployment.parity import Parity, compare
from kneepoint.deployment.runtime import kernel_counts
from kneepoint.tasks.errors import InputError, nearest
from kneepoint.tasks.task import Task

TARGETS = ("onnxruntime",)
MODEL_FILE = "model.onnx"
MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True)
class Artifact:
    """What an export wrote.

    Attributes:
        path: The model file.
        bytes: Its size on disk.
        sha256: Of its content.
        parity: Simulated against executed, on the validation data.
        kernels: How often each kernel stands in the graph ONNX Runtime executes.
        floats: The kernels that compute in float, with the reason.
    """

    path: Path
    bytes: int
    sha256: str
    parity: Parity
    kernels: Mapping[str, int]
    floats: tuple[FloatKernel, ...] = ()


def export_network(
    compressed: CompressedNetwork,
    task: Task,
    directory: Path,
    target: str = "onnxruntime",
    file_name: str = MODEL_FILE,
    extra: Mapping[str, Any] | None = None,
) -> Artifact:
    """Write the artifact and its manifest; nothing is left behind when the check fails.

    Files that are already there are replaced one at a time, each as a whole, the manifest (with the model's SHA-256)
    last.

    Args:
        compressed: What to write.
        task: For example inputs and the check.
        directory: Made if missing.
        target: One of ``TARGETS``.
        file_name: The model's name within ``directory``.
        extra: Further entries of the manifest, such as predicted scores; its own entries stay as they are.

    Raises:
        InputError: If the target is unknown, or the directory cannot be written.
        JobFailed: If the network cannot be exported.
        ParityError: If the runtime does not reach the simulated score.
    """
    check_target(target)
    data = to_onnx(compressed, task.example_input).SerializeToString(deterministic=True)
    parity = compare(data, task, compressed.module)
    parity.require(file_name)
    path = directory / file_name
    artifact = Artifact(
        path,
        len(data),
        hashlib.sha256(data).hexdigest(),
        parity,
        dict(kernel_counts(data)),
        tuple(float_kernels(compressed)),
    )
    own = _manifest(artifact, compressed, task, target)
    manifest = own | dict(extra or {}) | own
    _write(path, data, json.dumps(manifest, indent=1).encode())
    return artifact


def check_target(target: str) -> None:
    """Refuse an unknown target.

    Raises:
        InputError: Naming the nearest one.
    """
    if target not in TARGETS:
        raise InputError(f"unknown target {target!r}; {nearest(target, TARGETS)}")


def _write(path: Path, data: bytes, manifest: bytes) -> None:
    name = MANIFEST_FILE if path.name == MODEL_FILE else f"{path.stem}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
        write_atomically(path.with_name(name), manifest)
    except OSError as error:
        raise InputError(
            f"an artifact needs a folder that can be written; {path.parent}: {error.strerror}; choose another"
        ) from error


def _manifest(artifact: Artifact, compressed: CompressedNetwork, task: Task, target: str) -> dict[str, Any]:
    parity = artifact.parity
    return {
        "schema": "kneepoint.artifact/1",
        "task": task.name,
        "target": target,
        "file": artifact.path.name,
        "bytes": artifact.bytes,
        "sha256": artifact.sha256,
        "policy_id": compressed.policy.id,
        "policy": compressed.policy.to_json(),
        "metric": task.metric.name,
        "simulated": parity.simulated.to_json(),
        "executed": parity.executed.to_json(),
        "agreement": parity.agreement,
        "deviation": parity.deviation,
        "kernels": dict(artifact.kernels),
        "float_kernels": [kernel.to_json() for kernel in artifact.floats],
        "onnxruntime": onnxruntime.__version__,
    }
