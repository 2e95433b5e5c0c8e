"""Read the score ledger back: one entry per scored ranking."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from storage.locations.location import Location
from storage.tables.listing import list_tables
from storage.tables.table import SpecConflict, load_table
from tasks.backbone_names import Folders, recognised

RESULTS_SPEC: Mapping[str, Any] = {"producer": "cirflow/results/1"}


def read_ledger(root: str, folders: Folders | None = None) -> list[dict[str, Any]]:
    """All scored rankings, in the order in which they were recorded.

    Args:
        root: Where tables are kept.
        folders: Present folder names of backbones; others have those of their last scoring.

    Returns:
        For each ranking its method, backbone, benchmark, split, world, queries, coverage,
        protocol, whether it is zero-shot, and metrics (name -> value, low, high).
    """
    location = Location(root)
    entries: dict[str, dict[str, Any]] = {}
    for info in list_tables(location):
        if info.name != "results":
            continue
        if info.fault:
            raise SpecConflict(info.fault)
        rows = load_table(location, "results", info.spec_key).read()
        for row in rows.sort(["created", "run", "metric"]).to_dicts():
            entry = entries.setdefault(row["run"], _entry(row))
            entry["metrics"][row["metric"]] = {k: row[k] for k in ("value", "low", "high")}
    known: dict[str, str] = {}
    for entry in entries.values():
        known |= entry["protocol"].get("backbone_folders", {})
    known |= folders or {}
    for entry in entries.values():
        entry["backbone"] = recognised(entry["backbone"], known)
    return list(entries.values())


def not_zero_shot(protocol: Mapping[str, Any]) -> str:
    """The label of numbers that are not zero-shot, with the reason; empty for all others."""
    if protocol.get("zero_shot", True):
        return ""
    return f"not zero-shot: {protocol['zero_shot_reason']}"


def _entry(row: Mapping[str, Any]) -> dict[str, Any]:
    protocol = json.loads(row["protocol"])
    if "style" in protocol:  # the family's name in rows of earlier versions
        protocol = {"family": protocol.pop("style"), **protocol}
    same = ("run", "method", "backbone", "benchmark", "split", "queries", "coverage", "created")
    return {
        **{name: row[name] for name in same},
        "world": protocol.get("world", "real"),
        "protocol": protocol,
        "zero_shot": bool(protocol.get("zero_shot", True)),
        "metrics": {},
    }
