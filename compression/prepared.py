"""A network cut to one width, with everything that its policies share: each piece is computed when first asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from torch import Tensor, fx

from kneepoint.compression.bias_correction import bias_correction
from kneepoint.compression.quantizers import dequantized_weight, weight_rows
from kneepoint.compression.ranges import Observed, Observer, require_finite
from kneepoint.compression.rounding import learned_rounding, refitted
from kneepoint.compression.settings import QuantizationSettings
from kneepoint.compression.simulation import bias_of
from kneepoint.compression.sparsity import sparsity_mask
from kneepoint.compression.statistics import InputStatistics
from kneepoint.compression.watching import watch
from kneepoint.compression.weight_scales import weight_scales
from kneepoint.spaces.network import LAYER_KINDS, Network
from kneepoint.spaces.policy import INTEGER_ACTIVATIONS, LayerPolicy, Policy
from kneepoint.spaces.quant_plan import ActivationQuant, QuantPlan, WeightQuant
from kneepoint.spaces.tracing import tensors_of


@dataclass(frozen=True)
class QuantizedLayer:
    """One layer in one format.

    Attributes:
        weight: Float, on the format's grid.
        scale: As in :class:`WeightQuant`; None for formats without.
        bias: The corrected bias; None where it stays as it was.
    """

    weight: Tensor
    scale: Tensor | None = None
    bias: Tensor | None = None


def quantizable(network: Network) -> list[str]:
    """Every value that any policy can quantize: those that 8 bits everywhere do."""
    everywhere = {name: layer.admit(LayerPolicy.of_bits(8)) for name, layer in network.layers.items()}
    return list(QuantPlan.of(network, Policy.build(layers=everywhere)).activations)


class PreparedNetwork:
    """A folded float network of one width, and its layers and values in the formats that policies asked for so far.

    Args:
        network: The structure.
        folded: The float network, BatchNorm folded, cut to ``kept``.
        kept: Sorted indices of the channels that stay, for every thinned group.
        settings: How floats become integers.
        inputs: Gives the calibration inputs.
        statistics: Gives what every layer reads.
        observed: What quantizable values are on calibration data, where that is known already.
    """

    def __init__(
        self,
        network: Network,
        folded: fx.GraphModule,
        kept: Mapping[str, Tensor],
        settings: QuantizationSettings,
        inputs: Callable[[], Sequence[Any]],
        statistics: Callable[[], Mapping[str, InputStatistics]],
        observed: Mapping[str, Observed] | None = None,
    ) -> None:
        self.network = network
        self.folded = folded
        self.kept = kept
        self.settings = settings
        self._inputs = inputs
        self._read_statistics = statistics
        self._known = observed or {}
        self._layers: dict[tuple[str, WeightQuant], QuantizedLayer] = {}

    def layer(self, name: str, quant: WeightQuant) -> QuantizedLayer:
        """A layer's weight and bias in a format; the same objects each time."""
        key = (name, quant)
        if key not in self._layers:
            self._layers[key] = self._quantize(name, quant)
        return self._layers[key]

    def activations(self, plan: QuantPlan) -> dict[str, ActivationQuant]:
        """Scales of the values that ``plan`` quantizes, from what the float network computes on calibration data.

        Raises:
            JobFailed: If a value is infinite or NaN on them.
        """
        for name in plan.activations:
            require_finite(name, self._observed[name])
        method = self.settings.activation_range
        return {name: self._observed[name].quant(method, quant.bits) for name, quant in plan.activations.items()}

    @cached_property
    def bias_names(self) -> Mapping[str, str]:
        """The bias of every layer that has one of its own, the same at every call."""
        biases: dict[str, set[str]] = {}
        readers: dict[str, set[str]] = {}
        for node in self.folded.graph.nodes:
            operation = self.network.operation_of.get(node.name)
            if operation is not None and operation.kind in LAYER_KINDS and (bias := bias_of(node)):
                biases.setdefault(operation.layer, set()).add(bias)
                readers.setdefault(bias, set()).add(operation.layer)
        own = {layer: next(iter(found)) for layer, found in biases.items() if len(found) == 1}
        return {layer: bias for layer, bias in own.items() if readers[bias] == {layer}}

    @cached_property
    def _state(self) -> Mapping[str, Tensor]:
        return {name: value.detach() for name, value in tensors_of(self.folded).items()}

    @cached_property
    def _observed(self) -> Mapping[str, Observed]:
        if self._known:
            return self._known
        observer = Observer(histograms=self.settings.activation_range != "minmax")
        watch(self.folded, self._inputs(), quantizable(self.network), observer)
        return observer.found

    @cached_property
    def _statistics(self) -> Mapping[str, InputStatistics]:
        return self._read_statistics()

    def _quantize(self, name: str, quant: WeightQuant) -> QuantizedLayer:
        weight = self._state[self.network.layers[name].weight]
        mask = None if quant.sparsity == "dense" else sparsity_mask(weight, quant.sparsity, axis=1 - quant.axis)
        changed = self._rounded(name, weight, quant, mask) if quant.integer else self._float(name, weight, quant, mask)
        return replace(changed, bias=self._corrected_bias(name, weight, changed.weight))

    def _float(self, name: str, weight: Tensor, quant: WeightQuant, mask: Tensor | None) -> QuantizedLayer:
        """A float weight; where it has zeros, what is left makes up for them."""
        if mask is not None and name in self._statistics:
            weight = refitted(weight, mask, self._statistics[name], centered=self._corrects(name))
        elif mask is not None:
            weight = weight * mask
        return QuantizedLayer(dequantized_weight(weight, quant))

    def _rounded(self, name: str, weight: Tensor, quant: WeightQuant, mask: Tensor | None) -> QuantizedLayer:
        """The weight on its grid: learned for few bits and for zeros, where it is known what the layer reads."""
        kept = weight if mask is None else weight * mask
        scaled = replace(quant, scale=self._scale(kept, quant))
        learns = quant.bits <= self.settings.learned_bits or mask is not None
        if not learns or not self.settings.learned_bits or name not in self._statistics:
            return QuantizedLayer(dequantized_weight(kept, scaled), scaled.scale)
        centered = self._corrects(name)
        learned = learned_rounding(weight, scaled, self._statistics[name], centered=centered, keep=mask)
        return QuantizedLayer(learned.weight, learned.scale)

    def _corrects(self, name: str) -> bool:
        """Whether the layer's bias makes up for the mean of what is done to its weight."""
        return self.settings.bias_correction and name in self.bias_names

    def _corrected_bias(self, name: str, weight: Tensor, changed: Tensor) -> Tensor | None:
        """The bias with which the layer's mean output stays; None where it has none, or nothing changed it."""
        if changed is weight or not self._corrects(name) or name not in self._statistics:
            return None
        return self._state[self.bias_names[name]] + bias_correction(weight, changed, self._statistics[name])

    def _scale(self, weight: Tensor, quant: WeightQuant) -> Tensor:
        method = self.settings.weight_scale
        if method == "auto":
            method = "minmax" if quant.bits >= INTEGER_ACTIVATIONS else "mse"
        return weight_scales(weight_rows(weight, quant), quant.bits, method, quant.group_size)
