"""The outcome of one stage in a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class StageReport:
    """The outcome of one stage.

    Attributes:
        title: the stage in a few words.
        planned: rows that the table should hold.
        reused: rows that were there before, or that other runs published meanwhile.
        made: rows that this run published.
        failed: rows without a usable value, made now or before.
        broken: shards that raised, with the error.
        seconds: wall time.
        where: the table's folder.
    """

    title: str
    planned: int
    reused: int
    made: int
    failed: int
    broken: tuple[str, ...]
    seconds: float
    where: str

    def as_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {**vars(self), "broken": list(self.broken)}
