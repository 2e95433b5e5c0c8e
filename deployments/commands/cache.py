"""List or verify the tables: captions, edits, features, rankings, scores.

`cirflow cache ls` shows every table with its rows; `cirflow cache verify` reads every part
completely and lists the problems; `--quarantine` renames broken parts (nothing is deleted), and the
next run of their flow makes the lost rows again."""

from __future__ import annotations

import argparse
import json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("action", choices=("ls", "verify"))
    parser.add_argument("--root", default=".cirflow", help="root of the tables")
    parser.add_argument("--table", default="", help="only tables of this name")
    parser.add_argument(
        "--quarantine",
        action="store_true",
        help="rename broken parts, so that the next run of their flow makes the rows again",
    )
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(arguments: argparse.Namespace) -> int:
    """List or verify; the status is 1 if a table has a problem."""
    from storage.locations.location import Location
    from storage.tables.listing import list_tables

    tables = [
        table
        for table in list_tables(Location(arguments.root))
        if arguments.table in ("", table.name)
    ]
    if arguments.action == "verify":
        return _verify(arguments, [(table.name, table.spec_key) for table in tables])
    if arguments.json:
        keep = ("name", "spec_key", "parts", "rows", "bytes", "unreadable")
        print(
            json.dumps(
                [{k: getattr(t, k) for k in keep} | {"spec": t.spec} for t in tables], indent=1
            )
        )
        return 0
    if not tables:
        print(f"no tables at {arguments.root}")
    for table in tables:
        size = f"{table.bytes / 2**20:.1f} MiB"
        print(
            f"{table.name}/{table.spec_key}  {table.rows} rows  {table.parts} parts  {size}  "
            f"{table.spec.get('producer', '')}"
        )
    return 0


def _verify(arguments: argparse.Namespace, tables: list[tuple[str, str]]) -> int:
    from storage.locations.location import Location
    from storage.tables.table import load_table

    found = []
    for name, spec_key in tables:
        table = load_table(Location(arguments.root), name, spec_key)
        for problem in table.verify():
            aside = table.quarantine(problem.part) if arguments.quarantine else ""
            found.append(
                {
                    "table": f"{name}/{spec_key}",
                    "part": problem.part,
                    "what": problem.what,
                    "aside": aside,
                }
            )
    if arguments.json:
        print(json.dumps({"tables": len(tables), "problems": found}, indent=1))
    else:
        for each in found:
            print(f"{each['table']}: {each['what']}")
            if each["aside"]:
                print(f"  put aside as {each['aside']}; run its flow again to make the rows")
        print(f"{len(tables)} tables read, {len(found)} problems")
    return 1 if found else 0
