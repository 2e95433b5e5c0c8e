"""Ranked lists: `cirflow import predictions` and `cirflow export predictions`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from deployments.errors import UserError
from deployments.place import add_place, profile_of, reachable_root, score_command
from models.spelling import agreed, unknown

IMPORT: Final = """\
Score predictions of others and write them to the ledger, labelled by their file.

Predictions are in the benchmark's submission form, as for `cirflow score`. CIRR has two files, the
recall and the recall_subset one: give both for all metrics. No image is needed.

example:
  cirflow import predictions circo_val.json --benchmark circo --split val --folder CIRCO \\
      --method their-method --backbone "ViT-L-14 openai" """

EXPORT: Final = """\
Write a ranking that was made under a profile in the benchmark's submission form.

example:
  cirflow export predictions --benchmark circo --split val --folder CIRCO --method cvsi --out DIR"""


def add_import(parser: argparse.ArgumentParser) -> None:
    """Options of `cirflow import predictions`."""
    parser.add_argument("file", nargs="+", help="JSON files of one benchmark and split")
    _add_benchmark(parser)
    parser.add_argument("--method", required=True, help="who made them, for the ledger")
    parser.add_argument("--backbone", default="", help="its backbone, for the ledger")
    parser.add_argument(
        "--not-zero-shot", default="", metavar="WHY", help="such as: trained on CIRR's triplets"
    )
    add_place(parser)


def run_import(arguments: argparse.Namespace) -> int:
    """Import, and print the metrics."""
    _check(arguments)
    _require_names(arguments)
    root = reachable_root(arguments)
    from storage.exchange.sources import open_sources
    from tasks.imported_predictions import import_predictions

    scores, new = import_predictions(
        root,
        open_sources(arguments.file),
        arguments.benchmark,
        arguments.split,
        arguments.folder,
        arguments.method,
        arguments.backbone,
        arguments.not_zero_shot,
    )
    width = max(map(len, scores.metrics))
    for name, value in scores.metrics.items():
        low, high = scores.intervals[name]
        print(f"{name:{width}}  {value:6.2f}  [{low:.2f}, {high:.2f}]")
    rows = f"{new} {agreed(new, 'new row')}"
    said = rows if new else "nothing new: these predictions are known"
    print(f"{said} in the ledger at {root}: cirflow leaderboard --where method=={arguments.method}")
    return 0


def add_export(parser: argparse.ArgumentParser) -> None:
    """Options of `cirflow export predictions`."""
    _add_benchmark(parser)
    parser.add_argument("--method", required=True, help="a method that was scored")
    parser.add_argument("--out", required=True, help="folder for the files")
    add_place(parser)


def run_export(arguments: argparse.Namespace) -> int:
    """Export, and say where."""
    _check(arguments)
    from flows.forms import BenchmarkChoice
    from storage.tables.plans import IncompleteTable
    from tasks.imported_predictions import export_predictions
    from tasks.planner import plan_evaluation

    profile = profile_of(arguments)
    choice = BenchmarkChoice(
        name=arguments.benchmark, folder=arguments.folder, split=arguments.split
    )
    (stage,) = plan_evaluation(profile, choice.ref(profile), [arguments.method]).rankings
    try:
        written = export_predictions(stage, Path(arguments.out))
    except IncompleteTable as error:
        raise UserError(f"{error}: {score_command(arguments, [arguments.method])}") from error
    for path in written:
        print(path)
    return 0


def _add_benchmark(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--benchmark", required=True, help="its name, such as circo")
    parser.add_argument("--split", default="val", help="one of its splits")
    parser.add_argument("--folder", required=True, help="the benchmark's folder")


def _require_names(arguments: argparse.Namespace) -> None:
    """The ledger's names of an imported row are words on one line."""
    if not arguments.method.strip():
        raise UserError("--method names who made the predictions; it is empty")
    for name in ("method", "backbone", "not_zero_shot"):
        if not (given := getattr(arguments, name)).isprintable():
            option = name.replace("_", "-")
            raise UserError(f"--{option} is words on one line, not {given!r}")


def _check(arguments: argparse.Namespace) -> None:
    """Refuse names that no benchmark has, before anything heavy is imported."""
    from storage.benchmarks.registry import BENCHMARKS

    if arguments.benchmark not in BENCHMARKS:
        raise UserError(unknown("benchmark", arguments.benchmark, BENCHMARKS))
    splits = [split.name for split in BENCHMARKS[arguments.benchmark].splits]
    if arguments.split not in splits:
        raise UserError(unknown(f"split of {arguments.benchmark}", arguments.split, splits))
