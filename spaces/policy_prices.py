"""What many policies of one network cost on one device: a gather over what a few of them have taught.

Lowering a network, fusing it and pricing its kernels takes milliseconds. But what a layer costs depends on a few
variables alone: its own format and those of its neighbours, the widths it reads and writes, and how the values it reads
are held (which the layers before it have settled). So the network is cut into parts of one layer; each has a table over
its variables, filled by really lowering a policy and adding up the kernels of the part. There is no second definition
of what a kernel costs, and whether the variables suffice is checked with every policy that is lowered: where two
contradict each other, the part takes its neighbours' variables, too. A sample of what was looked up is lowered as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from kneepoint.hardware_models.cost_model import CostModel
from kneepoint.hardware_models.fusion import fuse
from kneepoint.hardware_models.workload import Workload
from kneepoint.spaces.lookup_slots import Floats, Integers, Slot
from kneepoint.spaces.lookup_tables import Found, Lesson, LookupTables
from kneepoint.spaces.lowering import lower
from kneepoint.spaces.network import Network
from kneepoint.spaces.network_parts import NetworkParts
from kneepoint.spaces.policy import Policy
from kneepoint.spaces.policy_codes import PolicyCodes

_CHUNK = 4096
"""Policies looked up at once, so that their columns stay in cache."""
_LESSONS = 64
"""Policies lowered before the rest are looked up again."""
_SAMPLE = 8
"""Policies lowered, at most, to check what was looked up whenever something new was learned; one for so many others."""
_OFFERED = 32
"""Policies among which a mixture looks for one that fits the rest of it."""
_PATIENCE = 1.1
"""How quickly a way to choose policies that has taught less is tried again."""
_REMEMBERED = 64
"""Networks with blocks left out whose tables are kept."""


@dataclass(frozen=True)
class PolicyCosts:
    """Arrays of one entry a policy.

    Attributes:
        latency_ms: Milliseconds of one inference.
        energy_mj: Millijoules; None where the device's power is unknown.
        storage_bytes: Constants in the artifact.
    """

    latency_ms: Floats
    energy_mj: Floats | None
    storage_bytes: Integers


class PolicyPrices:
    """Prices policies of one network on one device, to propose some of them; what is reported is priced one by one.

    Where layouts decide (blocked channels, channels last), whether the runtime pushes a transpose through a chain of
    residual additions depends on layers arbitrarily far ahead. A part whose table misses such a layer gives a wrong
    price until a policy that shows it happens to be lowered. A calibrated device's kernels depend on what ran before
    them, so that there every policy is lowered.

    Args:
        network: The policies' own.
        model: Of the device; its table of kernels is shared.
        batch: Samples of one inference.

    Attributes:
        lowered: How many policies have been lowered so far.
    """

    def __init__(self, network: Network, model: CostModel, batch: int = 1) -> None:
        self.network = network
        self.model = model
        self.batch = batch
        self.lowered = 0
        self.codes = PolicyCodes(network)
        self._parts = NetworkParts(network)
        self._tables = LookupTables(*_slots(self._parts, self.codes))
        self._reduced: dict[frozenset[str], PolicyPrices] = {}
        self._random = np.random.default_rng(0)
        self._taught = {"mixtures": math.inf, "asked for": math.inf}

    def price(self, policies: Sequence[Policy]) -> PolicyCosts:
        """What each of ``policies`` costs: as ``CostModel.cost`` of its workload says, up to rounding.

        Raises:
            SpaceError: If a policy names what the network does not have.
            DeviceError: If a kernel has no price and the model is told to refuse.
        """
        latency, storage = np.zeros(len(policies)), np.zeros(len(policies), np.int64)
        rows: dict[frozenset[str], list[int]] = {}
        for row, policy in enumerate(policies):
            rows.setdefault(policy.dropped_blocks, []).append(row)
        for blocks, listed in rows.items():
            prices = self._without(blocks)
            found = prices.price_codes(prices.codes.encode([policies[row] for row in listed]))
            latency[listed], storage[listed] = found.latency_ms, found.storage_bytes
        return self._costs(latency, storage)

    def price_codes(self, codes: Integers) -> PolicyCosts:
        """What policies cost that are given as ``codes.encode`` writes them; none of them leaves out a block.

        Args:
            codes: (policies, columns) int64.
        """
        latency, storage = np.zeros(len(codes)), np.zeros(len(codes), np.int64)
        for first in range(0, len(codes), _CHUNK):
            chunk = slice(first, first + _CHUNK)
            latency[chunk], storage[chunk] = self._price_chunk(codes[chunk])
        return self._costs(latency, storage)

    def _price_chunk(self, codes: Integers) -> tuple[Floats, Integers]:
        found, checked = self._look_up(codes), self.lowered
        while found is not None and not (found.complete and self.lowered == checked):
            if found.complete:  # by what was learned just now: is it enough?
                size = min(_SAMPLE, 1 + (self.lowered - checked) // _SAMPLE)
                self._learn(codes[self._random.integers(len(codes), size=size)])
                checked = self.lowered
            else:
                self._learn_wanted(codes, found.wanted())
            found = self._look_up(codes)
        amounts = found.amounts if found is not None else np.array([self._lesson(row).amounts for row in codes]).T
        parts = len(self._parts.parts)
        latency = amounts[:parts].sum(axis=0) + self.model.floor_ms
        return latency, np.rint(amounts[parts:].sum(axis=0)).astype(np.int64)

    def _learn(self, codes: Integers) -> int:
        """Lower policies; how much was new."""
        known = self._tables.entries
        self._tables.learn([self._lesson(row) for row in codes], self._radices())
        return self._tables.entries - known

    def _learn_wanted(self, codes: Integers, wanted: list[Integers]) -> None:
        """Lower some policies that teach what is missing, chosen in the way that has taught more lately.

        Args:
            codes: (policies, columns) of those that are asked for.
            wanted: For every slot, rows of policies that would teach it something.
        """
        way = max(self._taught, key=lambda name: self._taught[name])
        chosen = _most_wanted(wanted) if way == "asked for" else list(self._mixtures(codes, wanted))
        rows = codes[chosen] if way == "asked for" else np.array(chosen)
        self._taught = {name: worth * _PATIENCE for name, worth in self._taught.items()}
        self._taught[way] = self._learn(rows) / len(rows)

    def _mixtures(self, codes: Integers, wanted: list[Integers]) -> Iterator[Integers]:
        """Policies made of parts of those that are asked for, each to teach many slots at once.

        What a slot reads may be held in another way in a mixture than in the policy that asked, so that not all of them
        teach what they were made for.
        """
        waiting, context = list(wanted), self._context()
        for _ in range(_LESSONS):
            order = [slot for slot in self._random.permutation(len(waiting)) if len(waiting[slot])]
            if not order:
                return
            mixed, settled = codes[waiting[order[0]][0]].copy(), np.zeros(codes.shape[1], np.bool_)
            for slot in order:
                columns = context[slot]
                offered = codes[waiting[slot][:_OFFERED, None], columns]
                fits = np.flatnonzero(((offered == mixed[columns]) | ~settled[columns]).all(axis=1))
                if len(fits):
                    mixed[columns], settled[columns] = offered[fits[0]], True
                    waiting[slot] = np.delete(waiting[slot], fits[0])
            yield mixed

    def _context(self) -> list[Integers]:
        """For every slot, the columns of codes that decide about it, and about what it reads."""
        layers = len(self.codes.layers)
        slots = self._tables.slots
        writer = {name: slot for slot in slots for name in slot.writes}
        found = []
        for slot in slots:
            near = {*slot.columns, *(column for name in slot.reads for column in writer[name].columns)}
            found.append(
                np.array(sorted({column if column < layers else column - layers for column in near}), np.int64)
            )
        return found

    def _look_up(self, codes: Integers) -> Found | None:
        """What the tables know; None where they cannot be kept, so that every policy has to be lowered."""
        if self.model.contextual:
            return None
        variables = self._variables(codes)
        self._tables.make_room(self._radices())
        return None if self._tables.too_large else self._tables.look_up(variables)

    def _lesson(self, row: Integers) -> Lesson:
        """What one policy really costs, part by part."""
        self.lowered += 1
        table = lower(self.network, self.codes.decode(row), self.batch)
        kernels = fuse(table, self.model.device.fusion)
        workload = Workload.of_kernels(table, kernels)
        latency = self.model.latencies(workload)
        owners = self._parts.owners(table, kernels)
        count = len(self._parts.parts)
        parts, sizes = (np.array(column, np.int64) for column in zip(*self._parts.holders(table), strict=True))
        stored = np.bincount(parts, sizes, count)
        amounts = np.concatenate((np.bincount(owners, latency, count), stored, [workload.storage_bytes - stored.sum()]))
        return Lesson(self._variables(row[None, :])[:, 0], self._parts.states(table, kernels, owners), amounts)

    def _variables(self, codes: Integers) -> Integers:
        """(variables, policies): formats that kernels tell apart, formats, widths."""
        layers = codes[:, : len(self.codes.layers)].T
        alike = self.codes.computed()
        embeddings = np.array([layer.kind == "embedding" for layer in self.network.layers.values()])
        computed = np.where(embeddings[:, None], layers, alike[layers])
        return np.concatenate((computed, codes.T))

    def _radices(self) -> list[int]:
        formats = [self.codes.formats] * (2 * len(self.codes.layers))
        return formats + [self.codes.widths(group) for group in self.codes.groups]

    def _without(self, blocks: frozenset[str]) -> PolicyPrices:
        if not blocks:
            return self
        if blocks not in self._reduced:
            if len(self._reduced) >= _REMEMBERED:
                self._reduced.pop(next(iter(self._reduced)))
            self._reduced[blocks] = PolicyPrices(self.network.without(blocks), self.model, self.batch)
        return self._reduced[blocks]

    def _costs(self, latency_ms: Floats, storage_bytes: Integers) -> PolicyCosts:
        power = self.model.device.power
        return PolicyCosts(latency_ms, power.active_w * latency_ms if power else None, storage_bytes)


def _most_wanted(wanted: list[Integers]) -> Integers:
    """Rows of policies that would teach most slots something; never none."""
    rows, counts = np.unique(np.concatenate(wanted), return_counts=True)
    return rows[np.argsort(-counts, kind="stable")[:_LESSONS]]


def _slots(parts: NetworkParts, codes: PolicyCodes) -> tuple[list[Slot], list[frozenset[int]]]:
    """For every part a slot of its latency, and one of its storage; one more for what no layer stores."""
    count, layers = len(parts.parts), len(codes.layers)
    slots, storage, near = [], [], []
    for index, part in enumerate(parts.parts):
        groups = [layers + codes.groups[group] for group in sorted(part.groups)]
        slots.append(Slot((*sorted(codes.layers[name] for name in part.layers), *groups), part.reads, part.writes))
        storage.append(Slot((*sorted(layers + codes.layers[name] for name in part.own_layers), *groups)))
        touching = {
            other
            for other, entry in enumerate(parts.parts)
            if {*part.reads, *part.writes} & {*entry.reads, *entry.writes}
        }
        near.append(frozenset(touching | {max(index - 1, 0), min(index + 1, count - 1)}))
    rest = Slot(tuple(layers + codes.groups[group] for group in sorted(parts.other_groups)))
    beside = [frozenset(count + other for other in entry) for entry in near]
    return [*slots, *storage, rest], [*near, *beside, frozenset(range(count, 2 * count))]
