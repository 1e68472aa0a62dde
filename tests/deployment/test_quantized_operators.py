from __future__ import annotations

import torch

from kneepoint.deployment.quantized_operators import TRANSLATIONS, dequantize, dequantize_along, quantize


def test_the_exporter_sees_shapes_and_types() -> None:
    x, scale, zero_point = torch.randn(2, 3), torch.tensor(0.1), torch.tensor(3, dtype=torch.uint8)
    quantized = quantize(x, scale, zero_point)
    assert (quantized.shape, quantized.dtype) == (x.shape, torch.uint8)
    for floats in (dequantize(quantized, scale), dequantize_along(quantized, scale, zero_point, 1)):
        assert (floats.shape, floats.dtype) == (x.shape, torch.float32)


def test_every_operator_has_a_translation() -> None:
    assert set(TRANSLATIONS) == {quantize, dequantize, dequantize_along}
