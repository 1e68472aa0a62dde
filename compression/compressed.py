"""A candidate's network: everything a policy alone does not fix, and the module that simulates it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, fx

from kneepoint.compression.batch_norm import fold
from kneepoint.compression.simulation import simulate, tensors_of
from kneepoint.compression.student_store import checked_bytes, store_tensors
from kneepoint.spaces.network import Network
from kneepoint.spaces.policy import Policy
from kneepoint.spaces.quant_plan import ActivationQuant, QuantPlan
from kneepoint.spaces.surgery import cut
from kneepoint.tasks.errors import RunError


@dataclass(frozen=True)
class CompressedNetwork:
    """One policy's network, pruned, folded and with its quantization calibrated.

    Attributes:
        policy: What it was made from.
        network: The structure: the teacher's, or the student's.
        folded: The float network with BatchNorm folded in, cut to the kept channels.
        plan: With every scale.
        kept: Sorted indices of the channels that stay, for every thinned group.
    """

    policy: Policy
    network: Network = field(repr=False)
    folded: fx.GraphModule = field(repr=False)
    plan: QuantPlan = field(repr=False)
    kept: Mapping[str, Tensor] = field(repr=False)

    @cached_property
    def module(self) -> fx.GraphModule:
        """The simulator: same outputs as the exported artifact, up to float rounding."""
        return simulate(self.network, self.folded, self.plan)

    def save(self, directory: Path) -> str:
        """Write it to ``directory/SHA256.safetensors``; returns the SHA-256."""
        used = tensors_of(self.folded)
        tensors = {f"weight/{name}": value for name, value in used.items() if value.is_floating_point()}
        tensors.update({f"kept/{group}": rows for group, rows in self.kept.items()})
        for layer, quant in self.plan.weights.items():
            if quant.scale is not None:
                tensors[f"scale/{layer}"] = quant.scale
        activations = {name: [quant.scale, quant.zero_point] for name, quant in self.plan.activations.items()}
        metadata = {"policy": json.dumps(self.policy.to_json()), "activations": json.dumps(activations)}
        return store_tensors(directory, tensors, metadata)

    @classmethod
    def load(cls, directory: Path, content: str, policy: Policy, network: Network) -> CompressedNetwork:
        """Read what :meth:`save` wrote, without computing anything again.

        Args:
            directory: Where it was saved.
            content: The SHA-256 that :meth:`save` returned.
            policy: The candidate's policy; the file's own must be equal.
            network: The structure the policy refers to.

        Raises:
            RunError: If the file is missing, damaged, or holds another policy.
        """
        data = checked_bytes(directory, content)
        metadata = _metadata(data)
        tensors = safetensors.torch.load(data)
        if Policy.from_json(json.loads(metadata.get("policy", "{}"))) != policy:
            raise RunError(f"artifact {content[:12]} holds another policy than candidate {policy.id}")
        kept = _under("kept/", tensors)
        plan = QuantPlan.of(network, policy).with_scales(
            _under("scale/", tensors),
            {name: ActivationQuant(*pair) for name, pair in json.loads(metadata["activations"]).items()},
        )
        folded = with_tensors(fold(network, cut(network, kept)), _under("weight/", tensors))
        return cls(policy, network, folded, plan, kept)


def with_tensors(module: fx.GraphModule, tensors: Mapping[str, Tensor]) -> fx.GraphModule:
    """The same graph on other values."""
    frozen = {name: value.detach() for name, value in tensors_of(module).items()}
    frozen.update({name: value.detach() for name, value in tensors.items()})
    return fx.GraphModule({name: frozen[name] for name in _attributes(module) if name in frozen}, module.graph)


def _attributes(module: fx.GraphModule) -> list[str]:
    return sorted({str(node.target) for node in module.graph.nodes if node.op == "get_attr"})


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _metadata(data: bytes) -> dict[str, str]:
    """The header's metadata; layout: https://huggingface.co/docs/safetensors (8 bytes length, then JSON)."""
    size = int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8 : 8 + size])
    return dict(header.get("__metadata__", {}))


