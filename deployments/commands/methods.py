"""List the methods: what each does, what it needs, and why some do not run here."""

from __future__ import annotations

import argparse
import json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the method table."""
    from models.methods import METHODS

    if arguments.json:
        rows = [
            {
                "name": row.name,
                "title": row.title,
                "group": row.group,
                "status": row.status,
                "reason": row.reason,
                "description": row.description,
                "paper": row.paper,
                "weights": {
                    style: {"query": dict(r.query), "gallery": dict(r.gallery)}
                    for style, r in row.recipes.items()
                },
            }
            for row in METHODS.values()
        ]
        print(json.dumps(rows, indent=1))
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("name", "status", "what it is"):
        table.add_column(name, overflow="fold")
    for row in METHODS.values():
        why = f" [dim]({row.reason})[/]" if row.reason else ""
        table.add_row(row.name, row.status, row.description + why)
    Console().print(table)
    return 0
