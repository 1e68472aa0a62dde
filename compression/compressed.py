"""A candidate's network: everything a policy alone does not fix, and the module that simulates it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import safetensors.torch
from torch import Tensor, fx

from kneepoint.compression.batch_norm import fold
from kneepoint.compression.memory_format import use_fastest_format_
from kneepoint.compression.simulation import simulate
from kneepoint.compression.student_store import checked_bytes, store_tensors, stored_facts
from kneepoint.spaces.network import Network
from kneepoint.spaces.policy import Policy
from kneepoint.spaces.quant_plan import ActivationQuant, QuantPlan
from kneepoint.spaces.surgery import cut
from kneepoint.spaces.tracing import copy_graph_module, tensors_of
from kneepoint.tasks.errors import RunError


@dataclass(frozen=True)
class CompressedNetwork:
    """One policy's network, pruned, folded and with its quantization calibrated.

    Attributes:
        policy: What it was made from.
        network: The structure: the teacher's, or the student's, without the residual blocks that are left out.
        graph: The float network with BatchNorm folded in, cut to the kept channels; shared by policies of one width.
        tensors: The policy's own values of weights and biases, by name; ``graph`` has all others.
        plan: With every scale.
        kept: Sorted indices of the channels that stay, for every thinned group.
    """

    policy: Policy
    network: Network = field(repr=False)
    graph: fx.GraphModule = field(repr=False)
    tensors: Mapping[str, Tensor] = field(repr=False)
    plan: QuantPlan = field(repr=False)
    kept: Mapping[str, Tensor] = field(repr=False)

    @cached_property
    def folded(self) -> fx.GraphModule:
        """The float network on the policy's values: what activations are not rounded in."""
        return with_tensors(self.graph, self.tensors)

    @cached_property
    def state(self) -> Mapping[str, Tensor]:
        """Every value of the folded network, by name."""
        return {**{name: value.detach() for name, value in tensors_of(self.graph).items()}, **self.tensors}

    @cached_property
    def module(self) -> fx.GraphModule:
        """The simulator: same outputs as the exported artifact, up to float rounding."""
        module = self.simulated()
        use_fastest_format_(module, self.network)
        return module

    def simulated(self) -> fx.GraphModule:
        """The simulator on the tensors of :attr:`graph`, as far as the policy has no others, in their own format."""
        return simulate(self.network, self.graph, self.plan, self.state)

    def save(self, directory: Path) -> str:
        """Write it to ``directory/SHA256.safetensors``; returns the SHA-256."""
        tensors = {f"weight/{name}": value for name, value in self.state.items()}
        tensors.update({f"kept/{group}": rows for group, rows in self.kept.items()})
        for layer, quant in self.plan.weights.items():
            if quant.scale is not None:
                tensors[f"scale/{layer}"] = quant.scale
        activations = {
            name: [quant.scale, quant.zero_point, quant.bits] for name, quant in self.plan.activations.items()
        }
        return store_tensors(directory, tensors, {"policy": self.policy.to_json(), "activations": activations})

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
        facts = stored_facts(data)
        tensors = safetensors.torch.load(data)
        if "policy" not in facts or Policy.from_json(facts["policy"]) != policy:
            raise RunError(f"artifact {content[:12]} holds another policy than candidate {policy.id}")
        kept = _under("kept/", tensors)
        plan = QuantPlan.of(network, policy).with_scales(
            _under("scale/", tensors),
            {name: ActivationQuant(*values) for name, values in facts["activations"].items()},
        )
        graph = fold(network, cut(network, kept))
        return cls(policy, network, graph, _under("weight/", tensors), plan, kept)


def with_tensors(module: fx.GraphModule, tensors: Mapping[str, Tensor]) -> fx.GraphModule:
    """A copy of the graph on other values; those that are not given are shared with ``module``."""
    values = {name: value.detach() for name, value in {**tensors_of(module), **tensors}.items()}
    return copy_graph_module(module, None, values)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
