"""What a decoder costs a token, where it reads one at a time and keeps the keys and values of those before."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from kneepoint.hardware_models.device import Device
from kneepoint.hardware_models.workload import Workload
from kneepoint.objectives.costs import OnDevice
from kneepoint.objectives.view import View, model_of
from kneepoint.spaces.lowering import lower
from kneepoint.spaces.network import Network
from kneepoint.spaces.policy import Policy
from kneepoint.tasks.decoding import decoding_step
from kneepoint.tasks.errors import ObjectiveError
from kneepoint.tasks.metrics import Score

Step = Callable[[nn.Module], tuple[nn.Module, Any]]
"""Makes of the task's model a module that reads one token, and inputs of it for one sample."""
PER_TOKEN = "token_latency_ms"  # noqa: S105 - tokens of a text, no secret
CONTEXT = 256
_NAME = re.compile(rf"{PER_TOKEN}/context-(?P<context>[1-9]\d*)@(?P<device>.+)")


class LatencyPerToken(OnDevice):
    """Predicted milliseconds of one token at batch 1, with the cost model's standard error.

    The task's model reads whole texts, which is how its quality is measured; a decoder that writes one reads a token
    at a time. Then arithmetic hardly counts: every weight is read once for one token, and the cost model prices its
    bytes over the bandwidth. Keys and values of the tokens before are inputs, and are read, too.

    The name is ``token_latency_ms/context-256@DEVICE``.

    Args:
        device: A name that ``kneepoint devices list`` shows, the path of a device file, or a device.
        context: Tokens before the one that is priced.
        step: Makes the step; by default of a causal language model of the Transformers library
            (:func:`kneepoint.tasks.decoding.decoding_step`). The step computes with the model's own parameters, or
            with views of them, so that a policy of the model is one of the step.

    Raises:
        DeviceError: If there is no such device.
        ObjectiveError: If ``context`` is below 1.
    """

    prefix = PER_TOKEN
    unit = "ms"

    def __init__(self, device: str | Device, context: int = CONTEXT, step: Step | None = None) -> None:
        super().__init__(device)
        if type(context) is not int or context < 1:
            raise ObjectiveError(f"a token is priced behind a context of at least 1 token; got {context!r}")
        self.context = context
        self.step = step
        self.name = f"{PER_TOKEN}/context-{context}@{self.device}"
        self._network: tuple[nn.Module, Network] | None = None

    @classmethod
    def named(cls, name: str) -> LatencyPerToken:
        """The objective of this name.

        Raises:
            ObjectiveError: If the name is not one that an objective gets.
            DeviceError: If the device is unknown.
        """
        found = _NAME.fullmatch(name)
        if found is None:
            raise ObjectiveError(f"the latency of a token is called {PER_TOKEN}/context-{CONTEXT}@DEVICE; got {name!r}")
        return cls(found["device"], int(found["context"]))

    def score(self, view: View) -> Score:
        """The predicted latency.

        Raises:
            ObjectiveError: If the candidate is a student, of which no step is known, or if the step does not have
                the layers and channel groups that the candidate's policy names.
            TaskError: If no step can be made of the task's model.
        """
        if view.policy.student:
            raise ObjectiveError(f"{self.name} knows one step, the teacher's: search with students=None")
        network = self.network(view.task.model)
        table = lower(network, _of_step(view.policy, view.network, network))
        cost = model_of(self.hardware).cost(Workload.of(table, self.hardware.fusion))
        return Score(cost.latency_ms, cost.latency_ms_error)

    def network(self, model: nn.Module) -> Network:
        """The step as it is priced, traced once for every model."""
        if self._network is None or self._network[0] is not model:
            module, inputs = self.step(model) if self.step is not None else decoding_step(model, self.context)
            self._network = model, Network(module, inputs, has_caches=True)
        return self._network[1]

    def __getstate__(self) -> dict[str, object]:
        """Without the trace, which another process makes again."""
        return {**self.__dict__, "_network": None}


def _of_step(policy: Policy, network: Network, step: Network) -> Policy:
    """The policy under the step's own names of layers: those that have the same weights."""
    named = {_place(tensor): name for name, tensor in step.tensors().items()}
    layer_of = {layer.weight: name for name, layer in step.layers.items()}
    stored, layers = network.tensors(), {}
    for name, entry in policy.layers:
        weight = named.get(_place(stored[network.layers[name].weight]), "")
        if weight not in layer_of:
            raise ObjectiveError(
                f"a step computes with the model's own layers, and this one has none with the weight of {name!r}; "
                "let it share the model's parameters"
            )
        layers[layer_of[weight]] = step.layers[layer_of[weight]].admit(entry)
    unknown = [*(policy.keep_of.keys() - step.groups.keys()), *(policy.dropped_blocks - step.blocks.keys())]
    if unknown:
        raise ObjectiveError(
            f"a step has the model's own channel groups and residual blocks, and this one has no {min(unknown)!r}; let "
            "it name its modules as the model does, or search with keep=(1.0,) and blocks=False"
        )
    return Policy.build("teacher", dict(policy.keep), layers)


def _place(tensor: Tensor) -> int:
    return tensor.data_ptr()
