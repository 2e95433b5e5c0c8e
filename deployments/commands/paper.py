"""Fill a paper's tables and figures: published numbers, what was measured, and why the rest is
missing. What can be made is made first; a second run makes nothing.

  cirflow paper cvsi                      on the drawn world of `cirflow demo`, small models
  cirflow paper instructcir --profile production \\
      --set 'benchmarks=[{"name": "cirr", "folder": "DIR"}]'
  cirflow paper cvsi --train              the same, and the comparison systems are trained first
  cirflow paper cvsi --ledger-only --root DIR

OUT holds page.html, and for each table a CSV, a Parquet and a LaTeX file."""

from __future__ import annotations

import argparse

from deployments.commands.run import checked_parameters
from deployments.display import console, show_stages
from deployments.place import add_place
from deployments.prefect_session import configure_prefect, run_flow


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("paper", choices=("cvsi", "instructcir"), help="the paper")
    parser.add_argument("--out", default="", help="folder; default: out/paper/PAPER")
    parser.add_argument(
        "--ledger-only", action="store_true", help="make nothing, show what the ledger holds"
    )
    parser.add_argument(
        "--train",
        action="store_true",
        help="train the comparison systems on drawn pictures first, each once",
    )
    add_place(parser, "a parameter of the flow `paper` or a setting of the profile")


def run(arguments: argparse.Namespace) -> int:
    """Check everything that can be checked, make what is missing, and print the page's path."""
    arguments.flow = "paper"
    arguments.set.append(f"paper={arguments.paper}")
    if arguments.out:
        arguments.set.append(f"out={arguments.out}")
    if arguments.ledger_only:
        arguments.set.append("make=false")
    if arguments.train:
        arguments.set.append("train=true")
    parameters = checked_parameters(arguments)
    configure_prefect()
    from flows.paper import paper

    ran = run_flow(paper, parameters)
    if ran.result["stages"]:
        show_stages(ran.result["stages"])
    for backbone, reasons in ran.result["left out"].items():
        for method, why in reasons.items():
            console.print(f"left out on {backbone}: {method}: {why}", highlight=False)
    console.print(ran.in_words)
    print(f"page: {ran.result['page']}")
    return 0
