"""Queries one by one: their outcome, and captions next to their edits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from tasks.report.records import Strip

OUTCOMES: Final = {
    "miss": "Missed: no target is among the results shown",
    "hit": "Found: a target is among the results shown",
    "open": "Not judged: the right answers of this split are hidden",
}
"""Outcome -> heading, in the order in which a page shows them."""


def verdict(strip: Strip) -> tuple[str, str]:
    """Outcome (a key of `OUTCOMES`) and its wording."""
    if not strip.judged:
        return "open", "not judged"
    if strip.found:
        return "hit", f"target at rank {strip.target_rank}"
    if strip.target_rank is None:
        return "miss", "no target in the ranking"
    return "miss", f"best target at rank {strip.target_rank:,}"


def groups(strips: Sequence[Strip]) -> tuple[tuple[str, tuple[Strip, ...]], ...]:
    """Misses, hits and unjudged strips, as far as there are any, each in the order given."""
    members = {
        key: tuple(strip for strip in strips if verdict(strip)[0] == key) for key in OUTCOMES
    }
    return tuple((key, shown) for key, shown in members.items() if shown)


def pairs(strip: Strip) -> tuple[tuple[tuple[str, str], int], ...]:
    """Each (caption, edit) of a strip with its count, as `pairs_of`."""
    return pairs_of(strip.captions, strip.edits)


def pairs_of(
    captions: Sequence[str], edits: Sequence[str]
) -> tuple[tuple[tuple[str, str], int], ...]:
    """Each (caption, edit) with its count; empty where the numbers of both differ."""
    if len(captions) != len(edits):
        return ()
    return tuple(Counter(zip(captions, edits, strict=True)).items())
