"""Read the score ledger back: one entry per scored ranking."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Mapping
from typing import Any

from models.spelling import agreed, counted
from storage.locations.location import Location
from storage.tables.listing import list_tables
from storage.tables.specs import read_spec
from storage.tables.table import SpecConflict, load_table
from tasks.backbone_names import Folders, recognised
from tasks.scoring.making import NOT_RECORDED, SpecOf, differences, how_made, in_order, named

RESULTS_SPEC: Mapping[str, Any] = {"producer": "cirflow/results/1"}
BEHIND_RANKINGS = (
    "query_features",
    "image_features",
    "caption_features",
    "captions",
    "rewrites",
    "edited_pictures",
    "rerank_scores",
    "verifications",
    "list_verifications",
    "questions",
)
"""Tables whose specs say how a ranking was made."""


def read_ledger(root: str, folders: Folders | None = None) -> list[dict[str, Any]]:
    """All scored rankings, in the order in which they were recorded.

    Args:
        root: Where tables are kept.
        folders: Present folder names of backbones; others have those of their last scoring.

    Returns:
        For each ranking its method, backbone, benchmark, split, world, queries, coverage,
        protocol, whether it is zero-shot, how it was made (facet -> words), what tells it from
        other entries of its method (`differs`), and metrics (name -> value, low, high).
    """
    location = Location(root)
    entries: dict[str, dict[str, Any]] = {}
    spec_of = functools.lru_cache(maxsize=None)(lambda key: _spec(location, key))
    for info in list_tables(location, ["results"]):
        if info.fault:
            raise SpecConflict(info.fault)
        rows = load_table(location, "results", info.spec_key).read()
        for row in rows.sort(["created", "run", "metric"]).to_dicts():
            entry = entries.setdefault(row["run"], _entry(row, spec_of))
            entry["metrics"][row["metric"]] = {k: row[k] for k in ("value", "low", "high")}
    known: dict[str, str] = {}
    for entry in entries.values():
        known |= entry["protocol"].get("backbone_folders", {})
    known |= folders or {}
    names: dict[str, str] = {}
    for entry in entries.values():
        names |= entry["protocol"].get("names", {})
    for entry in entries.values():
        entry["backbone"] = recognised(entry["backbone"], known)
        entry["made"] = in_order(named(entry["made"], names))
    found = list(entries.values())
    _tell_trainings(found)
    for entry, differs in zip(found, differences(found), strict=True):
        entry["differs"] = differs
    return found


def _tell_trainings(entries: list[dict[str, Any]]) -> None:
    """Earlier versions did not write down what a network was trained on; other rows may say it."""
    every = [entry["made"] for entry in entries]
    known = {m["network"]: m["trained_on"] for m in every if m.keys() >= {"network", "trained_on"}}
    for entry in entries:
        if network := entry["made"].get("network"):
            told = {"trained_on": known.get(network, NOT_RECORDED)}
            entry["made"] = in_order(told | entry["made"])


def entries_by_run(root: str) -> dict[str, dict[str, Any]]:
    """Ranking -> its entry in the ledger."""
    return {entry["run"]: entry for entry in read_ledger(root)}


def not_zero_shot(protocol: Mapping[str, Any]) -> str:
    """The label of numbers that are not zero-shot, with the reason; empty for all others."""
    if protocol.get("zero_shot", True):
        return ""
    return f"not zero-shot: {protocol['zero_shot_reason']}"


def label_of(protocol: Mapping[str, Any]) -> str:
    """What readers must know: not zero-shot, replaced texts, foreign pictures, candidates that were
    not verified or not all of them, how often a grid's order decides; mostly empty."""
    texts = protocol.get("texts", {})
    asked = f"{texts['source']} texts of queries" if texts else ""
    editors = protocol.get("edited_elsewhere_by", "")
    edited = f"references edited elsewhere by {editors}" if editors else ""
    lacking = protocol.get("not_verified")
    partly = protocol.get("incomplete_lists", 0)
    lists = f"{counted(partly, 'list')} of candidates {agreed(partly, 'was', 'were')}"
    part = f"{lists} answered in part" if partly else ""
    flips = protocol.get("order_flips", {})
    turned = (
        f"another order of the picture brings another first candidate in {flips['flipped']:,} of "
        f"{counted(flips['lists'], 'list')}"
        if flips
        else ""
    )
    kept = (
        f"{lacking['lacking']:,} of {counted(lacking['pairs'], 'candidate')} "
        + agreed(
            lacking["lacking"],
            "was not verified and keeps its place",
            "were not verified and keep their places",
        )
        if lacking
        else ""
    )
    return "; ".join(
        each for each in (not_zero_shot(protocol), asked, edited, kept, part, turned) if each
    )


def _spec(location: Location, spec_key: str) -> Mapping[str, Any] | None:
    """The spec of a table behind a ranking; None where it does not lie at the location."""
    for name in BEHIND_RANKINGS:
        with contextlib.suppress(FileNotFoundError, SpecConflict):
            return read_spec(location, name, spec_key)
    return None


def _entry(row: Mapping[str, Any], spec_of: SpecOf) -> dict[str, Any]:
    protocol = json.loads(row["protocol"])
    if "style" in protocol:  # the family's name in rows of earlier versions
        protocol = {"family": protocol.pop("style"), **protocol}
    same = ("run", "method", "backbone", "benchmark", "split", "queries", "coverage", "created")
    return {
        **{name: row[name] for name in same},
        "world": protocol.get("world", "real"),
        "protocol": protocol,
        "zero_shot": bool(protocol.get("zero_shot", True)),
        "made": _made(row, protocol.get("made", {}), spec_of),
        "metrics": {},
    }


def _made(row: Mapping[str, Any], stored: Mapping[str, str], spec_of: SpecOf) -> Mapping[str, str]:
    """How a row was made: as it says, or from the specs behind it where it lacks facets."""
    if stored.keys() & {"data", "source"}:  # all facets, or those of an imported row
        return stored
    found = how_made(json.loads(row["provenance"]), spec_of)
    known = {facet: words for facet, words in found.items() if words != NOT_RECORDED}
    apart = {facet: stored[facet] for facet in ("trained_on", "texts") if facet in stored}
    return {**found, **stored, **known, **apart}
