"""Networks that understand speech."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kneepoint.hardware_models.operators import OperatorTable
from kneepoint.hardware_models.zoo.builder import NetworkBuilder
from kneepoint.hardware_models.zoo.network import ZooNetwork

_PAPER = "He et al. 2018, arXiv 1811.06621; MLPerf Inference's speech_recognition/rnnt"

_FEATURES = 240
"""Of three frames of 10 ms together."""
_SYMBOLS = 29


@dataclass
class LstmLayer:
    """One layer of a long short-term memory (Hochreiter and Schmidhuber 1997), step by step.

    Attributes:
        b: The builder.
        name: Of its weights, which all steps share.
        width: Of its state.
        hidden: What it passed on last; (batch, 1, width).
        cell: What it remembers.
    """

    b: NetworkBuilder
    name: str
    width: int
    hidden: str
    cell: str

    def run(self, inputs: str) -> list[str]:
        """Its output at every step of (batch, steps, features); what depends on inputs alone is one product for all."""
        b, steps = self.b, self.b.shape(inputs)[1]
        gates = b.linear(inputs, 4 * self.width, name=f"{self.name}.inputs")
        return [self.step(b.slice(gates, 1)) for _ in range(steps)]

    def step(self, gates: str) -> str:
        """One step, of what inputs make of the four gates."""
        b, width = self.b, self.width
        gates = b.add(gates, b.linear(self.hidden, 4 * width, name=f"{self.name}.hidden"))
        enter, forget, out = (b.activation(b.slice(gates, width, 2), "sigmoid") for _ in range(3))
        value = b.activation(b.slice(gates, width, 2), "tanh")
        self.cell = b.add(b.mul(forget, self.cell), b.mul(enter, value))
        self.hidden = b.mul(out, b.activation(self.cell, "tanh"))
        return self.hidden


def _layers(b: NetworkBuilder, x: str, names: Iterable[str], width: int, states: list[str]) -> str:
    for name in names:
        layer = LstmLayer(b, name, width, b.input(1, width), b.input(1, width))
        x = b.concat(layer.run(x))
        states.extend((layer.hidden, layer.cell))
    return x


def rnn_transducer(b: NetworkBuilder, steps: int = 200, symbols: int = 100) -> OperatorTable:
    """MLPerf's RNN-T: it hears ``steps`` of 30 ms and writes ``symbols`` letters.

    Five layers listen, two read what was written so far, and both are joined wherever a letter may be written: once for
    each step that was heard (two of 30 ms), and once more for each letter.

    Args:
        b: The builder.
        steps: Even.
        symbols: Letters.
    """
    states: list[str] = []
    x = _layers(b, b.input(steps, _FEATURES), ("listener0", "listener1"), 1024, states)
    x = _layers(b, b.view(x, steps // 2, 2048), ("listener2", "listener3", "listener4"), 1024, states)
    words = b.embedding(b.input(symbols), _SYMBOLS - 1, 320)
    y = _layers(b, words, ("reader0", "reader1"), 320, states)
    outputs = []
    for _ in range(steps // 2 + symbols):
        joined = b.concat((b.slice(x, 1), b.slice(y, 1)), 2)
        joined = b.linear(joined, 512, activation="relu", name="join0")
        outputs.append(b.linear(joined, _SYMBOLS, name="join1"))
    return b.table(*outputs, *states)


NETWORKS = (
    ZooNetwork(
        "RNN-T LibriSpeech", "RNN-T", rnn_transducer, _PAPER,
        note="built for 6 seconds of speech and 100 letters; published rows are means over utterances of many lengths",
        comparable=False,
    ),
)  # fmt: skip
