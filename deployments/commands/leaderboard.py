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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from deployments.place import add_place, reachable_root
from models.spelling import agreed

if TYPE_CHECKING:
    from tasks.scoring.selection import Entry

LONGEST: Final = 24
"""Characters of a pivot's heading; longer values stand above the table."""


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
        rankings = f"{len(entries)} {agreed(len(entries), 'scored ranking')}"
        print(f"none of {rankings} at {root} fits {', '.join(arguments.where)}")
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

    main, headings = _columns(rows[0])
    embedded = rows[0]["world"] == "embedded"
    names = [name for name in headings if any(name in row["metrics"] for row in rows)]
    numbers = (*(headings[name] for name in names), f"published {headings.get(main, main)}")
    lines = []
    for row in sorted(rows, key=lambda row: _lowest_last(row, main)):
        cells = [_number(row, name) for name in names]
        cells.append("" if embedded else _published(row, main))
        lines.append(_Line(row, tuple(cells), row["differs"], label_of(row["protocol"])))
    print(_title(rows[0]))
    _print_lines(numbers, lines)


def _title(row: Entry) -> str:
    embedded = row["world"] == "embedded"
    world = " (embedded world: not comparable with published numbers)" if embedded else ""
    queries = f"{row['queries']} {agreed(row['queries'], 'query')}"
    return f"{row['benchmark']} {row['split']}, {queries}{world}"


def _print_pivot(rows: list[Entry], facet: str) -> None:
    """The main metric of each method, a column for each value of the facet."""
    from tasks.scoring.selection import pivot

    values, sides = pivot(rows, facet)
    main, headings = _columns(rows[0])
    print(f"{_title(rows[0])}: {headings.get(main, main)} by {facet}")
    short = [value if len(value) <= LONGEST else f"[{i}]" for i, value in enumerate(values, 1)]
    for value, name in zip(values, short, strict=True):
        if value != name:
            print(f"  {name} {value}")

    sides.sort(key=lambda side: min(_lowest_last(e, main) for e in side.entries.values()))
    cells = [tuple(_number(side.entries.get(value), main) for value in values) for side in sides]
    lines = [_Line(s.first, own, s.differs) for s, own in zip(sides, cells, strict=True)]
    _print_lines(tuple(short), lines)


def _number(entry: Entry | None, name: str) -> str:
    """A metric as printed; empty where the entry lacks it, as of one of CIRR's two files."""
    found = None if entry is None else entry["metrics"].get(name)
    return f"{found['value']:.2f}" if found else ""


def _lowest_last(entry: Entry, name: str) -> float:
    """Sorts entries by a metric, those that lack it at the end."""
    return -entry["metrics"].get(name, {"value": -1.0})["value"]


@dataclass(frozen=True)
class _Line:
    """A row of a table: its method and backbone, numbers, what differs, a line below it."""

    row: Entry
    cells: tuple[str, ...]
    differs: str
    label: str = ""


def _print_lines(numbers: tuple[str, ...], lines: list[_Line]) -> None:
    """A table with a heading; columns that are empty are left out."""
    texts = [("method", "backbone", *numbers, "what differs")]
    texts += [
        (line.row["method"], line.row["backbone"], *line.cells, line.differs) for line in lines
    ]
    columns = []
    for place, column in enumerate(zip(*texts, strict=True)):
        width = max(map(len, column))
        is_number = 2 <= place < len(texts[0]) - 1 and not any(" " in cell for cell in column[1:])
        if any(column[1:]):
            columns.append([f"{text:{'>' if is_number else '<'}{width}}" for text in column])
    heading, *rows = ("  ".join(cells).rstrip() for cells in zip(*columns, strict=True))
    print(f"  {heading}")
    for line, text in zip(lines, rows, strict=True):
        print(f"  {text}")
        if line.label:
            print(f"  {'':{len(columns[0][0])}}  {line.label}")
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
