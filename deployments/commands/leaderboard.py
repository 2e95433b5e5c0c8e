"""Show the scores in the ledger, best first, one table per benchmark, split and world.

Rows of one method say what differs between them. A facet is a part of how a row was made, such as
generator, captioner, target_captions or network; --json shows all of each row (`made`).

  cirflow leaderboard --where method==cvsi --where generator=llama
  cirflow leaderboard --by target_captions
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from deployments.place import add_place, reachable_root

if TYPE_CHECKING:
    from tasks.scoring.selection import Entry


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add_place(parser)
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="FACET=VALUE",
        help="only rows whose facet holds the value (== compares the whole); repeatable",
    )
    parser.add_argument(
        "--by",
        default="",
        metavar="FACET",
        help="the facet's values side by side, main metric only",
    )
    parser.add_argument("--json", action="store_true", help="print every number as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Read the ledger and print it.

    Raises:
        ValueError: a condition is not FACET=VALUE, or no facet has the name.
    """
    from tasks.scoring.selection import checked_facet, chosen

    chosen([], arguments.where)
    by = checked_facet(arguments.by) if arguments.by else ""
    root = reachable_root(arguments)
    from tasks.scoring.ledger import read_ledger

    entries = read_ledger(root)
    rows = chosen(entries, arguments.where)
    if arguments.json:
        print(json.dumps(rows, indent=1))
        return 0
    if entries and not rows:
        print(f"none of {len(entries)} scored rankings at {root} fits {', '.join(arguments.where)}")
        return 0
    if not rows:
        print(
            f"no scores at {root} yet; make some with `cirflow run score-benchmark`, or "
            "name another root with --root (the demo's is out/demo/tables)"
        )
        return 0
    groups: dict[tuple[str, ...], list[Entry]] = {}
    for row in rows:
        groups.setdefault(
            (row["benchmark"], row["split"], row["world"], row["queries"]), []
        ).append(row)
    for group in groups.values():
        if by:
            _print_pivot(group, by)
        else:
            _print_group(group)
    return 0


def _print_group(rows: list[Entry]) -> None:
    from tasks.scoring.ledger import label_of

    first = rows[0]
    main, headings = _columns(first)
    embedded = first["world"] == "embedded"
    print(_title(first))
    names = [name for name in headings if name in first["metrics"]]
    published = ["" if embedded else _published(row, main) for row in rows]
    width = max(len(row["method"]) for row in rows)
    place = max(len(row["backbone"]) for row in rows)
    head = "".join(f"{headings[name]:>8}" for name in names)
    head += f"  published {headings.get(main, main)}" if any(published) else ""
    telling = any(row["differs"] for row in rows)
    across = width + place + len(head) + 6
    heading = f"  {'method':{width}}  {'backbone':{place}}{head}"
    print(f"{heading:{across}}what differs" if telling else heading)
    pairs = zip(rows, published, strict=True)
    for row, paper in sorted(pairs, key=lambda pair: -pair[0]["metrics"][main]["value"]):
        cells = "".join(f"{row['metrics'][name]['value']:8.2f}" for name in names)
        line = f"  {row['method']:{width}}  {row['backbone']:{place}}{cells}  {paper}"
        line = f"{line:{across}}{row['differs']}" if telling else line
        print(line.rstrip())
        if label := label_of(row["protocol"]):
            print(f"  {'':{width}}  {label}")
    print()


def _title(row: Entry) -> str:
    embedded = row["world"] == "embedded"
    world = " (embedded world: not comparable with published numbers)" if embedded else ""
    return f"{row['benchmark']} {row['split']}, {row['queries']} queries{world}"


def _print_pivot(rows: list[Entry], facet: str) -> None:
    """The main metric of each method, a column for each value of the facet."""
    from tasks.scoring.selection import pivot, value_of

    values, sides = pivot(rows, facet)
    main, headings = _columns(rows[0])
    print(f"{_title(rows[0])}: {headings.get(main, main)} by {facet}")
    width = max(len(row["method"]) for row in rows)
    widths = [max(8, len(value)) for value in values]
    heads = "".join(f"  {value:>{size}}" for value, size in zip(values, widths, strict=True))
    print(f"  {'method':{width}}{heads}")
    for side in sorted(sides, key=lambda side: -max(r["metrics"][main]["value"] for r in side)):
        found = {value_of(row, facet): row["metrics"][main]["value"] for row in side}
        cells = [f"{found[value]:.2f}" if value in found else "" for value in values]
        line = "".join(f"  {cell:>{size}}" for cell, size in zip(cells, widths, strict=True))
        print(f"  {side[0]['method']:{width}}{line}".rstrip())
    print()


def _columns(row: Entry) -> tuple[str, Mapping[str, str]]:
    """The main metric and the metrics that fit a narrow terminal, with their headings.

    All metrics of a benchmark that is not registered here (a shared ledger may hold one).
    """
    from storage.benchmarks.registry import BENCHMARKS

    facts = BENCHMARKS.get(row["benchmark"])
    if facts is None:
        return next(iter(row["metrics"])), {name: name for name in row["metrics"]}
    return facts.metrics.main, facts.terminal_columns


def _published(row: Entry, main: str) -> str:
    from tasks.scoring.published import published_for

    if "texts" in row["protocol"]:  # the papers asked with the benchmark's own
        return ""

    found = published_for(
        row["benchmark"], row["split"], row["method"], row["backbone"], drawn=False
    )
    return found.text(main) if found else ""
