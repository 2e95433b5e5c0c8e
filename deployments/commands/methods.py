"""List the methods: description, status, and the reason where one does not run here."""

from __future__ import annotations

import argparse
import json

from deployments.place import add_place, profile_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add_place(parser)
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the method table."""
    from models.retrieval.methods import METHODS
    from tasks.methods import label_of, why_not_ready

    profile = profile_of(arguments)
    reasons = {name: why_not_ready(name, profile) for name in METHODS}
    labels = {name: "" if reasons[name] else label_of(name, profile) for name in METHODS}
    status = {name: row.status if reasons[name] else "ready" for name, row in METHODS.items()}
    if arguments.json:
        rows = [
            {
                "name": row.name,
                "title": row.title,
                "group": row.group,
                "status": status[row.name],
                "reason": reasons[row.name],
                "label": labels[row.name],
                "description": row.description,
                "paper": row.paper,
                "weights": {family: row.recipe(family).as_json() for family in row.settings.weights}
                if row.runs
                else {},
            }
            for row in METHODS.values()
        ]
        print(json.dumps(rows, indent=1))
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("name", "status", "description"):
        table.add_column(name, overflow="fold")
    for row in METHODS.values():
        why = f" [dim]({reasons[row.name]})[/]" if reasons[row.name] else ""
        label = f" [red]{labels[row.name]}[/]" if labels[row.name] else ""
        table.add_row(row.name, status[row.name], row.description + why + label)
    Console().print(table)
    Console().print("Each that runs also runs as NAME+verify: a verifier looks at its best images.")
    return 0
