"""Show the scores in the ledger, best first, one table per benchmark, split and world."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from deployments.place import add_place, reachable_root


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add_place(parser)
    parser.add_argument("--json", action="store_true", help="print every number as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Read the ledger and print it."""
    root = reachable_root(arguments)
    from tasks.scoring.ledger import read_ledger

    rows = read_ledger(root)
    if arguments.json:
        print(json.dumps(rows, indent=1))
        return 0
    if not rows:
        print(
            f"no scores at {root} yet; make some with `cirflow run score-benchmark`, or "
            "name another root with --root (the demo's is out/demo/tables)"
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
    from tasks.scoring.ledger import not_zero_shot

    first = rows[0]
    main, headings = _columns(first)
    embedded = first["world"] == "embedded"
    world = " (embedded world: not comparable with published numbers)" if embedded else ""
    print(f"{first['benchmark']} {first['split']}, {first['queries']} queries{world}")
    names = [name for name in headings if name in first["metrics"]]
    published = ["" if embedded else _published(row, main) for row in rows]
    width = max(len(row["method"]) for row in rows)
    place = max(len(row["backbone"]) for row in rows)
    head = "".join(f"{headings[name]:>8}" for name in names)
    head += f"  published {headings.get(main, main)}" if any(published) else ""
    print(f"  {'method':{width}}  {'backbone':{place}}{head}")
    pairs = zip(rows, published, strict=True)
    for row, paper in sorted(pairs, key=lambda pair: -pair[0]["metrics"][main]["value"]):
        cells = "".join(f"{row['metrics'][name]['value']:8.2f}" for name in names)
        line = f"  {row['method']:{width}}  {row['backbone']:{place}}{cells}  {paper}"
        print(line.rstrip())
        if label := not_zero_shot(row["protocol"]):
            print(f"  {'':{width}}  {label}")
    print()


def _columns(row: dict[str, Any]) -> tuple[str, Mapping[str, str]]:
    """The main metric and the metrics that fit a narrow terminal, with their headings.

    All metrics of a benchmark that is not registered here (a shared ledger may hold one).
    """
    from storage.benchmarks.registry import BENCHMARKS

    facts = BENCHMARKS.get(row["benchmark"])
    if facts is None:
        return next(iter(row["metrics"])), {name: name for name in row["metrics"]}
    return facts.metrics.main, facts.terminal_columns


def _published(row: dict[str, Any], main: str) -> str:
    from tasks.scoring.published import published_for

    found = published_for(
        row["benchmark"], row["split"], row["method"], row["backbone"], drawn=False
    )
    return found.text(main) if found else ""
