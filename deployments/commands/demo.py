"""Run everything once on the embedded world: drawn images and composed queries become captions,
edits, pseudo tokens, features, rankings, metrics, submission files and a report. An InstructCIR
network is trained for a minute from drawn, unlabelled pictures.

A second run reuses the tables of the first."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from deployments.display import console, show_stages
from deployments.prefect_session import configure_prefect, run_flow
from models.spelling import agreed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("--out", default="out/demo", help="folder of all results")
    parser.add_argument("--seed", type=int, default=0, help="seed of the drawn world")


def run(arguments: argparse.Namespace) -> int:
    """Run the demo flow and print the path of the report."""
    out = Path(arguments.out).resolve()
    from flows.requests.demo import demo as asked

    asked(str(out), arguments.seed)  # refused before Prefect starts
    configure_prefect(out / "prefect")
    from flows.demo import demo

    ran = run_flow(demo, {"out": str(out), "seed": arguments.seed}, out / "prefect")
    summary = ran.result
    show_stages(summary["stages"])
    show_scores(summary["scores"], summary["main_metrics"], summary["differs"])
    console.print(f"\n{ran.in_words}")
    _show_trained(summary["trained"])
    console.print("submission files: " + (", ".join(summary["submissions"]) or "none"))
    print(f"report: {summary['report']}")
    return 0


def _show_trained(trained: dict[str, Any]) -> None:
    triplets, steps = trained["triplets"], trained["steps"]
    console.print(
        f"\n[bold]InstructCIR, trained just now[/] on {triplets} "
        f"{agreed(triplets, 'generated triplet')}, {steps} {agreed(steps, 'step')} "
        "(the shipped network above saw more):"
    )
    show_scores(trained["scores"], trained["main_metrics"], trained["differs"])
    console.print(f"its report: {trained['report']}", highlight=False)
    console.print(f"its triplets: {trained['triplet_report']}", highlight=False)


def show_scores(
    scores: dict[str, dict[str, dict[str, float]]],
    main_metrics: dict[str, str],
    differs: dict[str, dict[str, str]],
) -> None:
    """The main metric of each method on each benchmark, and what tells its row from others."""
    from rich.table import Table

    for collection, methods in scores.items():
        if not methods:
            continue
        metric, told = main_metrics[collection], differs.get(collection, {})
        table = Table(title=f"{collection}: {metric}", box=None, title_justify="left")
        table.add_column("method")
        table.add_column("%", justify="right")
        if told:
            table.add_column("what differs")
        for name, metrics in sorted(methods.items(), key=lambda pair: -pair[1][metric]):
            words = [told.get(name, "")] if told else []
            table.add_row(name, f"{metrics[metric]:.2f}", *words)
        console.print(table)
