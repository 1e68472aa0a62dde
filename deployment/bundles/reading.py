"""Reads what a bundle measured: a file of anyone's, of which nothing is believed that was not checked.

Every error names the file and the line; what it quotes is cut short and holds no control characters.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from kneepoint.deployment.bundles.plan import Plan, Planned
from kneepoint.deployment.bundles.results_schema import LINE, Header, NetworkLine, ProbeLine
from kneepoint.deployment.device_program import RESULTS_SCHEMA
from kneepoint.tasks.errors import DeviceError

LARGEST_BYTES = 200_000_000
_LONGEST_LINE = 2_000_000
_LONGEST_QUOTE = 60
_WAY_OUT = "copy the file from the device again, or measure anew with a bundle of this version"


@dataclass(frozen=True)
class Results:
    """A file that holds together; that its networks are those of the plan is not checked yet.

    Attributes:
        path: The file.
        header: Its first line.
        probes: By number.
        networks: By number and threads.
        refused: How many the runtime did not run.
        numbers: Of the line that each network or probe stands on.
        notes: What people should know.
    """

    path: Path
    header: Header
    probes: dict[int, ProbeLine]
    networks: dict[tuple[int, int], NetworkLine]
    refused: int
    numbers: dict[int, int]
    notes: tuple[str, ...]


def read_results(path: str | Path) -> Results:
    """What a bundle measured.

    Args:
        path: The file that ``run.py`` wrote.

    Raises:
        DeviceError: If the file is missing, too large, or anything in it is not as ``run.py`` writes it; one line, with
            the number of the line in the file.
    """
    file = Path(path)
    lines, notes = _lines(file)
    (number, first), rest = lines[0], lines[1:]
    header = _header(file, first)
    reader = _Reader(file, header, list(notes))
    for number, line in rest:
        reader.take(number, line)
    return reader.results()


@dataclass
class _Reader:
    path: Path
    header: Header
    notes: list[str]

    def __post_init__(self) -> None:
        self._probes: dict[int, ProbeLine] = {}
        self._networks: dict[tuple[int, int], NetworkLine] = {}
        self._refused: set[tuple[int, int]] = set()
        self._numbers: dict[int, int] = {}

    def take(self, number: int, line: bytes) -> None:
        """One more line."""
        _parsed(self.path, number, line)
        try:
            found = LINE.validate_json(line)
        except ValidationError as error:
            _refuse(self.path, number, _problem(error, 1))
        if isinstance(found, ProbeLine):
            self._new(found.network in self._probes, number, f"probe {found.network}")
            self._probes[found.network] = found
            return
        key = found.network, found.threads
        if found.network >= self.header.plan.count:
            last = self.header.plan.count - 1
            _refuse(self.path, number, f"the plan has networks 0 to {last}; got {found.network}")
        self._new(key in self._networks or key in self._refused, number, f"network {key[0]} on {key[1]} thread(s)")
        self._numbers.setdefault(found.network, number)
        if isinstance(found, NetworkLine):
            self._networks[key] = found
        else:
            self._refused.add(key)

    def results(self) -> Results:
        """All that was taken."""
        return Results(
            self.path,
            self.header,
            self._probes,
            self._networks,
            len(self._refused),
            self._numbers,
            tuple(self.notes),
        )

    def _new(self, known: bool, number: int, what: str) -> None:
        if known:
            _refuse(self.path, number, f"a network stands there once for a thread count; {what} comes a second time")


def networks_of(results: Results, plan: Plan) -> Iterator[Planned]:
    """The networks that were measured, drawn anew.

    Raises:
        DeviceError: If a network of the results is another than that of the plan.
    """
    lines = {number: line for (number, _), line in results.networks.items()}
    if not lines:
        return
    for planned in islice(plan.networks(), max(lines) + 1):
        if planned.number in lines:
            _check_digest(results, results.numbers[planned.number], lines[planned.number].sha256, planned)
            yield planned


def probes_of(results: Results, plan: Plan) -> Iterator[Planned]:
    """The probes that ran, drawn anew.

    Raises:
        DeviceError: If a probe of the results is another than that of the plan.
    """
    for planned in plan.probes():
        line = results.probes.get(planned.number)
        if line is not None and line.nodes:
            _check_digest(results, None, line.sha256, planned)
            yield planned


def _check_digest(results: Results, number: int | None, digest: str, planned: Planned) -> None:
    if digest == planned.sha256:
        return
    where = f"line {number}" if number else f"probe {planned.number}"
    raise DeviceError(
        f"{quoted(results.path, 200)}, {where}: network {planned.number} of seed {results.header.plan.seed} has the "
        f"SHA-256 {planned.sha256[:12]}... here, and {digest[:12]}... in the results: they are of another bundle, or "
        f"of one that another version of kneepoint, NumPy or onnx wrote; {_WAY_OUT}"
    )


# --- lines ---------------------------------------------------------------------------------------------------------


def _lines(path: Path) -> tuple[list[tuple[int, bytes]], list[str]]:
    """The lines with their numbers, and notes; a last one that was cut off is left out."""
    content = _content(path)
    if not content.strip():
        raise DeviceError(f"{quoted(path, 200)} is empty; a file of results begins with a header: {_WAY_OUT}")
    lines = content.split(b"\n")
    notes = []
    if lines[-1]:
        notes.append(f"line {len(lines)}, the last, was cut off and is left out")
    numbered = [(number, line) for number, line in enumerate(lines[:-1], 1)]
    if not numbered:
        numbered = [(1, lines[0])]
    for number, line in numbered:
        if len(line) > _LONGEST_LINE:
            _refuse(path, number, f"a line has at most {_LONGEST_LINE / 1e6:g} MB; got {len(line) / 1e6:.1f}")
        if not line.strip():
            _refuse(path, number, "a line holds one JSON object; got an empty one")
    return numbered, notes


def _content(path: Path) -> bytes:
    shown = quoted(path, 200)
    try:
        if path.is_dir():
            raise DeviceError(f"results are a file that run.py wrote; {shown} is a folder: name the file in it")
        if path.exists() and not path.is_file():
            raise DeviceError(f"results are a file that run.py wrote; {shown} is none: check the path")
        with path.open("rb") as stream:
            content = stream.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise DeviceError(f"cannot read results {shown}: {error.strerror or error}; check the path") from error
    except ValueError as error:  # a NUL in the name
        raise DeviceError(f"{shown} is no name of a file; check the path") from error
    if len(content) > LARGEST_BYTES:
        raise DeviceError(
            f"results have at most {LARGEST_BYTES / 1e6:g} MB; {shown} has more: it is no file that run.py wrote"
        )
    return content


def _header(path: Path, line: bytes) -> Header:
    content = _parsed(path, 1, line)
    if "schema" not in content:
        _refuse(path, 1, f"results begin with a header, an object with the key 'schema'; got {_kind(content)}")
    if content["schema"] != RESULTS_SCHEMA:
        _refuse(path, 1, f"this version reads the schema {RESULTS_SCHEMA!r}; got {quoted(content['schema'])}")
    try:
        return Header.model_validate_json(line)
    except ValidationError as error:
        _refuse(path, 1, _problem(error))


def _parsed(path: Path, number: int, line: bytes) -> dict[str, Any]:
    """A line as a JSON object."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        _refuse(path, number, f"results are lines of JSON in UTF-8; got bytes that are no text: {quoted(line[:16])}")
    try:
        content = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_unique)
    except RecursionError:
        _refuse(path, number, f"a line holds one JSON object of a few levels; got thousands of them: {quoted(text)}")
    except ValueError as error:
        _refuse(path, number, f"a line holds one JSON object; got {quoted(text)} ({quoted(error)})")
    if not isinstance(content, dict):
        _refuse(path, number, f"a line holds one JSON object; got {_kind(content)}")
    return content


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"numbers are finite; got {name}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key comes twice")
    return found


# --- words ---------------------------------------------------------------------------------------------------------


def _refuse(path: Path, number: int, what: str) -> NoReturn:
    raise DeviceError(f"{quoted(path, 200)}, line {number}: {what}; {_WAY_OUT}")


def _problem(error: ValidationError, tags: int = 0) -> str:
    """The first problem: the key (behind the tags of what it is a key of), the rule and what came."""
    first = error.errors(include_url=False, include_context=False)[0]
    key = ".".join(quoted(part).strip("'") for part in first["loc"][tags:])
    rule = quoted(str(first["msg"]).removeprefix("Value error, "), longest=160).strip("'")
    if first["type"] == "missing":
        return f"the key {key!r} is missing"
    if first["type"] == "extra_forbidden":
        return f"the key {key!r} is unknown"
    return f"{key or 'kind'}: {rule}; got {_kind(first['input'])}"


def _kind(value: Any) -> str:
    """A value in few words."""
    if isinstance(value, dict):
        return f"an object with {len(value)} keys"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return quoted(value)


def quoted(value: object, longest: int = _LONGEST_QUOTE) -> str:
    """A value as it may be printed: short, on one line, without control characters."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 200:
        return f"a number of {value.bit_length()} bits"
    text = value if isinstance(value, str) else str(value)
    cut = text if len(text) <= longest else text[: longest - 3] + "..."
    shown = "".join(character if character.isprintable() else "?" for character in cut)
    return repr(shown) if isinstance(value, str) else shown
