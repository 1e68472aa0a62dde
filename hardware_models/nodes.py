"""The nodes that a runtime executes while its optimizer still moves them about, and the values between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from kneepoint.hardware_models.kernels import KernelFormat, Layout
from kneepoint.hardware_models.operators import Operator
from kneepoint.hardware_models.permutations import Axes


@dataclass(slots=True)
class Value:
    """An activation between two nodes.

    Attributes:
        shape: As it lies in memory: a transposed value has a transposed shape.
        width: Bytes of an element.
        buffer: The name of the value whose memory it shares; views share that of what they look at. Empty for what is
            no activation.
    """

    shape: tuple[int, ...]
    width: int
    buffer: str

    @property
    def elements(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)


@dataclass(slots=True, eq=False)
class Node:
    """One node: a kernel without its sizes.

    Attributes:
        name: Of the operator it is headed by, or of the value it converts.
        kind: A kind of kernel.
        inputs: Values it reads, in order.
        output: The value it writes.
        format: What it computes with.
        function: As that of a kernel.
        operator: What it computes; None for conversions.
        operators: Names of all operators it stands for.
        weight_bytes: Constants it reads.
        macs: Multiply-accumulate operations.
        axes: The permutation of a transpose, the axes that a reduction or concatenation works along.
        layout: How its tensors lie in memory.
        activation: What is fused behind a convolution, apart from a sum.
        sums: Whether a sum is fused into a convolution.
        operand: The shape of the constant that an elementwise node combines its only input with, if it does.
        also: Further values that it writes, in the same buffer.
    """

    name: str
    kind: str
    inputs: list[str]
    output: str
    format: KernelFormat = "fp32"
    function: str = ""
    operator: Operator | None = None
    operators: tuple[str, ...] = ()
    weight_bytes: int = 0
    macs: int = 0
    axes: Axes = ()
    layout: Layout = ""
    activation: str = ""
    sums: bool = False
    operand: tuple[int, ...] | None = None
    also: tuple[str, ...] = ()

    @property
    def functions(self) -> str:
        """All that it does beside its kind; how a view is called makes no difference."""
        if self.kind == "view":
            return ""
        return "+".join(filter(None, (self.function, "add" if self.sums else "", self.activation)))


@dataclass
class NodeGraph:
    """Nodes in execution order, and the values they pass on.

    Attributes:
        nodes: In an order in which every value is written before it is read.
        values: By name.
        inputs: Names of the values that the network is given.
        outputs: Names of those that it returns.
        producer: Of every value that a node writes.
        readers: Of every value: one entry for each time it is read.
    """

    nodes: list[Node]
    values: dict[str, Value]
    inputs: Sequence[str]
    outputs: Sequence[str]
    producer: dict[str, Node] = field(default_factory=dict)
    readers: dict[str, list[Node]] = field(default_factory=dict)
    _gone: set[int] = field(default_factory=set)
    _changed: bool = False

    def __post_init__(self) -> None:
        """Index the nodes."""
        self.index()

    def index(self) -> None:
        """Find out anew who writes and who reads each value."""
        self.producer = {node.output: node for node in self.nodes}
        self.readers = {}
        for node in self.nodes:
            for name in node.inputs:
                self.readers.setdefault(name, []).append(node)

    def uses(self, name: str) -> int:
        """How often a value is read; being an output of the network counts."""
        return len(self.readers.get(name, ())) + (name in self.outputs)

    def only_reader(self, name: str) -> Node | None:
        """The node that alone reads ``name``; None if there are more, or if the network returns it."""
        found = self.readers.get(name, ())
        return found[0] if len(found) == 1 and name not in self.outputs else None

    def derive(self, name: str, like: str, shape: tuple[int, ...] | None = None) -> str:
        """Declare a value named ``name``, numbered if need be, of the type of another one, with memory of its own."""
        unique, number = name, 1
        while unique in self.values:
            number += 1
            unique = f"{name}:{number}"
        source = self.values[like]
        self.values[unique] = Value(source.shape if shape is None else shape, source.width, unique)
        return unique

    def read_instead(self, node: Node, old: str, new: str) -> None:
        """Make ``node`` read ``new`` wherever it reads ``old``."""
        for position, name in enumerate(node.inputs):
            if name == old:
                node.inputs[position] = new
                self.readers[old].remove(node)
                self.readers.setdefault(new, []).append(node)

    def add(self, node: Node) -> None:
        """Index a new node; :meth:`sort` gives it its place."""
        self._changed = True
        self.nodes.append(node)
        self.producer[node.output] = node
        for name in node.inputs:
            self.readers.setdefault(name, []).append(node)

    def absorb(self, node: Node, follower: Node) -> None:
        """Let ``node`` write what ``follower``, which is part of it then, wrote."""
        node.operators += follower.operators
        self.discard(follower)
        self.producer.pop(node.output)
        node.output = follower.output
        self.producer[node.output] = node

    def discard(self, node: Node) -> None:
        """Take a node out of the index; :meth:`sort` takes it off the list."""
        self._changed = True
        self._gone.add(id(node))
        for name in node.inputs:
            self.readers[name].remove(node)
        if self.producer.get(node.output) is node:
            del self.producer[node.output]

    def sort(self) -> None:
        """Put every node behind those whose values it reads, else leave the order as it is; drop what was discarded."""
        if not self._changed:
            return
        done, self._gone, self._changed = self._gone, set(), False
        ordered: list[Node] = []
        for node in self.nodes:
            if id(node) in done:
                continue
            stack = [node]
            while stack:
                current = stack[-1]
                waiting = [
                    source
                    for name in current.inputs
                    if (source := self.producer.get(name)) is not None and id(source) not in done
                ]
                if waiting:
                    stack.extend(reversed(waiting))
                    continue
                stack.pop()
                if id(current) not in done:
                    done.add(id(current))
                    ordered.append(current)
        self.nodes = ordered
