"""Published memory of networks on microcontrollers."""

from __future__ import annotations

import numpy as np
import pytest

from kneepoint.hardware_models import load_device
from kneepoint.hardware_models.published.memory import predicted_memory, published_memory


def test_constants_are_those_that_were_published() -> None:
    device = load_device("stm32h743")
    for published in published_memory():
        assert published.document.startswith("https://")
        _, constants = predicted_memory(device, published)
        assert 0 <= constants.error < 0.12, published.network  # scales and biases are stored wider here


def test_activations_are_about_those_that_were_published() -> None:
    """The tool works in place where it can, and with scratch memory elsewhere."""
    device = load_device("stm32h743")
    errors = np.array([predicted_memory(device, published)[0].log_error for published in published_memory()])
    assert np.abs(errors).mean() < 0.2
    assert np.abs(errors).max() < 0.4


def test_a_network_that_is_handed_floats_needs_more() -> None:
    device = load_device("stm32h743")
    floats = device.model_copy(update={"memory": device.memory.model_copy(update={"integer_inputs": False})})
    published = published_memory()[0]
    with_floats, with_integers = (predicted_memory(one, published)[0].predicted for one in (floats, device))
    assert with_floats - with_integers == pytest.approx(224 * 224 * 3 * 4 + 112 * 112 * 8 - 112 * 112 * 24)
