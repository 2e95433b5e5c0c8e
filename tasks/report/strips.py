"""Queries as the page shows them: what was asked, found and missed, and the texts between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tasks.report import text
from tasks.report.records import Result, Strip

FIRST_CAPTIONS = 3
"""Captions that are shown before the rest folds away."""


@dataclass(frozen=True)
class Place:
    """One result with its rank."""

    result: Result
    rank: str
    score: str


@dataclass(frozen=True)
class StripView:
    """One query as the page shows it; `pairs` holds captions beside edits."""

    strip: Strip
    outcome: str
    verdict: str
    pairs: tuple[text.Pair, ...]
    captions: tuple[str, ...]
    edits: tuple[str, ...]
    results: tuple[Place, ...]
    missed: tuple[Place, ...]


@dataclass(frozen=True)
class StripGroup:
    """Strips with one outcome: hit, miss, or open (right answers hidden)."""

    key: str
    title: str
    strips: tuple[StripView, ...]


_OUTCOMES = {
    "hit": "Found: a target is among the results shown",
    "miss": "Missed: no target is among the results shown",
    "open": "Not judged: the right answers of this split are hidden",
}


def verdict(strip: Strip) -> tuple[str, str]:
    """Outcome and its wording."""
    if not strip.judged:
        return "open", "not judged"
    if strip.found:
        return "hit", f"target at rank {strip.target_rank}"
    if strip.target_rank is None:
        return "miss", "no target in the ranking"
    return "miss", f"best target at rank {strip.target_rank:,}"


def _pairs(strip: Strip) -> tuple[text.Pair, ...]:
    """Captions beside their edits where they belong together, equal pairs counted once."""
    if len(strip.captions) != len(strip.edits):
        return ()
    counted = Counter(zip(strip.captions, strip.edits, strict=True))
    return tuple(replace(text.compare(*pair), count=n) for pair, n in counted.items())


def _strip(strip: Strip) -> StripView:
    outcome, wording = verdict(strip)
    pairs = _pairs(strip)
    return StripView(
        strip=strip,
        outcome=outcome,
        verdict=wording,
        pairs=pairs,
        captions=() if pairs else tuple(text.clip(caption) for caption in strip.captions),
        edits=() if pairs else tuple(text.clip(edit) for edit in strip.edits),
        results=tuple(_place(result, str(rank)) for rank, result in strip.ranked),
        missed=tuple(_place(r, f"{r.rank:,}" if r.rank else "not ranked") for r in strip.missed),
    )


def _place(result: Result, rank: str) -> Place:
    return Place(result, rank, "" if result.score is None else f"{result.score:.3f}")


def strip_groups(strips: Sequence[Strip]) -> tuple[StripGroup, ...]:
    """Hits, misses and unjudged strips, each in the order given."""
    views = [_strip(strip) for strip in strips]
    groups = (
        StripGroup(key, title, tuple(view for view in views if view.outcome == key))
        for key, title in _OUTCOMES.items()
    )
    return tuple(group for group in groups if group.strips)
