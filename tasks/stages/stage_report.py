"""The outcome of one stage in a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from storage.tables.costs import TableCost


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
        cost: what the table took so far, in this and other runs; several stages may share a table.
    """

    title: str
    planned: int
    reused: int
    made: int
    failed: int
    broken: tuple[str, ...]
    seconds: float
    where: str
    cost: TableCost = field(default_factory=TableCost)

    @property
    def cut_texts(self) -> int:
        """Texts behind the table's rows that were longer than the text tower's context."""
        return self.cost.made.cut_texts

    def as_json(self) -> dict[str, Any]:
        """As plain JSON."""
        said = {**vars(self), "broken": list(self.broken), "cut_texts": self.cut_texts}
        del said["cost"]  # of a table and not of a stage: it would be counted twice
        return said
