"""The seam between a search and where its records are kept."""

from __future__ import annotations

from typing import Protocol

from kneepoint.search.record import Fidelity, Record


class Log(Protocol):
    """Records of a run, one a (policy, fidelity); several drivers may share one."""

    def __len__(self) -> int:
        """How many records there are."""

    @property
    def records(self) -> list[Record]:
        """In the order they ended."""

    @property
    def failed(self) -> int:
        """How many of them are of failures."""

    @property
    def place(self) -> str:
        """Where they are kept, for messages; without passwords."""

    @property
    def driver(self) -> int:
        """This driver's number, in the order in which they joined the run; 0 where there can be one alone."""

    def find(self, policy_id: str, fidelity: Fidelity) -> Record | None:
        """The record of a policy at a fidelity, as far as this driver has heard."""

    def claim(self, policy_id: str, fidelity: Fidelity) -> bool:
        """Whether this driver is to measure it: nobody else did, nor does so now."""

    def append(self, record: Record) -> Record:
        """Keep ``record`` durably; returns what is kept, which is another driver's where that was faster.

        Raises:
            RunError: If it cannot be written, or this driver has appended it before.
        """

    def refresh(self) -> list[Record]:
        """What other drivers appended since the last call."""

    def close(self) -> None:
        """Let others have what was claimed and not appended."""
