"""What is known before a search, in the terminal: what may vary, what may not, the devices, the time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from io import StringIO
from typing import Self

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kneepoint.reports.terminal import duration
from kneepoint.reports.wording import counted, decimals, joined, number, printable
from kneepoint.search.device_facts import DeviceFacts, FormatFacts
from kneepoint.search.inspection import Facts

WIDTH = 100
"""Columns of the text of an :class:`Inspection`."""
_FEW = 3  # operators that stand for many
_NAME_WIDTH = 28  # of a layer that is only an example
_LARGEST_FLOAT = 300  # decimal digits
_FORMAT_BITS = {"int8": 8, "fp16": 16, "fp32": 32}
"""Of the weights that a kernel computes with; packed ones have as many as are stored."""


@dataclass(frozen=True, repr=False)
class Inspection(Facts):
    """What is known of a search before anything is computed; as a string, the tables of ``kneepoint inspect``.

    The facts themselves are attributes, and :meth:`to_json` gives all of them.
    """

    @classmethod
    def of(cls, facts: Facts) -> Self:
        """The same facts, which now show themselves."""
        return cls(**{field.name: getattr(facts, field.name) for field in fields(facts)})

    def __str__(self) -> str:
        console = Console(file=StringIO(), width=WIDTH, color_system=None)
        with console.capture() as capture:
            for view in inspection_views(self):
                console.print(view, markup=False, highlight=False)
        return capture.get().rstrip()

    __repr__ = __str__


def inspection_views(facts: Facts, verbose: bool = False) -> list[Table | str]:
    """The facts as tables and lines, in the order to print them in.

    Args:
        facts: What to show.
        verbose: Whether to list every layer, reason and operator.
    """
    views: list[Table | str] = [_summary(facts)]
    if verbose:
        views += ["", _layer_table(facts)]
    fixed = _fixed_table(facts, verbose)
    if fixed.row_count:
        views += ["", fixed]
    if facts.devices:
        views += ["", _device_table(facts.devices), *(_coverage(device, verbose) for device in facts.devices)]
        views += [line for device in facts.devices if (line := _fit(device))]
    return [*views, "", *_time(facts)]


# --- what may vary -------------------------------------------------------------------------------------------------


def _summary(facts: Facts) -> Table:
    table = Table.grid(padding=(0, 2))
    table.title = Text(printable(f"{facts.task}: before the search"), style="bold")
    table.title_justify = "left"
    for what, text in _summary_rows(facts):
        table.add_row(Text(what, style="dim"), Text(text))
    return table


def _summary_rows(facts: Facts) -> Iterable[tuple[str, str]]:
    network, space = facts.network, facts.space
    yield "network", f"{network.parameters:,} parameters, {number(network.storage_bytes / 1e6)} MB in float32"
    peak = f"activations peak at {number(network.peak_activation_bytes / 1e3)} kB"
    yield "inference", f"{network.macs:,} multiply-accumulates, {peak} (batch 1, float32)"
    layers = [layer for layer in facts.layers if layer.why_bits_fixed is None]
    share = sum(layer.parameters for layer in layers) / sum(layer.parameters for layer in facts.layers)
    varying = f"{counted(len(layers), 'layer')}, {number(100 * share)}% of the weights"
    yield "bits", f"{_either(space.weight_bits)} in each layer: {varying}"
    yield "channels", _channels(facts)
    if facts.blocks:
        yield "blocks", _blocks(facts)
    yield "students", _students(facts)
    yield "settings", _settings(space.log10_settings)


def _channels(facts: Facts) -> str:
    if not facts.groups:
        return "no group may be pruned"
    groups = f"{counted(len(facts.groups), 'group')}, {counted(sum(facts.groups.values()), 'channel')}"
    return f"{_either(facts.space.keep)} of each group: {groups}"


def _blocks(facts: Facts) -> str:
    blocks = counted(len(facts.blocks), "residual block")
    return f"{blocks} may be left out" if facts.space.blocks else f"all kept (blocks: true may leave out {blocks})"


def _students(facts: Facts) -> str:
    counts = sorted(facts.space.students.values())
    if not counts:
        return "none but the teacher itself"
    return f"{len(counts)}, of {counts[0]:,} to {counts[-1]:,} parameters"


def _settings(log10: float) -> str:
    return f"{10**log10:.1e}" if log10 < _LARGEST_FLOAT else f"10^{log10:.0f}"


def _either(choices: Sequence[float | str]) -> str:
    texts = ["all" if type(choice) is float and choice == 1.0 else str(choice) for choice in choices]
    return " or ".join(filter(None, [", ".join(texts[:-1]), texts[-1]]))


# --- what may not --------------------------------------------------------------------------------------------------


def _fixed_table(facts: Facts, verbose: bool) -> Table:
    """A row a reason, with one layer for all, where reasons that differ in names alone are one; or a row a layer."""
    table = _table("cannot vary", "layers", "why", "such as")
    table.columns[1].justify = "right"
    if not verbose:
        table.columns[3].no_wrap, table.columns[3].overflow, table.columns[3].max_width = True, "ellipsis", _NAME_WIDTH
    bits = {layer.name: layer.why_bits_fixed for layer in facts.layers if layer.why_bits_fixed}
    channels = {layer.name: layer.why_channels_fixed for layer in facts.layers if layer.why_channels_fixed}
    names = {layer.name for layer in facts.layers}
    for what, reasons in (("bits", bits), ("channels", channels)):
        found: dict[str, list[str]] = {}
        for name, why in reasons.items():
            found.setdefault(why if verbose else _general(why, names), []).append(name)
        for why, listed in found.items():
            which = "\n".join(map(printable, listed if verbose else listed[:1]))
            table.add_row(what, str(len(listed)), Text(printable(why)), Text(which))
    return table


def _general(why: str, names: set[str]) -> str:
    """A reason without the names that are only one layer's."""
    without = re.sub(r" \([^()]*\)$", "", why)
    return " ".join("…" if word in names else word for word in without.split())


def _layer_table(facts: Facts) -> Table:
    table = _table("layer", "kind", "weights", "bits", "channels vary with")
    table.columns[2].justify = "right"
    for layer in facts.layers:
        bits = "fixed" if layer.why_bits_fixed else "vary"
        groups = [f"{group} ({facts.groups[group]})" for group in layer.groups]
        table.add_row(
            Text(printable(layer.name)), layer.kind, f"{layer.parameters:,}", bits, Text(printable(joined(groups)))
        )
    return table


# --- devices -------------------------------------------------------------------------------------------------------


def _device_table(devices: Sequence[DeviceFacts]) -> Table:
    """The teacher with all layers at one bit-width, for every device and bit-width."""
    table = _table("device", "bits", "stored as", "on the device", "latency_ms", "size_mb")
    for column in (1, 4, 5):
        table.columns[column].justify = "right"
    sizes = decimals(entry.storage_bytes / 1e6 for device in devices for entry in device.formats)
    for device in devices:
        places = decimals(entry.latency_ms for entry in device.formats)
        for position, entry in enumerate(device.formats):
            table.add_row(
                Text(printable(device.name) if position == 0 else ""),
                str(entry.choice),
                _containers(entry),
                _execution(entry),
                f"{entry.latency_ms:.{places}f}",
                f"{entry.storage_bytes / 1e6:.{sizes}f}",
            )
        table.add_section()
    return table


def _execution(entry: FormatFacts) -> str:
    """Bits are executed where a kernel computes with as many; others are only stored, and unpacked first."""
    found: dict[str, list[str]] = {}
    for name, count in entry.executed.items():
        executed = _FORMAT_BITS.get(name, entry.weight_bits) == entry.weight_bits
        counts = f" ({count})" if len(entry.executed) > 1 else ""
        found.setdefault("executed as" if executed else "only stored, run as", []).append(f"{name}{counts}")
    return "; ".join(f"{how} {joined(names)}" for how, names in found.items())


def _containers(entry: FormatFacts) -> str:
    """With how many layers, where there are several."""
    names = list(entry.containers)
    return names[0] if len(names) == 1 else joined([f"{name} ({entry.containers[name]})" for name in names])


def _coverage(device: DeviceFacts, verbose: bool) -> str:
    missing = device.unpriced if verbose else device.unpriced[:_FEW]
    texts = [f"{one.operator} ({one.share:.0%}, {counted(one.kernels, 'kernel')})" for one in missing]
    if len(device.unpriced) > len(missing):
        texts.append(counted(len(device.unpriced) - len(missing), "more operator"))
    bounded = f"; the rest is an upper bound: {joined(texts)}" if texts else ""
    return printable(
        f"{device.name} ({device.runtime}, {counted(device.threads, 'thread')}, ±{device.relative_error:.0%}): the "
        f"cost model prices {device.coverage:.0%} of the teacher's predicted time{bounded}"
    )


def _fit(device: DeviceFacts) -> str:
    """In which formats the teacher does not fit; nothing where it fits in all of them."""
    unfit = [entry for entry in device.formats if entry.misfits]
    if not unfit:
        return ""
    listed = joined([str(entry.choice) for entry in unfit])
    line = f"the teacher does not fit {device.name} at {listed} bits: {joined(list(unfit[0].misfits))}"
    return printable(line + (f" (at {unfit[0].choice})" if len(unfit) > 1 else ""))


# --- time ----------------------------------------------------------------------------------------------------------


def _time(facts: Facts) -> list[str]:
    estimate = facts.time
    if estimate is None:
        return ["how long it takes is unknown: the validation loader does not tell its length (it has no len())"]
    parts = [f"{what} {duration(seconds)}" for what, seconds in estimate.parts.items() if seconds]
    return [
        f"A search of {counted(facts.trials, 'trial')} takes about {duration(estimate.seconds)} on this machine, "
        f"within a factor of two ({', '.join(parts)}), where",
        *(f"- {assumption}" for assumption in estimate.assumptions),
    ]


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
