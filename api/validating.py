"""``kneepoint devices validate``: what is predicted against what was published, as tables."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from kneepoint.hardware_models.devices import list_devices, load_device
from kneepoint.hardware_models.published.judging import Judgement, Pair
from kneepoint.hardware_models.published.validation import Validation, validate

_LEFT_OUT = "a family left out"


def validate_one(name: str) -> Validation:
    """A device against its published latencies.

    Raises:
        DeviceError: If there is no such device, or nothing was published of it.
    """
    return validate(load_device(name))


def validate_all() -> list[Validation]:
    """Every device that latencies were published of."""
    devices = [load_device(name) for name in list_devices()]
    return [validate(device) for device in devices if device.published is not None]


def row_table(found: Validation) -> Table:
    """Every network of one device."""
    table = Table("network", "precision", "batch", "published ms", "predicted", "error", "±", _LEFT_OUT, box=None)
    for row in found.rows:
        sample, shipped = row.sample, row.shipped
        table.add_row(
            sample.network, sample.system.published_precision, str(sample.batch), f"{shipped.published:.4g}",
            f"{shipped.predicted:.4g}", f"{shipped.error:+.0%}", f"{shipped.stated:.0%}", _error(row.left_out),
        )  # fmt: skip
    return table


def summary_table(found: Sequence[Validation]) -> Table:
    """What all rows of each device say, by precision and by what predicts."""
    columns = (
        "device",
        "precision",
        "predictions",
        "rows",
        "in 10 %",
        "MAPE",
        "median",
        "worst",
        "tau",
        "in 1 s.e.",
        "2",
    )
    table = Table(*columns, box=None)
    for entry in found:
        for (precision, what), judged in entry.judgements().items():
            table.add_row(entry.device, precision, what, *cells(judged))
    return table


def cells(judged: Judgement) -> tuple[str, ...]:
    """A judgement as text, in the order of the columns."""
    return (
        str(judged.rows),
        f"{judged.within_10:.0%}",
        f"{judged.mape:.1%}",
        f"{judged.median:+.1%}",
        f"{judged.worst:+.0%}",
        _share(judged.kendall, "{:.2f}"),
        _share(judged.inside_one, "{:.0%}"),
        _share(judged.inside_two, "{:.0%}"),
    )


def _share(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _error(pair: Pair | None) -> str:
    return "" if pair is None else f"{pair.error:+.0%}"
