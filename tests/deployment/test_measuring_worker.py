from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from kneepoint.deployment.measuring_worker import Model, ModelError, OpenModel, free_sizes, summary, time_round
from tests.deployment.small_models import Shape, doubler, stubborn, texts


def entry(name: str, *shape: str | int | None) -> Any:
    return SimpleNamespace(name=name, shape=list(shape))


def wanted(batch: int = 1, **sizes: int) -> Model:
    return Model("", 1, batch, sizes)


def saved(folder: Path, data: bytes, batch: int = 1, **sizes: int) -> Model:
    (folder / "model.onnx").write_bytes(data)
    return Model(str(folder / "model.onnx"), 1, batch, sizes)


def test_the_first_dimension_is_the_batch_and_so_is_its_name_elsewhere() -> None:
    entries = [entry("x", "n", 3), entry("mask", 2, "n"), entry("nameless", None), entry("scalar")]
    assert free_sizes(entries, wanted(8)) == {"n": 8, None: 8}


def test_other_free_dimensions_get_the_size_they_are_given() -> None:
    assert free_sizes([entry("ids", "batch", "sequence")], wanted(2, sequence=128))["sequence"] == 128
    assert free_sizes([entry("ids", "sequence")], wanted(2, sequence=128))["sequence"] == 128


@pytest.mark.parametrize(
    ("shape", "sizes", "message"),
    [
        (("n", "sequence"), {}, r"axis 1 of input 'x' is free \('sequence'\); give it a size: --size sequence=N"),
        (("n", 3, None), {}, r"axis 2 of input 'x' is free \(without a name\).*a fixed size in the file"),
        (("n", 3), {"width": 4}, r"the model has no free dimension 'width'; it has \['n'\]"),
        ((2, 3), {"width": 4}, "it has none"),
    ],
)
def test_dimensions_without_a_size_are_named(shape: Any, sizes: dict[str, int], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        free_sizes([entry("x", *shape)], wanted(**sizes))


@pytest.mark.parametrize(
    ("kind", "dtype", "zeros"),
    [
        (TensorProto.FLOAT, np.float32, False),
        (TensorProto.DOUBLE, np.float64, False),
        (TensorProto.FLOAT16, np.float16, False),
        (TensorProto.INT64, np.int64, True),
        (TensorProto.INT32, np.int32, True),
    ],
)
def test_inputs_are_noise_or_zeros(tmp_path: Path, kind: int, dtype: type, zeros: bool) -> None:
    opened = OpenModel(saved(tmp_path, doubler(["batch", 5], kind), 3))
    (feed,) = opened.feeds.values()
    assert feed.dtype == dtype
    assert (feed.shape, opened.batch) == ((3, 5), 3)
    assert zeros == (not feed.any())


def test_a_scalar_has_a_batch_of_one(tmp_path: Path) -> None:
    assert OpenModel(saved(tmp_path, doubler([]))).batch == 1


def test_what_cannot_be_made_up_loaded_or_run_is_said_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"input 'x' has type tensor\(string\); measured are \["):
        OpenModel(saved(tmp_path, texts()))
    with pytest.raises(ModelError, match=r"^ONNX Runtime cannot load the model: [^\n]*$"):
        OpenModel(saved(tmp_path, b"no model"))
    with pytest.raises(ModelError, match=r"^the model does not run on random inputs: [^\n]*$"):
        OpenModel(saved(tmp_path, stubborn())).block(1)


@pytest.mark.parametrize("count", [1, 2])
def test_a_round_has_blocks_of_every_model(tmp_path: Path, count: int) -> None:
    shape: Shape = ["batch", 64]
    blocks = time_round([saved(tmp_path, doubler(shape))] * count, 1e-3, np.random.default_rng(0))
    assert len(blocks) == count
    assert len({len(own) for own in blocks}) == 1
    assert all(len(own) >= 3 and min(block) > 0 for own in blocks for block in own)


def test_an_error_knows_its_model(tmp_path: Path) -> None:
    good, bad = saved(tmp_path, doubler([2])), Model(str(tmp_path / "none.onnx"), 1, 1, {})
    with pytest.raises(ModelError) as caught:
        time_round([good, bad], 1e-3, np.random.default_rng(0))
    assert caught.value.args[1] == 1


def test_a_summary_pairs_blocks() -> None:
    found = summary([[[1.0, 2.0, 9.0], [4.0, 4.0]], [[3.0], [6.0]]])
    assert found == {
        "medians": [4.0, 4.5],
        "means": [4.0, 4.5],
        "runs": [5, 2],
        "ratios": [1.0, pytest.approx(1.5)],
    }
