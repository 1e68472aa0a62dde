"""Candidates on ONNX Runtime itself, without a second in torch.onnx for each of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from kneepoint.compression.compressed import CompressedNetwork
from kneepoint.deployment.parity import LARGEST_DEVIATION, deviation
from kneepoint.deployment.runtime import answer, open_session, predict
from kneepoint.deployment.template import Template, template_of
from kneepoint.deployment.writing import write
from kneepoint.spaces.network import Network
from kneepoint.tasks.batches import as_pair, leaves
from kneepoint.tasks.errors import RunError
from kneepoint.tasks.task import Task

Unpruned = Callable[[CompressedNetwork], CompressedNetwork]
"""For a candidate, the float network of its architecture at full width."""


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
        self._templates: dict[Network, Template] = {}
        self._like: Any = None

    def predict(self, compressed: CompressedNetwork) -> tuple[Any, Any]:
        """Outputs and targets on the validation data, as :meth:`Task.predict` gives them.

        A pruned network whose operators have sizes written into them is run by the simulator.

        Raises:
            RunError: If this machine's kernels do not compute what the simulator does.
        """
        template = self._templates.get(compressed.network)
        if template is None:
            template = template_of(self.unpruned(compressed), self.task.example_input, any_width=True)
        if compressed.kept and not template.any_width:
            return self.task.predict(compressed.module)
        session = open_session(write(template, compressed).SerializeToString(), self.threads)
        if compressed.network not in self._templates:
            self._like = self._checked(session, compressed)
            self._templates[compressed.network] = template
        return predict(session, self.task, like=self._like)

    def _checked(self, session: Any, compressed: CompressedNetwork) -> Any:
        """One batch by both, the first time that an architecture is run; returns what the simulator gave."""
        inputs, _ = as_pair(next(iter(self.task.validation)), "validation")
        with torch.inference_mode():
            simulated = self.task.call(compressed.module.eval(), inputs)
        executed = answer(session, inputs, simulated)
        off = max(map(deviation, leaves(simulated), leaves(executed)))
        if off > LARGEST_DEVIATION:
            raise RunError(
                f"this machine's ONNX Runtime must compute what the simulator does; outputs are off by {off:.0%} "
                "(integer kernels of x86 processors without VNNI saturate): use measure='simulator'"
            )
        return simulated
