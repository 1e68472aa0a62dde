"""What can be pickled and not read back, as a class of a package that a node lacks."""

from __future__ import annotations

from typing import Any


class Explosive:
    """Stands where a behaviour would."""

    def __call__(self, view: object) -> float:
        """As the teacher is measured, in the search's own process."""
        return 1.0

    def __reduce__(self) -> Any:
        return (_explode, ())


def _explode() -> None:
    raise OSError("not on this machine")
