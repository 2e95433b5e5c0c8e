"""How far a collection is: the methods that can search it, and what the others still lack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from models.retrieval.methods import title_of
from storage.tables.plans import IncompleteTable
from tasks.methods import runnable_methods
from tasks.planner import gallery_stages
from tasks.settings import Profile
from tasks.stages.stage import Stage, in_order


@dataclass(frozen=True)
class TableState:
    """A table that methods need of a collection.

    Attributes:
        title: What it holds.
        done: Images with a row.
        planned: Images.
    """

    title: str
    done: int
    planned: int

    @property
    def is_whole(self) -> bool:
        """Whether each image has a row."""
        return self.done >= self.planned


@dataclass(frozen=True)
class MethodState:
    """A method and what it still lacks; ready where that is nothing."""

    name: str
    title: str
    lacks: tuple[str, ...]

    @property
    def ready(self) -> bool:
        """Whether the collection can be searched by it."""
        return not self.lacks


@dataclass(frozen=True)
class Readiness:
    """The tables of a collection, inputs first, and its methods."""

    tables: tuple[TableState, ...]
    methods: tuple[MethodState, ...]

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left to be made."""
        return all(table.is_whole for table in self.tables)


def readiness(profile: Profile, collection: str, methods: Sequence[str] = ()) -> Readiness:
    """The state of a collection under a profile.

    Args:
        profile: Models and the root.
        collection: Name of an ingested collection.
        methods: Their names; none: all that run under the profile.
    """
    needed: dict[str, tuple[Stage, ...]] = {
        name: tuple(gallery_stages(profile, collection, name).values())
        for name in methods or runnable_methods(profile)
    }
    stages = in_order([stage for own in needed.values() for stage in own])
    states = {_mark(stage): _state(stage) for stage in stages}
    return Readiness(
        tuple(states.values()),
        tuple(
            MethodState(
                name,
                title_of(name),
                tuple(
                    state.title
                    for state in (states[_mark(stage)] for stage in own)
                    if not (state.is_whole and state.planned)
                ),
            )
            for name, own in needed.items()
        ),
    )


def _mark(stage: Stage) -> tuple[str, str]:
    return stage.table_name, stage.spec_key


def _state(stage: Stage) -> TableState:
    keys = stage.planned_keys()
    try:
        found = stage.existing_table().completeness(keys)
    except IncompleteTable:
        return TableState(stage.title, 0, len(stage.planned()))
    return TableState(stage.title, found.planned - found.missing, found.planned)
