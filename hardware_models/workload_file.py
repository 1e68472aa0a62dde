"""A file of workloads on one runtime: a line each, every distinct kernel written out once.

The first line says what the numbers mean; each other one holds a workload and what it needs that no line before it has.
A line begins with its checksum (CRC-32, eight hexadecimal digits). Nothing here is the truth: it can be computed again,
so that what follows a torn or damaged line is dropped, and a file that another version wrote counts as empty.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kneepoint.hardware_models.arena import arena_use
from kneepoint.hardware_models.device import Memory
from kneepoint.hardware_models.fusion import RULES
from kneepoint.hardware_models.kernels import FORMATS, GEOMETRY, KERNEL_KINDS, LAYOUTS
from kneepoint.hardware_models.liveness import Buffers
from kneepoint.hardware_models.many_workloads import ArenaRules, ManyWorkloads, arena_rules
from kneepoint.hardware_models.operators import SPARSE_PATTERNS
from kneepoint.hardware_models.surroundings import SURROUNDINGS
from kneepoint.hardware_models.workload import Integers, Workload

SCHEMA = "kneepoint.workloads/2"
_SIZES = 8
"""Numbers of a kernel before its geometry."""
_COLUMNS = _SIZES + len(GEOMETRY) + 2
"""Those, its sizes, its function and its pattern of zeros, the last two as places among words."""
_LARGEST = 2**60
_MOST_KERNELS = 10**6
"""Of one workload."""
_MOST_ARENAS = 16
_DAMAGED = (ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError, AttributeError)


def canonical(rules: Sequence[str]) -> tuple[str, ...]:
    """Fusion rules in one order, so that equal sets are equal."""
    return tuple(rule for rule in RULES if rule in rules)


@dataclass
class _Known:
    """What lines may refer to, each by its place."""

    words: dict[str, int] = field(default_factory=dict)
    kernels: dict[bytes, int] = field(default_factory=dict)
    around: dict[bytes, int] = field(default_factory=dict)
    spans: dict[bytes, int] = field(default_factory=dict)

    def add(self, words: Sequence[str], kernels: list[bytes], around: list[bytes], spans: list[bytes]) -> None:
        """Remember what a line brought with it; all of it is new."""
        brought: list[tuple[dict[Any, int], Sequence[Any]]] = [
            (self.words, words), (self.kernels, kernels), (self.around, around), (self.spans, spans),
        ]  # fmt: skip
        for table, entries in brought:
            new = set(entries)
            _expect(len(new) == len(entries) and new.isdisjoint(table), "what is known is not written again")
        for table, entries in brought:
            table.update({entry: len(table) + place for place, entry in enumerate(entries)})


class WorkloadFile:
    """Workloads by their keys, kept in a file; made by the first append.

    Args:
        path: The file.
        rules: The fusion rules of the runtime.
        run: What the workloads belong to; a file of another run counts as empty.
        arenas: Rules of arenas, whose use is kept beside each workload because it takes long to find out.

    Attributes:
        path: As given.
        rules: As given, in one order.
        damaged: Why lines of the file were dropped; None where all were read.
    """

    def __init__(self, path: Path, rules: Sequence[str], run: str, arenas: Sequence[ArenaRules] = ()) -> None:
        self.path = path
        self.rules = canonical(rules)
        self.damaged: str | None = None
        self._arenas = list(dict.fromkeys(arenas))
        self._run = run
        self._lines: dict[str, dict[str, Any]] = {}
        self._known = _Known()
        self._end = 0
        self._read()

    def __contains__(self, key: str) -> bool:
        return key in self._lines

    def __len__(self) -> int:
        return len(self._lines)

    def append(self, workloads: Mapping[str, Workload]) -> None:
        """Keep workloads, those of known keys excepted; not synced, since what is lost can be made again.

        Raises:
            OSError: If the file cannot be written.
        """
        lines = [] if self._end else [_line(self._header())]
        lines += [_line(self._entry(key, workload)) for key, workload in workloads.items() if key not in self]
        data = b"".join(lines)
        with self.path.open("r+b" if self.path.exists() else "wb") as file:
            file.truncate(self._end)
            file.seek(self._end)
            file.write(data)
        self._end += len(data)

    def workloads(self, keys: Sequence[str]) -> ManyWorkloads:
        """Some of the workloads, in order.

        Raises:
            KeyError: If one is not there.
        """
        lines = [self._lines[key] for key in keys]
        spans = [np.frombuffer(entry, np.int64).reshape(2, -1) for entry in self._known.spans]
        sizes = np.array([line["sizes"] for line in lines], np.int64).reshape(len(lines), 2)
        touched = np.array([line["touched"] for line in lines], np.int64).reshape(len(lines), len(self._arenas))
        around = b"".join(self._known.around)
        return ManyWorkloads(
            keys=tuple(keys),
            kernels=self._kernels(),
            surroundings=np.frombuffer(around, np.int64).reshape(-1, len(SURROUNDINGS)),
            rows=_joined([line["rows"] for line in lines]),
            places=_joined([line["places"] for line in lines]),
            lengths=np.array([len(line["rows"]) for line in lines], np.int64),
            storage_bytes=sizes[:, 0],
            resident_bytes=sizes[:, 1],
            buffers=tuple(_buffers(line, spans[line["span"]]) for line in lines),
            touched={rules: touched[:, place] for place, rules in enumerate(self._arenas)},
        )

    def _kernels(self) -> Workload:
        """The distinct kernels as one workload."""
        table = np.frombuffer(b"".join(self._known.kernels), np.int64).reshape(-1, _COLUMNS)
        words, count = list(self._known.words), len(table)
        patterns = [words[code] for code in table[:, -1]]
        return Workload(
            names=tuple(KERNEL_KINDS[code] for code in table[:, 0]),
            functions=tuple(words[code] for code in table[:, -2]),
            kind=table[:, 0].astype(np.int16),
            format=table[:, 1].astype(np.int8),
            layout=table[:, 2].astype(np.int8),
            macs=table[:, 3],
            input_bytes=table[:, 4],
            weight_bytes=table[:, 5],
            output_bytes=table[:, 6],
            elements=table[:, 7],
            geometry=table[:, _SIZES:-2],
            surroundings=np.zeros((count, len(SURROUNDINGS)), np.int64),
            storage_bytes=0,
            resident_bytes=0,
            parameters=0,
            peak_activation_bytes=0,
            sparse={row: pattern for row, pattern in enumerate(patterns) if pattern},
        )

    def _header(self) -> dict[str, Any]:
        names = {"kinds": KERNEL_KINDS, "formats": FORMATS, "layouts": LAYOUTS, "geometry": GEOMETRY}
        listed = {key: list(value) for key, value in {**names, "surroundings": SURROUNDINGS}.items()}
        arenas = [list(rules) for rules in self._arenas]
        return {"schema": SCHEMA, "run": self._run, "rules": list(self.rules), "arenas": arenas, **listed}

    def _entry(self, key: str, workload: Workload) -> dict[str, Any]:
        """The line of a workload, which is remembered."""
        known, words = self._known, len(self._known.words)
        codes = [_places(known.words, column) for column in _words_of(workload)]
        table = np.column_stack((_numbers_of(workload), *codes)).astype(np.int64).reshape(-1, _COLUMNS)
        buffers = workload.buffers
        line: dict[str, Any] = {"key": key, "words": list(known.words)[words:]}
        line["kernels"], rows = _taken(known.kernels, table)
        line["around"], places = _taken(known.around, workload.surroundings)
        spans = np.stack((buffers.first, buffers.last)).astype(np.int64)
        is_new = spans.tobytes() not in known.spans
        line["spans"] = [spans.tolist()] if is_new else []
        line["span"] = known.spans.setdefault(spans.tobytes(), len(known.spans))
        line["sizes"] = [workload.storage_bytes, workload.resident_bytes]
        line["touched"] = [arena_use(buffers, _memory(rules)).touched_bytes for rules in self._arenas]
        arrays = {"rows": rows, "places": places, "bytes": buffers.bytes, "inputs": buffers.inputs}
        self._lines[key] = {**{name: line[name] for name in ("span", "sizes", "touched")}, **arrays}
        return {**line, **{name: array.tolist() for name, array in arrays.items()}}

    def _read(self) -> None:
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            self.damaged = f"it cannot be read: {error.strerror}"
            return
        *lines, _torn = data.split(b"\n")
        for number, line in enumerate(lines, 1):
            try:
                content = _content(line)
                self._take_header(content) if number == 1 else self._take(content)
            except _DAMAGED as error:
                self.damaged = f"line {number}: {error}"[:200]
                return
            self._end += len(line) + 1

    def _take_header(self, content: Any) -> None:
        wanted = self._arenas
        self._arenas = [_arena(rules) for rules in content["arenas"]]
        if content != self._header() or len(self._arenas) > _MOST_ARENAS:
            self._arenas = wanted
            raise ValueError("it is of another run, or another version wrote it")

    def _take(self, content: Any) -> None:
        """Check a line and remember it; nothing of a line that is refused is."""
        known, key = self._known, content["key"]
        words, kernels = _words(content["words"]), _table(content["kernels"], _COLUMNS)
        around, spans = _table(content["around"], len(SURROUNDINGS)), [_integers(one, 2) for one in content["spans"]]
        _check_kernels(kernels, [*known.words, *words])
        _expect(isinstance(key, str) and key not in self._lines, "every key is there once")
        _expect(len(spans) <= 1 and all(len(entry) == 2 for entry in spans), "spans are pairs of rows")
        rows, places = _integers(content["rows"], 1), _integers(content["places"], 1)
        _expect(len(rows) == len(places) <= _MOST_KERNELS, "every kernel has a place")
        _expect(rows.max(initial=-1) < len(known.kernels) + len(kernels), "a kernel is missing")
        _expect(places.max(initial=-1) < len(known.around) + len(around), "a place is missing")
        sizes, touched = _integers(content["sizes"], 1), _integers(content["touched"], 1)
        _expect(len(sizes) == 2 and len(touched) == len(self._arenas), "sizes are missing")
        span = content["span"]
        listed = [*known.spans, *(entry.tobytes() for entry in spans)]
        _expect(type(span) is int and 0 <= span < len(listed), "a span is missing")
        held, inputs = _integers(content["bytes"], 1), _table(content["inputs"], 2)
        _check_buffers(held, np.frombuffer(listed[span], np.int64).reshape(2, -1), len(rows))
        _expect(inputs[:, 0].max(initial=-1) < len(held), "an input has a buffer")
        known.add(words, *([entry.tobytes() for entry in table] for table in (kernels, around, spans)))
        told = {"span": span, "sizes": sizes.tolist(), "touched": touched.tolist()}
        self._lines[key] = {**told, "rows": rows, "places": places, "bytes": held, "inputs": inputs}


def _line(content: Any) -> bytes:
    text = json.dumps(content, separators=(",", ":"), allow_nan=False).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _content(line: bytes) -> Any:
    _expect(line[:9] == b"%08x " % zlib.crc32(line[9:]), "its checksum is another")
    return json.loads(line[9:])


def _words_of(workload: Workload) -> tuple[Sequence[str], Sequence[str]]:
    """The function and the pattern of zeros of every kernel."""
    return workload.functions, [workload.sparse.get(row, "") for row in range(len(workload))]


def _numbers_of(workload: Workload) -> Integers:
    columns = (
        workload.kind, workload.format, workload.layout, workload.macs, workload.input_bytes, workload.weight_bytes,
        workload.output_bytes, workload.elements, workload.geometry,
    )  # fmt: skip
    return np.column_stack(columns).astype(np.int64)


def _places(known: dict[str, int], words: Sequence[str]) -> Integers:
    return np.array([known.setdefault(word, len(known)) for word in words], np.int64)


def _taken(known: dict[bytes, int], table: Integers) -> tuple[list[list[int]], Integers]:
    """The rows that were not known before, and the place of every row."""
    before, places = len(known), np.zeros(len(table), np.int64)
    fresh: list[list[int]] = []
    for at, row in enumerate(table):
        places[at] = known.setdefault(row.tobytes(), len(known))
        if places[at] == before + len(fresh):
            fresh.append(row.tolist())
    return fresh, places


def _buffers(line: Mapping[str, Any], spans: Integers) -> Buffers:
    return Buffers(line["bytes"], spans[0], spans[1], len(line["rows"]), line["inputs"])


def _joined(arrays: Sequence[Integers]) -> Integers:
    return np.concatenate([np.zeros(0, np.int64), *arrays])


def _memory(rules: ArenaRules) -> Memory:
    alignment, region_kb, growth, replanned, integer_inputs = rules
    return Memory(
        limit_mb=1,
        alignment=alignment,
        region_kb=region_kb,
        growth=growth,
        replanned=replanned,
        integer_inputs=integer_inputs,
    )


def _arena(rules: Any) -> ArenaRules:
    alignment, region_kb, growth, replanned, integer_inputs = rules
    return arena_rules(_memory((alignment, region_kb, growth, replanned, integer_inputs)))


def _expect(holds: bool, rule: str) -> None:
    if not holds:
        raise ValueError(rule)


def _words(listed: Any) -> list[str]:
    _expect(isinstance(listed, list) and all(isinstance(word, str) for word in listed), "words are texts")
    return list(listed)


def _integers(listed: Any, axes: int, least: int = 0) -> Integers:
    """An array of whole numbers from ``least`` on, none of them absurdly large."""
    found: NDArray[Any] = np.array(listed) if listed else np.zeros((0,) * axes, np.int64)
    _expect(found.dtype.kind == "i" and found.ndim == axes, f"numbers are whole, in {axes} axes")
    _expect(bool((found >= least).all() and (found < _LARGEST).all()), "numbers are out of range")
    return found.astype(np.int64)


def _table(listed: Any, columns: int, least: int = 0) -> Integers:
    found = _integers(listed, 2, least) if listed else np.zeros((0, columns), np.int64)
    _expect(found.shape[1] == columns, f"a row has {columns} numbers")
    return found


def _check_buffers(sizes: Integers, spans: Integers, kernels: int) -> None:
    """Refuse buffers that live where there is no kernel."""
    first, last = spans
    _expect(len(sizes) == len(first), "every buffer has a span")
    _expect(bool((first <= last).all()) and last.max(initial=-1) < kernels, "a buffer lives among kernels")


def _check_kernels(kernels: Integers, words: Sequence[str]) -> None:
    """Refuse codes that stand for nothing."""
    counts = (len(KERNEL_KINDS), len(FORMATS), len(LAYOUTS))
    _expect(bool((kernels[:, :3] < counts).all()), "a kernel's kind, format or layout is unknown")
    _expect(bool((kernels[:, -2:] < len(words)).all()), "a word is missing")
    patterns = {words[code] for code in kernels[:, -1].tolist()}
    _expect(patterns <= {"", *SPARSE_PATTERNS}, "a pattern of zeros is unknown")
