"""Candidates on ONNX Runtime itself, without a second in torch.onnx for each of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch

from kneepoint.compression.compressed import CompressedNetwork
from kneepoint.deployment.onnx_export import to_onnx
from kneepoint.deployment.parity import LARGEST_DEVIATION, deviation
from kneepoint.deployment.runtime import answer, open_session, predict
from kneepoint.deployment.template import Template, template_of
from kneepoint.deployment.tidying import tidy
from kneepoint.deployment.writing import write
from kneepoint.tasks.batches import as_pair, leaves
from kneepoint.tasks.errors import JobFailed
from kneepoint.tasks.modes import module_mode
from kneepoint.tasks.seeding import ORDER_SEED, seeded
from kneepoint.tasks.task import Task

Unpruned = Callable[[CompressedNetwork], CompressedNetwork]
"""For a candidate, the float network of its architecture at full width."""
_ARCHITECTURES = 8
"""Templates that are kept ready."""
_Key = tuple[object, frozenset[str]]


class Execution:
    """Runs candidates of a task on ONNX Runtime; each architecture is exported once.

    Integer kernels take a fraction of the time of the simulator's float arithmetic where the processor has
    instructions for them.

    Args:
        task: Gives the data.
        unpruned: Makes what an architecture's template is exported from.
        threads: Inside an operator.
    """

    def __init__(self, task: Task, unpruned: Unpruned, threads: int = 1) -> None:
        self.task = task
        self.unpruned = unpruned
        self.threads = threads
        self._templates: OrderedDict[_Key, Template] = OrderedDict()
        self._checked: set[_Key] = set()

    def predict(self, compressed: CompressedNetwork) -> tuple[Any, Any]:
        """Outputs and targets on the validation data, as :meth:`Task.predict` gives them.

        A pruned network whose operators have sizes written into them is run by the simulator.

        Raises:
            JobFailed: If this machine's kernels do not compute what the simulator does.
        """
        template = self._template(compressed)
        if not template.serves(compressed):
            return self.task.predict(compressed.module)
        session = open_session(write(template, compressed).SerializeToString(), self.threads)
        key = _key(compressed)
        plan = compressed.plan
        if key not in self._checked and (plan.integer_kernels or plan.dynamic or plan.blockwise):
            self._require_parity(session, compressed)
            self._checked.add(key)
        return predict(session, self.task, like=self._like)

    def artifact(self, compressed: CompressedNetwork) -> bytes:
        """The serialized artifact of a candidate, for ONNX Runtime to be timed on.

        Raises:
            JobFailed: If torch.onnx cannot write an operator of the network.
        """
        template = self._template(compressed)
        if not template.serves(compressed):
            return bytes(to_onnx(compressed, self.task.example_input).SerializeToString())
        model = write(template, compressed)
        tidy(model)
        return bytes(model.SerializeToString())

    @cached_property
    def _like(self) -> Any:
        """Outputs whose structure every candidate's have."""
        with module_mode(self.task.model, training=False), torch.inference_mode():
            return self.task.call(self.task.model, self.task.example_input)

    def _template(self, compressed: CompressedNetwork) -> Template:
        key = _key(compressed)
        if key not in self._templates:
            unpruned = self.unpruned(compressed)
            self._templates[key] = template_of(unpruned, self.task.example_input, shared=True)
        self._templates.move_to_end(key)
        while len(self._templates) > _ARCHITECTURES:
            self._templates.popitem(last=False)
        return self._templates[key]

    def _require_parity(self, session: Any, compressed: CompressedNetwork) -> None:
        """One batch by both, the first time that an architecture runs on integers."""
        with seeded(ORDER_SEED):
            inputs, _ = as_pair(next(iter(self.task.validation)), "validation")
        with module_mode(compressed.module, training=False), torch.inference_mode():
            simulated = self.task.call(compressed.module, inputs)
        executed = answer(session, inputs, simulated)
        off = max(map(deviation, leaves(simulated), leaves(executed)))
        if off > LARGEST_DEVIATION:
            raise JobFailed(
                f"this machine's ONNX Runtime must compute what the simulator does; outputs are off by {off:.0%} "
                "(integer kernels of x86 processors without VNNI saturate): use measure='simulator'"
            )


def _key(compressed: CompressedNetwork) -> _Key:
    """The architecture: a student, and the residual blocks it lacks."""
    return compressed.policy.student, compressed.policy.dropped_blocks
