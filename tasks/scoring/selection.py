"""Choose rows of the ledger by how they were made, and lay them out by one facet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from models.spelling import unknown
from tasks.scoring.making import FACETS, NONE

Entry = Mapping[str, Any]

COLUMNS: Final = ("method", "backbone", "benchmark", "split")
"""Columns of every entry that can be chosen by as facets can."""

_IMPLIED: Final = ("trained_on",)
"""Facets that follow from another one, which a pivot by that one must not keep apart."""


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


def pivot(entries: Sequence[Entry], facet: str) -> tuple[list[str], list[tuple[Entry, ...]]]:
    """Entries of one benchmark side by side.

    Returns:
        The facet's values in the order of the ledger; and for each set of entries that agree in
        method, backbone and every facet but this one, the entries, one a value at most.
    """
    values = list(dict.fromkeys(value_of(entry, facet) for entry in entries))
    rows: dict[tuple[str, ...], list[Entry]] = {}
    others = [name for name in ("method", "backbone", *FACETS) if name not in (facet, *_IMPLIED)]
    for entry in entries:
        rows.setdefault(tuple(value_of(entry, name) for name in others), []).append(entry)
    return values, [tuple(row) for row in rows.values()]


def _condition(text: str) -> tuple[str, str, bool]:
    facet, equals, value = text.partition("=")
    if not equals or not facet:
        raise ValueError(f"{text!r} is not FACET=VALUE, such as method==cvsi")
    return checked_facet(facet.strip()), value.removeprefix("=").strip(), value.startswith("=")
