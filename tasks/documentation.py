"""A real text set that is on every machine: the documentation inside the packages that kneepoint installs.

A document is the prose of one docstring, up to its first section, list or code. Its class is the package it comes from,
whose names are masked in it, so that what tells packages apart is what they are about. The sources are read and never
imported.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kneepoint.tasks.errors import TaskError
from kneepoint.tasks.seeding import digest_seed

PACKAGES = ("networkx", "numpy", "pandas", "scipy", "sklearn", "sqlalchemy", "sympy", "torch")
MOST = 1500
"""Documents of a package; larger ones would only outweigh the others."""
FEWEST_WORDS = 12
MASK = "library"
"""What stands where a package's name stood."""

_NAMES = re.compile(
    r"\w*(?:networkx|numpy|pandas|scipy|sklearn|sqlalchemy|sympy|torch)\w*|\b(?:np|pd|nx|sp|sa)\b|scikit[- ]learn",
    re.IGNORECASE,
)
_SECTION = re.compile(
    r"\n\s*(?:Parameters|Returns|Args|Arguments|Examples?|Notes|Attributes|See Also|References|Raises|Yields)\b"
    r"|>>>|::|\n\s*(?:\.\. |[-*+:@] ?\w|\d\.)"
)
_FOREIGN = ("test", "_vendor", "externals", "array_api", "_lib", "third")
"""In the names of folders that are no documentation of the package itself."""


@dataclass(frozen=True)
class Document:
    """The prose of one docstring.

    Attributes:
        text: One paragraph, with the names of packages masked.
        package: Where it comes from: its class.
        module: The file it stands in, as ``numpy/linalg/_linalg.py``.
    """

    text: str
    package: str
    module: str

    @property
    def split(self) -> str:
        """``train`` (70 %), ``validation`` or ``test`` (15 % each): the same for all of a module.

        What is said twice in almost the same words is mostly said in one file.
        """
        draw = digest_seed("documentation", self.module) % 100
        return "train" if draw < 70 else "validation" if draw < 85 else "test"


@functools.cache
def load_documents(packages: Sequence[str] = PACKAGES, most: int = MOST) -> tuple[Document, ...]:
    """The documents of some packages, in an order that the installed versions alone decide.

    Of documents that begin with the same twelve words the first one stays. Reading takes up to three seconds a package.

    Args:
        packages: Names to import, as a tuple.
        most: Documents of each, from files drawn by the digest of their names.

    Raises:
        TaskError: A package is not installed, or holds no documents.
    """
    seen: set[str] = set()
    found: list[Document] = []
    for package in packages:
        own = list(_of_package(package, most, seen))
        if not own:
            raise TaskError(f"documentation comes from packages with docstrings, {package!r} holds none")
        found.extend(own)
    return tuple(found)


def _of_package(package: str, most: int, seen: set[str]) -> Iterator[Document]:
    root = _folder(package)
    names = [path.relative_to(root.parent).as_posix() for path in root.rglob("*.py")]
    own = [name for name in names if not any(foreign in name for foreign in _FOREIGN)]
    count = 0
    for name in sorted(own, key=lambda name: (digest_seed("documentation", name), name)):
        for text in _prose(root.parent / name):
            key = " ".join(text.lower().split()[:FEWEST_WORDS])
            if key in seen:
                continue
            seen.add(key)
            yield Document(text, package, name)
            count += 1
            if count == most:
                return


def _folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise TaskError(f"documentation comes from installed packages, there is no {package!r}: pip install {package}")
    return Path(spec.origin).parent


def _prose(path: Path) -> Iterator[str]:
    """The masked prose of every docstring in a file that has enough of it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of backslashes in other people's strings
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # templates that only look like Python
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = _SECTION.split("\n" + (ast.get_docstring(node) or ""), maxsplit=1)[0]
            text = " ".join(_NAMES.sub(MASK, first).split())
            if len(re.findall(r"[A-Za-z]{2,}", text)) >= FEWEST_WORDS:
                yield text
