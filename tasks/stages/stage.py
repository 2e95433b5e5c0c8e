"""A stage: the table that it fills, the stages whose tables it reads, and how its rows are made."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Generic, Self, TypeVar

import polars as pl
import pyarrow as pa
from pydantic import Field

from models.devices import require_device
from models.engine_settings import EngineSettings
from models.protocols import EngineUnavailable
from models.settings import Settings
from storage.locations.location import Location
from storage.tables.finding import find_table
from storage.tables.key_columns import KeyColumn
from storage.tables.keys import content_key
from storage.tables.table import IncompleteTable, Keys, Table, open_table

Tick = Callable[[int], None]
"""Called with the number of rows just made, for progress."""


StageT = TypeVar("StageT", bound="Stage")


class Stage(Settings):
    """A table to fill. Subclasses say with which rows.

    A stage that reads another stage's table has it as a field. Order, provenance and reuse follow
    from that graph (`inputs`). Identity and table are computed once for each stage value.
    """

    table_name: ClassVar[str]
    producer: ClassVar[str]
    """Name and version of the code that makes the rows; raised when the rows change."""
    streams: ClassVar[bool] = False
    """Whether an engine answers for the rows through `tasks.stages.streams.ask`, so that several
    shards are made at once."""

    root: str
    """Root of the tables, local or s3://."""
    shard_size: int = Field(512, ge=1)
    """Rows made and published together."""

    @property
    @abstractmethod
    def title(self) -> str:
        """A few words for progress lines and summaries."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Everything except the producer that changes the rows' bytes."""

    @abstractmethod
    def planned(self) -> Sequence[str]:
        """The keys that the table should hold; where they may be millions, a `KeyColumn`."""

    @abstractmethod
    def rows(self, members: Sequence[str], tick: Tick) -> pa.Table:
        """Make one row for each member, failed ones included."""

    def planned_keys(self) -> Keys:
        """The planned keys; as derived keys where computing them costs reads."""
        return self.planned()

    def read_order(self, keys: KeyColumn) -> Sequence[str] | pl.Series:
        """Sorted keys in the order in which what their rows are made from is best read."""
        return keys

    @property
    def inputs(self) -> Mapping[str, Stage]:
        """The stages whose tables this one reads, by the name of the field that holds each."""
        found: dict[str, Stage] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, Stage):
                found[name] = value
            elif isinstance(value, Mapping):
                own = {f"{name}.{key}": each for key, each in value.items()}
                found |= {key: each for key, each in own.items() if isinstance(each, Stage)}
        return found

    @property
    def location(self) -> Location:
        """The root as a location."""
        return Location(self.root)

    @cached_property
    def spec(self) -> Mapping[str, Any]:
        """The spec of the stage's table."""
        return {"producer": self.producer, **self.identity()}

    @cached_property
    def spec_key(self) -> str:
        """The key of the stage's table; nothing is opened for it."""
        return content_key(self.spec)

    @property
    def has_earlier(self) -> bool:
        """Whether replies to an earlier version may make the rows, so that no engine is asked."""
        return False

    @cached_property
    def _opened(self) -> Table:
        return open_table(self.location, self.table_name, self.spec)

    def table(self) -> Table:
        """The stage's table."""
        return self._opened

    def existing_table(self) -> Table:
        """The stage's table for a reader, which makes none.

        Raises:
            IncompleteTable: no run has begun to fill it.
        """
        try:
            found = find_table(self.location, self.table_name, self.spec_key)
        except FileNotFoundError:  # what the table's identity is made from is missing too
            found = None
        if found is None:
            raise IncompleteTable(
                f"{self.title}: nothing was made yet; run the flow that fills this table"
            )
        return found

    def __copy__(self) -> Stage:
        """A copy without cached properties: `model_copy` may change the fields behind them."""
        copied = super().__copy__()
        for name in copied.__dict__.keys() - type(self).model_fields.keys():
            del copied.__dict__[name]
        return copied


def own_settings(stage: Stage) -> list[Settings]:
    """The groups of settings that a stage has of its own, engines among them."""
    values = [value for _, value in stage]
    return [each for each in values if isinstance(each, Settings) and not isinstance(each, Stage)]


def require_hosts(stage: Stage, there: set[EngineSettings] | None = None) -> None:
    """Refuse a stage whose own engines' devices or servers are not there; none is loaded.

    Args:
        stage: The stage.
        there: Engines that were looked for and are not asked again; this stage's are added.

    Raises:
        ValueError: Names the stage and the device.
        EngineUnavailable: Names the stage, and says what is wrong with its server.
    """
    there = set() if there is None else there
    for own in (stage, *own_settings(stage)):
        if isinstance(own, EngineSettings) and own in there:
            continue
        try:
            if isinstance(own, EngineSettings):
                own.require_host()
            elif device := getattr(own, "device", ""):
                require_device(device)
        except ValueError as error:
            raise ValueError(f"{stage.title}: {error}") from error
        except EngineUnavailable as error:
            raise EngineUnavailable(f"{stage.title}: {error}") from error
        if isinstance(own, EngineSettings):
            there.add(own)


@dataclass(frozen=True)
class Filled(Generic[StageT]):
    """A stage's table as it is filled now; what follows from it is computed once."""

    spec_key: str
    parts: tuple[str, ...]
    stage: StageT = field(compare=False)

    @classmethod
    def by(cls, stage: StageT) -> Self:
        """The present state of a stage's table."""
        parts = tuple(entry.path for entry in stage.table().parts())
        return cls(stage.spec_key, parts, stage)


def in_order(stages: Iterable[Stage]) -> list[Stage]:
    """Some stages and every stage whose table they read, each once, inputs first.

    Stages without inputs come first, then stages that read only these, and so on, so that one kind
    of model works at a time.
    """
    levels: dict[str, tuple[int, Stage]] = {}

    def level(stage: Stage) -> int:
        mark = f"{type(stage).__name__} {stage.model_dump_json()}"
        if mark not in levels:
            own = 1 + max((level(each) for each in stage.inputs.values()), default=-1)
            levels[mark] = (own, stage)
        return levels[mark][0]

    for stage in stages:
        level(stage)
    return [stage for _, stage in sorted(levels.values(), key=lambda each: each[0])]


def inputs_of(stages: Sequence[Stage]) -> list[Stage]:
    """The stages that some stages read, directly and indirectly, in order."""
    return [stage for stage in in_order(stages) if stage not in stages]
