"""Choose rows of the ledger by how they were made, and lay them out by one facet."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from models.spelling import unknown
from tasks.scoring.making import FACETS, NONE, differences

Entry = Mapping[str, Any]

COLUMNS: Final = ("method", "backbone", "benchmark", "split")
"""Columns of every entry that can be chosen by as facets can."""

_TOGETHER: Final = ("network", "trained_on")
"""Facets of which one follows from the other: a pivot by either keeps neither apart."""


def chosen(entries: Sequence[Entry], where: Sequence[str]) -> list[Entry]:
    """The entries that fit every condition.

    Args:
        entries: Entries of the ledger.
        where: Conditions such as ``method=cvsi``: the facet's words hold the value. ``==``
            compares the whole.

    Raises:
        ValueError: a condition has another form, or names no facet.
    """
    conditions = [_condition(each) for each in where]
    return [
        entry
        for entry in entries
        if all(
            value_of(entry, facet) == value if whole else value in value_of(entry, facet)
            for facet, value, whole in conditions
        )
    ]


def checked_facet(name: str) -> str:
    """The name of a facet or column.

    Raises:
        ValueError: there is none of this name.
    """
    known = (*COLUMNS, *FACETS)
    if name not in known:
        raise ValueError(unknown("facet", name, known))
    return name


def value_of(entry: Entry, facet: str) -> str:
    """The words of a facet or column of an entry; `none` where it has no such facet."""
    return str(entry[facet] if facet in COLUMNS else entry["made"].get(facet, NONE))


@dataclass(frozen=True)
class Side:
    """Entries that agree in method, backbone and every facet but one.

    Attributes:
        entries: value of that facet -> entry.
        differs: what tells these entries from others of their method, that facet left aside.
    """

    entries: Mapping[str, Entry]
    differs: str

    @property
    def first(self) -> Entry:
        """One of the entries, for what they agree in."""
        return next(iter(self.entries.values()))


def pivot(entries: Sequence[Entry], facet: str) -> tuple[list[str], list[Side]]:
    """Entries of one benchmark side by side.

    Returns:
        The facet's values, numbers in their order and `none` last; and the entries, each once.
    """
    values = sorted({value_of(entry, facet) for entry in entries}, key=_natural)
    aside = _TOGETHER if facet in _TOGETHER else (facet,)
    others = [name for name in ("method", "backbone", *FACETS) if name not in aside]
    alike: dict[tuple[str, ...], list[dict[str, Entry]]] = {}
    for entry in entries:
        sides = alike.setdefault(tuple(value_of(entry, name) for name in others), [])
        value = value_of(entry, facet)
        free = next((side for side in sides if value not in side), None)
        if free is None:
            sides.append(free := {})
        free[value] = entry
    found = [side for sides in alike.values() for side in sides]
    told = differences([_without(next(iter(side.values())), aside) for side in found])
    return values, [Side(side, differs) for side, differs in zip(found, told, strict=True)]


def _without(entry: Entry, facets: Sequence[str]) -> Entry:
    made = {name: words for name, words in entry["made"].items() if name not in facets}
    return {**entry, "made": made}


def _natural(value: str) -> tuple[bool, float, str]:
    number = re.match(r"\d+", value)
    return value == NONE, float(number[0]) if number else math.inf, value


def _condition(text: str) -> tuple[str, str, bool]:
    facet, equals, value = text.partition("=")
    if not equals or not facet:
        raise ValueError(f"{text!r} is not FACET=VALUE, such as method==cvsi")
    return checked_facet(facet.strip()), value.removeprefix("=").strip(), value.startswith("=")
