"""Show the same queries by two methods, one above the other, as a page.

Shown are queries that the first method answers rightly and the second wrongly, or the ones named.
Both must have been scored under the same profile (`cirflow run score-benchmark`). No model is
loaded, and Prefect is not started."""

from __future__ import annotations

import argparse
from pathlib import Path

from deployments.errors import UserError
from deployments.place import add_place, profile_of, score_command
from models.spelling import agreed, unknown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("right", metavar="METHOD", help="the method that answers rightly")
    parser.add_argument("wrong", metavar="OTHER", help="the method that answers wrongly")
    parser.add_argument("--benchmark", required=True, help="its name, such as circo")
    parser.add_argument("--folder", required=True, help="the benchmark's folder, images included")
    parser.add_argument("--split", default="val", help="one of its splits")
    parser.add_argument(
        "--query",
        action="append",
        default=[],
        metavar="ID",
        help="show this query, right or wrong (again for more)",
    )
    parser.add_argument("-k", type=int, default=5, help="how many images of each ranking")
    parser.add_argument("--count", type=int, default=6, help="queries shown if none is named")
    parser.add_argument("--out", default="out/compare.html", help="the page's file")
    add_place(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the page and print its path."""
    from flows.forms import BenchmarkChoice
    from models.retrieval.methods import method
    from storage.benchmarks.registry import BENCHMARKS
    from storage.locations.access import require_reachable
    from storage.locations.location import Location
    from storage.tables.plans import IncompleteTable

    for option, count in (("-k", arguments.k), ("--count", arguments.count)):
        if count < 1:
            raise UserError(f"{option} must be at least 1, not {count}")
    if arguments.benchmark not in BENCHMARKS:
        raise UserError(unknown("benchmark", arguments.benchmark, BENCHMARKS))
    methods = (arguments.right, arguments.wrong)
    try:
        titles = [method(name).title for name in methods]
    except ValueError as error:
        raise UserError(str(error)) from error
    profile = profile_of(arguments)
    require_reachable(Location(profile.root))
    choice = BenchmarkChoice.given(
        {
            "name": arguments.benchmark,
            "folder": arguments.folder,
            "split": arguments.split,
        },
        "the benchmark",
    )
    from tasks.planner import plan_evaluation
    from tasks.query_sets import is_embedded_world
    from tasks.report.side_by_side import side_by_side, side_by_side_page

    first, second = plan_evaluation(profile, choice.ref(profile), methods).rankings
    try:
        pairs = side_by_side(first, second, arguments.query, arguments.k, arguments.count)
    except IncompleteTable as error:
        raise UserError(f"{error}: {score_command(arguments, methods)}") from error
    title = " and ".join(titles)
    out = Path(arguments.out)
    embedded = is_embedded_world(choice.folder)
    page = side_by_side_page(pairs, f"{title} on {first.benchmark.title}", embedded)
    Location(str(out.parent)).replace(out.name, page.encode())
    print(f"{len(pairs)} {agreed(len(pairs), 'query')}: {out.resolve()}")
    return 0
