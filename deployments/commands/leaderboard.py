"""Show the scores in the ledger, best first, one table per benchmark, split and world."""

from __future__ import annotations

import argparse
import json
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("--root", default=".cirflow", help="where tables are kept")
    parser.add_argument("--json", action="store_true", help="print every number as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Read the ledger and print it."""
    from tasks.scoring.ledger import read_ledger

    rows = read_ledger(arguments.root)
    if arguments.json:
        print(json.dumps(rows, indent=1))
        return 0
    if not rows:
        print(
            f"no scores at {arguments.root} yet; make some with `cirflow run score-benchmark`, or "
            "look elsewhere with --root (the demo's are in out/demo/tables)"
        )
        return 0
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(
            (row["benchmark"], row["split"], row["world"], row["queries"]), []
        ).append(row)
    for group in groups.values():
        _print_group(group)
    return 0


SHOWN = {
    "recall@1": "R@1",
    "recall@5": "R@5",
    "recall@10": "R@10",
    "recall_subset@1": "Rs@1",
    "map@5": "mAP@5",
    "map@10": "mAP@10",
    "map@50": "mAP@50",
    "recall@10/average": "R@10",
    "recall@50/average": "R@50",
}
"""Metric -> column, of the few that fit a narrow terminal; `--json` prints all."""


def _print_group(rows: list[dict[str, Any]]) -> None:
    from tasks.scoring.ledger import MAIN_METRIC, not_zero_shot

    first = rows[0]
    main = MAIN_METRIC[first["benchmark"]]
    world = " (embedded world: not comparable with published numbers)"
    title = f"{first['benchmark']} {first['split']}, {first['queries']} queries"
    print(title + (world if first["world"] == "embedded" else ""))
    names = [name for name in SHOWN if name in first["metrics"]]
    if first["benchmark"] == "circo":
        names = [name for name in names if name.startswith("map")]
    width = max(len(row["method"]) for row in rows)
    place = max(len(row["backbone"]) for row in rows)
    head = "".join(f"{SHOWN[name]:>8}" for name in names)
    print(f"  {'method':{width}}  {'backbone':{place}}{head}")
    for row in sorted(rows, key=lambda row: -row["metrics"][main]["value"]):
        cells = "".join(f"{row['metrics'][name]['value']:8.2f}" for name in names)
        print(f"  {row['method']:{width}}  {row['backbone']:{place}}{cells}")
        if label := not_zero_shot(row["protocol"]):
            print(f"  {'':{width}}  {label}")
    print()
