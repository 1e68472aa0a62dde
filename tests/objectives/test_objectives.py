from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import kneepoint.objectives as room
from kneepoint.hardware_models.devices import load_device
from kneepoint.objectives.costs import Energy, Latency, MACs, Parameters, PeakMemory, Size
from kneepoint.objectives.objective import FunctionObjective, Objective, Scale, objective
from kneepoint.objectives.quality import Accuracy, Loss
from kneepoint.objectives.registry import bind_objectives, objective_named
from kneepoint.objectives.view import View
from kneepoint.tasks.errors import DeviceError, ObjectiveError
from kneepoint.tasks.metrics import Score, as_metric, cross_entropy
from kneepoint.tasks.task import Task

ViewOf = Callable[..., View]
PI, SERVER = "raspberry-pi-4b", "x86-server"


@pytest.mark.parametrize("device", [PI, SERVER])
def test_device_costs_are_those_of_the_cost_model(device: str, view_of: ViewOf) -> None:
    view, hardware = view_of(8), load_device(device)
    cost = view.cost(hardware)
    assert Latency(device).score(view) == Score(cost.latency_ms, cost.latency_ms_error)
    assert PeakMemory(hardware).score(view) == Score(cost.peak_memory_bytes / 1e6)
    assert cost.energy_mj is not None
    energy = Energy(device).score(view)
    assert energy.value == cost.energy_mj
    assert energy.error is not None
    assert energy.error / energy.value == pytest.approx(cost.latency_ms_error / cost.latency_ms)
    assert view.cost(hardware) is cost


def test_names_carry_unit_and_device() -> None:
    assert [entry(PI).name for entry in (Latency, Energy, PeakMemory)] == [
        f"latency_ms@{PI}",
        f"energy_mj@{PI}",
        f"peak_memory_mb@{PI}",
    ]
    assert (Latency(PI).device, Size().device) == (PI, "")
    assert (Size().name, Parameters().name, MACs().name) == ("size_mb", "parameters", "macs")


def test_an_unknown_device_is_named() -> None:
    with pytest.raises(DeviceError, match="did you mean 'raspberry-pi-4b'"):
        Latency("raspberry-pi-5b")


def test_a_device_without_power_has_no_energy() -> None:
    device = load_device(PI).model_copy(update={"power": None})
    with pytest.raises(ObjectiveError, match="states no power, so it has no energy; choose Latency"):
        Energy(device)


@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_the_size_is_what_the_formula_says(bits: int, view_of: ViewOf) -> None:
    view = view_of(bits)
    expected = 0
    for layer in view.network.layers.values():
        out, elements = (
            view.network.parameter_shapes[layer.weight][0],
            math.prod(view.network.parameter_shapes[layer.weight]),
        )
        scales = (2 * 4 * out + (out if layer.kind == "linear" else 0)) if bits <= 8 else 0
        expected += math.ceil(elements * bits / 8) + 4 * out + scales
    assert Size().score(view) == Score(expected / 1e6)


def test_parameters_and_macs_by_hand(view_of: ViewOf) -> None:
    view = view_of(16)
    model = view.task.model
    weights = sum(value.numel() for value in model.parameters() if value.dim() > 1)
    biases = sum(value.shape[0] for value in model.parameters() if value.dim() > 1)
    assert Parameters().score(view) == Score(float(weights + biases))
    shapes = {"stem": 144, "stages.0": 144, "stages.1": 36, "stages.2": 9, "head": 1}
    macs = sum(
        value.numel() * next(pixels for part, pixels in shapes.items() if name.startswith(part))
        for name, value in model.named_parameters()
        if value.dim() > 1
    )
    assert MACs().score(view) == Score(float(macs))


def test_less_of_anything_costs_less(view_of: ViewOf) -> None:
    for entry in (Size(), Parameters(), MACs(), Latency(PI), PeakMemory(PI)):
        assert entry.score(view_of(8, 0.5)).value < entry.score(view_of(8)).value
    assert Size().score(view_of(2)).value < Size().score(view_of(4)).value < Size().score(view_of(8)).value


def test_accuracy_is_the_tasks_metric(view_of: ViewOf, task: Task) -> None:
    view = view_of(8)
    bound = Accuracy().bind(task)
    assert (bound.name, bound.direction) == ("accuracy", "maximize")
    assert bound.score(view) == task.metric.score(view.outputs, view.targets) == Accuracy().score(view)
    assert bound.score(view).error is not None
    other = Accuracy(cross_entropy)
    assert other.bind(task) is other
    assert (other.name, other.direction, other.unit) == ("cross_entropy", "minimize", "nats")
    assert other.score(view).value == pytest.approx(float(F.cross_entropy(view.outputs, view.targets)), rel=1e-5)


def test_the_loss_is_the_tasks_loss(view_of: ViewOf) -> None:
    view = view_of(8)
    assert Loss().score(view).value == pytest.approx(float(F.cross_entropy(view.outputs, view.targets)))


def test_scales_run_from_worst_to_ideal(task: Task) -> None:
    scale = Accuracy().bind(task).scale(task, Score(0.9))
    assert (scale.worst, scale.ideal) == (task.reference_score(), 1.0)
    assert Size().scale(task, Score(4.0)) == Scale(worst=4.4, ideal=0.0)
    assert [Scale(4.0, 0.0)(value) for value in (0.0, 1.0, 4.0, 8.0)] == [0.0, 0.25, 1.0, 2.0]
    assert Scale(0.2, 1.0)(0.6) == pytest.approx(0.5)


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize("teacher", [-3.0, 0.0, 5.0])
def test_a_scale_of_unknown_range_puts_the_teacher_inside(direction: Any, teacher: float, task: Task) -> None:
    scale = objective(lambda view: 0.0, name="x", direction=direction).scale(task, Score(teacher))
    better = teacher + (0.05 if direction == "maximize" else -0.05)
    assert 0 <= scale(teacher) < 1
    assert scale(better) < scale(teacher)


def test_a_metric_without_an_ideal_is_scaled_around_the_teacher(task: Task) -> None:
    metric = as_metric(lambda outputs, targets: 2.0, name="reward")
    scale = Accuracy(metric).scale(task, Score(2.0))
    assert scale.worst == 0.0
    assert scale.ideal == pytest.approx(2.2)


def sparsity(view: View) -> float:
    """What a user writes."""
    return 1.0 - sum(view.policy.keep_of.values()) / max(1, len(view.policy.keep_of))


class Hops(Objective):
    """A user's own class."""

    name = "hops"
    direction = "maximize"

    def score(self, view: View) -> Score:
        return Score(float(len(view.workload(load_device(PI)))), 0.5)


def test_functions_and_classes_of_ones_own(view_of: ViewOf, task: Task) -> None:
    view = view_of(8, 0.5)
    named = objective(sparsity, direction="maximize", unit="share")
    assert (named.name, named.unit, named.score(view)) == ("sparsity", "share", Score(0.5))
    hops, again = bind_objectives([Hops(), named], task)
    assert hops.score(view).error == 0.5
    assert again is named
    tensor = objective(lambda view: torch.tensor(2.0), name="t", direction="minimize")  # type: ignore[arg-type,return-value]  # converts
    assert tensor.score(view) == Score(2.0)
    scored = objective(lambda view: Score(1.0, 0.1), name="s", direction="minimize")
    assert scored.score(view) == Score(1.0, 0.1)


def test_a_function_may_carry_its_direction(task: Task) -> None:
    def cost(view: View) -> float:
        return 1.0

    cost.direction = "minimize"  # type: ignore[attr-defined]  # how users mark a function
    (bound,) = bind_objectives([cost], task)
    assert isinstance(bound, FunctionObjective)
    assert bound.direction == "minimize"


@pytest.mark.parametrize("value", ["0.5", None, [1.0], "high"])
def test_a_function_returns_a_number(value: Any, view_of: ViewOf) -> None:
    wrong = objective(lambda view: value, name="wrong", direction="minimize")
    with pytest.raises(
        ObjectiveError, match=r"'wrong' must return a float or a kneepoint.Score; got (str|NoneType|list)"
    ):
        wrong.score(view_of(8))


def test_a_function_needs_a_name_and_a_direction() -> None:
    with pytest.raises(ObjectiveError, match="an objective needs a name"):
        objective(lambda view: 0.0, direction="minimize")
    with pytest.raises(ObjectiveError, match=r"objective 'sparsity' needs a direction.*got None.*wrap it as"):
        objective(sparsity)
    with pytest.raises(ObjectiveError, match="got 'up'"):
        objective(sparsity, direction="up")  # type: ignore[arg-type]  # what a user may write
    with pytest.raises(ObjectiveError, match="made of a function"):
        objective(3)  # type: ignore[arg-type]  # what a user may write


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("accuracy", Accuracy),
        ("loss", Loss),
        ("size_mb", Size),
        ("parameters", Parameters),
        ("macs", MACs),
        (f"latency_ms@{PI}", Latency),
        (f"energy_mj@{SERVER}", Energy),
        (f"peak_memory_mb@{PI}", PeakMemory),
    ],
)
def test_objectives_by_name(name: str, kind: type[Objective], task: Task) -> None:
    (bound,) = bind_objectives([name], task)
    assert type(bound) is kind
    assert bound.name == name


def test_unknown_names_are_refused(task: Task) -> None:
    with pytest.raises(ObjectiveError, match="unknown objective 'size'; did you mean 'size_mb'"):
        objective_named("size", task)
    with pytest.raises(ObjectiveError, match="unknown objective 'watts@raspberry-pi-4b'"):
        objective_named(f"watts@{PI}", task)
    with pytest.raises(DeviceError, match="unknown device 'toaster'"):
        objective_named("latency_ms@toaster", task)


class Nameless(Objective):
    def score(self, view: View) -> Score:
        return Score(0.0)


class Sideways(Nameless):
    name = "sideways"
    direction = "left"  # type: ignore[assignment]  # what a user may write


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "needs at least one objective"),
        ([Size(), "size_mb"], "'size_mb' is there twice"),
        ([Size], r"an objective is an instance; got the class Size: write Size\(...\)"),
        ([3], "an objective is a name, an Objective or a function"),
        ([Nameless()], "Nameless sets none"),
        ([Sideways()], "objective 'sideways' has the direction 'maximize' or 'minimize'; got 'left'"),
    ],
)
def test_malformed_lists_are_refused(entries: list[Any], message: str, task: Task) -> None:
    with pytest.raises(ObjectiveError, match=message):
        bind_objectives(entries, task)


def test_the_room_exports_its_names() -> None:
    assert all(getattr(room, name) is not None for name in room.__all__)
