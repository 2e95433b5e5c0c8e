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
    from tasks.ledger import read_ledger

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


def _print_group(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    from tasks.ledger import MAIN_METRIC

    first = rows[0]
    main = MAIN_METRIC[first["benchmark"]]
    world = " (embedded world, not comparable with published numbers)"
    title = f"{first['benchmark']} {first['split']}, {first['queries']} queries"
    table = Table(
        title=title + (world if first["world"] == "embedded" else ""),
        title_justify="left",
        box=None,
        header_style="bold",
    )
    names = [name for name in first["metrics"] if "/" not in name or name.endswith("/average")]
    table.add_column("method")
    table.add_column("backbone")
    for name in names:
        table.add_column(name, justify="right")
    for row in sorted(rows, key=lambda row: -row["metrics"][main]["value"]):
        cells = [f"{row['metrics'][name]['value']:.2f}" for name in names]
        table.add_row(row["method"], row["backbone"], *cells)
    Console().print(table)
