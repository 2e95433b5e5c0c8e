"""What making a table cost: one note for each time that a shard was worked on.

A note is the name of an empty file next to the parts, as a receipt is: the listing that a plan
takes anyway is enough to know the costs, and there is no content to be damaged. A shard that is
published leaves a note ``made``; one that raised, or that another worker published first, leaves a
note ``wasted``. So work that was repeated or raced is counted for what it took, and never twice. A
process that is killed leaves none: what it had begun is unknown.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, Final

from storage.locations.location import Location

_MICRO: Final = 1_000_000
_LETTERS: Final = {
    "rows": "r",
    "questions": "q",
    "calls": "c",
    "prompt_tokens": "p",
    "answer_tokens": "a",
    "seconds": "s",
    "device_seconds": "d",
    "waiting_seconds": "w",
    "cut_texts": "t",
}
NOTE = re.compile(r"cost-([0-9a-f]{8,64})-([0-9a-f]{8})-(made|wasted)((?:-[a-z]\d+)+)")
"""Shard, work, outcome, and letters with whole numbers; seconds are in millionths."""


@dataclass(frozen=True)
class Cost:
    """What some work took.

    Attributes:
        rows: rows that were made.
        questions: prompts and images that an engine was given, each once.
        calls: requests to a server, repeated ones included; in process the same as questions.
        prompt_tokens: tokens that a language model read.
        answer_tokens: tokens that a model wrote.
        seconds: wall time of the shards, added up; shards of several workers overlap.
        device_seconds: time that models worked in the process.
        waiting_seconds: time between requests to a server and their replies, added up.
        cut_texts: texts that a text tower's context was too short for.
    """

    rows: int = 0
    questions: int = 0
    calls: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    seconds: float = 0.0
    device_seconds: float = 0.0
    waiting_seconds: float = 0.0
    cut_texts: int = 0

    def __add__(self, other: Cost) -> Cost:
        """The sum of both."""
        return Cost(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def engine_seconds(self) -> float:
        """Time of engines, in this process and behind servers."""
        return self.device_seconds + self.waiting_seconds

    def as_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {f.name: _rounded(getattr(self, f.name)) for f in fields(self)}


@dataclass(frozen=True)
class TableCost:
    """What a table took: work whose rows were published, and work that was lost."""

    made: Cost = Cost()
    wasted: Cost = Cost()

    def __add__(self, other: TableCost) -> TableCost:
        """The sum of both."""
        return TableCost(self.made + other.made, self.wasted + other.wasted)

    @property
    def spent(self) -> Cost:
        """All that was spent, lost work included."""
        return self.made + self.wasted


def leave_note(
    location: Location, folder: str, shard_key: str, cost: Cost, *, published: bool
) -> None:
    """Note what a shard took; a worker without the right to write does not.

    Args:
        location: The root.
        folder: The table's folder.
        shard_key: Of the shard.
        cost: What it took.
        published: Whether its rows were published by this work.
    """
    numbers = "".join(f"-{letter}{_whole(getattr(cost, n))}" for n, letter in _LETTERS.items())
    outcome = "made" if published else "wasted"
    name = f"cost-{shard_key}-{uuid.uuid4().hex[:8]}-{outcome}{numbers}"
    location.leave(f"{folder}/{name}", b"")


def read_notes(files: Iterable[str]) -> TableCost:
    """The sum of all notes among the paths of a table's files."""
    total = TableCost()
    for path in files:
        if found := NOTE.fullmatch(path.rpartition("/")[2]):
            cost = _cost(found[4])
            total += TableCost(made=cost) if found[3] == "made" else TableCost(wasted=cost)
    return total


def _cost(numbers: str) -> Cost:
    given = {each[0]: int(each[1:]) for each in numbers.split("-") if each}
    values: dict[str, Any] = {
        name: given.get(letter, 0) / _MICRO if name.endswith("seconds") else given.get(letter, 0)
        for name, letter in _LETTERS.items()
    }
    return Cost(**values)


def _whole(value: float) -> int:
    return value if isinstance(value, int) else round(value * _MICRO)


def _rounded(value: float) -> float:
    return value if isinstance(value, int) else round(value, 6)
